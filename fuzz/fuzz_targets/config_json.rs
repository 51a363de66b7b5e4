//! Any text as `config.json`: refused, or a configuration whose sizes stay inside what the layout map multiplies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{Config, Dim, plan, slots};

fuzz_target!(|text: &str| {
    let Ok(config) = Config::from_json(text) else { return };
    assert_eq!(plan(&config).len(), config.num_hidden_layers);
    for (_, spec) in slots(&config).take(1000) {
        assert!(spec.axes.iter().all(|axis: &Dim| axis.size(&config) > 0), "{:?}", spec.role);
    }
});
