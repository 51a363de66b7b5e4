//! Memory: how fast it is read, and how much of it a piece of work takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes read by all threads together to see what memory gives: more than the caches of most processors hold.
const READ: usize = 512 << 20;

/// How fast `threads` threads together read memory in order: the best of five.
pub(crate) fn bytes_per_second(threads: usize) -> f64 {
    let words = vec![1u64; READ / 8];
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        let sum: u64 = std::thread::scope(|scope| {
            let parts: Vec<_> = words
                .chunks(words.len().div_ceil(threads))
                .map(|part| scope.spawn(move || sum(part)))
                .collect();
            parts.into_iter().map(|part| part.join().unwrap_or(0)).sum()
        });
        best = best.min(start.elapsed().as_secs_f64());
        assert_eq!(std::hint::black_box(sum), words.len() as u64);
    }
    (words.len() * 8) as f64 / best
}

/// The sum of all words, wrapping, with the widest vectors of this processor: nothing but reading takes time.
fn sum(words: &[u64]) -> u64 {
    const LANES: usize = 64;
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let mut sums = [0u64; LANES];
            let (rows, rest) = words.as_chunks::<LANES>();
            for row in rows {
                for (sum, word) in sums.iter_mut().zip(row) {
                    *sum = sum.wrapping_add(*word);
                }
            }
            sums.iter().chain(rest).fold(0u64, |sum, x| sum.wrapping_add(*x))
        },
    )
}

/// How often a peak is looked for.
const EVERY: Duration = Duration::from_millis(2);

/// Does `work`, and says the most anonymous memory that this process held meanwhile, the whole of it: files that are
/// mapped do not count. Linux only.
pub(crate) fn peak_during<T>(work: impl FnOnce() -> T) -> (T, Option<u64>) {
    highest_during(anonymous_bytes, work)
}

/// Does `work`, and says the highest `level` that was seen meanwhile: looked at [every](EVERY) so often, and
/// once more after its end.
fn highest_during<T>(level: impl Fn() -> Option<u64> + Sync, work: impl FnOnce() -> T) -> (T, Option<u64>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut highest = None;
            loop {
                let last = done.load(Ordering::Relaxed);
                highest = highest.max(level());
                if last {
                    return highest;
                }
                std::thread::sleep(EVERY);
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap_or(None))
    })
}

/// Anonymous memory of this process in bytes, where the system tells: Linux, in KiB.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn the_highest_level_of_the_meantime_is_kept() {
        let (level, looks) = (AtomicU64::new(5), AtomicU64::new(0));
        let look = || {
            let seen = level.load(Ordering::SeqCst);
            looks.fetch_add(1, Ordering::SeqCst);
            Some(seen)
        };
        let ((), highest) = highest_during(look, || {
            level.store(9, Ordering::SeqCst);
            // The second look from here began after the store.
            let seen = looks.load(Ordering::SeqCst) + 2;
            while looks.load(Ordering::SeqCst) < seen {
                std::thread::yield_now();
            }
            level.store(1, Ordering::SeqCst);
        });
        assert_eq!(highest, Some(9));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_held_counts_in_bytes() {
        // Other tests of this process come and go meanwhile: they can only add to it.
        const HELD: usize = 64 << 20;
        let held = vec![1u8; HELD];
        let bytes = anonymous_bytes().unwrap();
        assert_eq!(std::hint::black_box(held).len(), HELD);
        assert!((HELD as u64..1 << 40).contains(&bytes), "{bytes}");
    }
}
