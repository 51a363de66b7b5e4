//! The page of a checkpoint in a browser: its script runs, tables sort and filter, areas are drawn and say what they are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::etalon::etalon;

const GGUF: &str = "fixtures/gguf-good/dense-text-f32-q8_0.gguf";

/// A Chromium: `ETALON_BROWSER`, or the first found on the path.
fn browser() -> Option<PathBuf> {
    if let Some(named) = env::var_os("ETALON_BROWSER") {
        return Some(PathBuf::from(named));
    }
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let dirs: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    names.into_iter().find_map(|name| dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file()))
}

/// Loaded before anything else.
const BEFORE: &str =
    "<script>const errors = []; addEventListener('error', event => errors.push(event.message));</script>";

/// Does what a reader would, and leaves what came of it in the body's attributes.
const AFTER: &str = "<script>
const found = {};
try {
  const heading = (table, name) => [...table.tHead.rows[0].cells].find(cell => cell.textContent === name);
  const tables = [...document.querySelectorAll('table.sortable')];
  const table = tables.find(table => heading(table, 'offset'));
  const bytes = heading(table, 'bytes'), at = bytes.cellIndex;
  const column = () => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[at].dataset.sort));
  found.before = column().join();
  bytes.click();
  found.up = column().join();
  bytes.click();
  found.down = column().join();
  const field = table.parentElement.previousElementSibling;
  field.value = 'SSM_ q8_0';
  field.dispatchEvent(new Event('input'));
  found.filtered = [...table.tBodies[0].rows].filter(row => row.offsetHeight > 0).length;
  const areas = [...document.querySelectorAll('.picture rect')];
  const box = document.querySelector('.picture').viewBox.baseVal;
  const inside = ({ x, y, width, height }) =>
    width > 0 && height > 0 && x >= 0 && y >= 0 && x + width <= box.width + .2 && y + height <= box.height + .6;
  found.areas = areas.length;
  found.outside = areas.filter(area => !inside(area.getBBox())).length;
  areas[0].dispatchEvent(new PointerEvent('pointermove', { bubbles: true, clientX: 50, clientY: 50 }));
  const tip = document.querySelector('.tip');
  found.tip = tip.offsetHeight > 0 ? tip.textContent.split('\\n')[0] : '';
  found.histograms = document.querySelectorAll('td svg path').length;
  found.wide = document.documentElement.scrollWidth > innerWidth;
} catch (error) { errors.push(String(error)); }
found.errors = errors.join('; ');
document.body.dataset.found = JSON.stringify(found);
</script>";

/// The document after its scripts, as the browser would write it down.
fn run(browser: &Path, page: &str, profile: &str) -> String {
    let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync \
                 --disable-background-networking --disable-component-update --window-size=1280,900 \
                 --virtual-time-budget=5000 --dump-dom";
    let out = format!("{profile}.html");
    let mut child = Command::new(browser)
        .args(flags.split(' '))
        .arg(format!("--user-data-dir={profile}"))
        .arg(format!("file://{page}"))
        .stdout(fs::File::create(&out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("{} did not end within two minutes", browser.display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::read_to_string(out).unwrap()
}

#[test]
fn a_page_works_in_a_browser() {
    let Some(browser) = browser() else {
        println!("not tested: no Chromium on the path, and ETALON_BROWSER names none");
        return;
    };
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
    let page = at("page.html");
    etalon(["inspect", GGUF, "--html", &page, "--stats"]).expect(0);
    let html = fs::read_to_string(&page).unwrap();
    let html = html.replacen("</head>", &format!("{BEFORE}</head>"), 1);
    fs::write(&page, html.replacen("</body>", &format!("{AFTER}</body>"), 1)).unwrap();
    let document = run(&browser, &page, &at("profile"));
    let found =
        document.split("data-found=\"").nth(1).expect("the page's scripts ran").split('"').next().unwrap();
    let found: serde_json::Value = serde_json::from_str(&found.replace("&quot;", "\"")).unwrap();
    assert_eq!(found["errors"], "", "{found}");
    let rows = |key: &str| -> Vec<u64> {
        found[key].as_str().unwrap().split(',').map(|number| number.parse().unwrap()).collect()
    };
    let (before, up, down) = (rows("before"), rows("up"), rows("down"));
    assert!(up.is_sorted() && down.is_sorted_by(|a, b| a >= b), "{found}");
    assert!(!before.is_sorted() && before.len() > 40);
    let mut sorted = before.clone();
    sorted.sort();
    assert_eq!(up, sorted);
    let list = etalon(["inspect", GGUF, "--tensors", "--name", "*ssm_*", "--encoding", "Q8_0", "--json"]);
    let expected = list.expect(0).json()["tensors"].as_array().unwrap().len();
    assert!(expected > 0);
    assert_eq!(found["filtered"], expected);
    assert_eq!((&found["areas"], &found["outside"]), (&before.len().into(), &0.into()), "{found}");
    assert_eq!(found["histograms"], before.len());
    assert!(found["tip"].as_str().unwrap().contains(".weight"), "{found}");
    assert_eq!(found["wide"], false, "the page itself scrolls sideways");
}
