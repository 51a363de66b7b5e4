//! Threads that wait for work by spinning: a token passes through hundreds of short steps, and waking a thread costs
//! more than many of them take.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Looks at the clock-free counter so many times before it lets others run, and then so many before it sleeps: some
/// tens of microseconds, and a millisecond or two.
const SPINS: usize = 1 << 10;
const YIELDS: usize = 1 << 11;

/// A job without its lifetime.
type Job = *const (dyn Fn() + Sync);

/// A caller and its helpers, which run the same job at the same time.
pub(crate) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// One job at a time.
    busy: Mutex<()>,
}

struct Shared {
    /// Counts jobs; a change is a new one.
    round: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    /// Helpers that have not finished the current job.
    unfinished: AtomicUsize,
    panicked: AtomicBool,
    quit: AtomicBool,
    asleep: Mutex<usize>,
    wake: Condvar,
}

// SAFETY: `job` is written only by the caller while no helper works (`unfinished` is 0) and read by helpers only after
// they saw the `round` that the caller advanced behind the write (release, acquire).
unsafe impl Sync for Shared {}
// SAFETY: as above; what the pointer points to is `Sync`.
unsafe impl Send for Shared {}

impl Team {
    /// `threads` in all, the caller among them.
    pub(crate) fn new(threads: usize) -> Team {
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            unfinished: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            asleep: Mutex::new(0),
            wake: Condvar::new(),
        });
        let helper = |n: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("fast-{n}")).spawn(move || shared.help())
        };
        // A thread that the system refuses is done without: no sum depends on their number.
        let helpers = (1..threads.max(1)).map_while(|n| helper(n).ok()).collect();
        Team { shared, helpers, busy: Mutex::new(()) }
    }

    /// Threads, the caller among them.
    pub(crate) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// `work` on every item, by whichever thread is free.
    pub(crate) fn each<I: Send>(&self, items: &mut [I], work: impl Fn(&mut I) + Sync) {
        if self.helpers.is_empty() || items.len() < 2 {
            return items.iter_mut().for_each(work);
        }
        struct Items<I>(*mut I);
        // SAFETY: the pointer is only used for items of distinct indices, and items are `Send`.
        unsafe impl<I: Send> Sync for Items<I> {}
        impl<I> Items<I> {
            fn at(&self, i: usize) -> *mut I {
                self.0.wrapping_add(i)
            }
        }
        let (count, base, next) = (items.len(), Items(items.as_mut_ptr()), AtomicUsize::new(0));
        self.all(&|| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    break;
                }
                // SAFETY: `i` is within the slice, and the counter gives each index to one thread once; `all` returns
                // only when every thread is done, within the borrow of `items`.
                work(unsafe { &mut *base.at(i) });
            }
        });
    }

    /// Runs `job` on all threads, and returns when all have finished it.
    fn all(&self, job: &(dyn Fn() + Sync)) {
        let _busy = self.busy.lock().unwrap_or_else(|e| e.into_inner());
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Helpers are done with it when this function returns, panic or not.
        let job: Job = unsafe { std::mem::transmute::<*const (dyn Fn() + Sync + '_), Job>(job) };
        // SAFETY: no helper works now, see `Shared`.
        unsafe { *shared.job.get() = Some(job) };
        shared.unfinished.store(self.helpers.len(), Ordering::Relaxed);
        // Sequentially consistent, as is the count of sleepers' own check: one of the two sees the other.
        shared.round.fetch_add(1, Ordering::SeqCst);
        if *shared.asleep.lock().unwrap_or_else(|e| e.into_inner()) > 0 {
            shared.wake.notify_all();
        }
        // SAFETY: the job is the caller's own and alive.
        let own = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)() }));
        let mut spins = 0;
        while shared.unfinished.load(Ordering::Acquire) != 0 {
            wait(&mut spins);
        }
        let helper_panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!helper_panicked, "a helper thread panicked");
    }
}

fn wait(spins: &mut usize) {
    *spins += 1;
    if *spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

impl Shared {
    fn help(&self) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.round.load(Ordering::Acquire) == seen {
                wait(&mut spins);
                if spins > SPINS + YIELDS {
                    self.sleep(seen);
                }
            }
            seen = seen.wrapping_add(1);
            if self.quit.load(Ordering::Relaxed) {
                return;
            }
            // SAFETY: the round was advanced after the job was written; it stays alive until `unfinished` is 0.
            let work = || unsafe { (*self.job.get()).map(|job| (*job)()) };
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.unfinished.fetch_sub(1, Ordering::Release);
        }
    }

    fn sleep(&self, seen: usize) {
        let mut asleep = self.asleep.lock().unwrap_or_else(|e| e.into_inner());
        *asleep += 1;
        while self.round.load(Ordering::SeqCst) == seen {
            asleep = self.wake.wait(asleep).unwrap_or_else(|e| e.into_inner());
        }
        *asleep -= 1;
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::Relaxed);
        self.shared.round.fetch_add(1, Ordering::SeqCst);
        {
            // A helper about to sleep holds this lock until it waits.
            let _asleep = self.shared.asleep.lock().unwrap_or_else(|e| e.into_inner());
            self.shared.wake.notify_all();
        }
        for helper in self.helpers.drain(..) {
            // It catches its jobs' panics.
            let _ = helper.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        for threads in [1, 2, 7] {
            let team = Team::new(threads);
            assert_eq!(team.threads(), threads);
            for count in 0..200 {
                let mut items: Vec<usize> = (0..count).collect();
                team.each(&mut items, |item| *item += 1000);
                assert!(items.iter().enumerate().all(|(i, item)| *item == i + 1000));
            }
        }
    }

    #[test]
    fn a_panic_is_passed_on_and_the_team_goes_on() {
        let team = Team::new(3);
        let mut items = [0; 64];
        let run = catch_unwind(AssertUnwindSafe(|| {
            team.each(&mut items, |_| panic!("as planned"));
        }));
        assert!(run.is_err());
        team.each(&mut items, |item| *item = 1);
        assert_eq!(items, [1; 64]);
    }

    #[test]
    fn sleepers_wake() {
        let team = Team::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(60));
            let mut items = [0; 8];
            team.each(&mut items, |item| *item = 1);
            assert_eq!(items, [1; 8]);
        }
    }
}
