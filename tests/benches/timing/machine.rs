//! How long the machine itself keeps a thread waiting, while something else is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vsnd_bridge::realtime;

use super::stats::Spread;

/// Above every thread of sound.
const PRIORITY: u8 = 95;
const PAUSE: Duration = Duration::from_millis(1);

/// A thread that nothing of this program can delay, asleep for a millisecond at a time. That it wakes late is none of the
/// bridge's doing: a hypervisor beneath, the kernel, or other programs in real time.
pub struct Probe {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Spread>,
}

impl Probe {
    pub fn start() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            // Without it the figures say as much of the other threads.
            let _is_above = realtime::take(PRIORITY).is_ok();
            let mut late = Vec::with_capacity(1 << 20);
            while !own.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(PAUSE);
                late.push(began.elapsed().saturating_sub(PAUSE).as_secs_f64() * 1e3);
            }
            Spread::of(late)
        });
        Self { ended, thread }
    }

    /// How late it woke, in milliseconds.
    pub fn finish(self) -> Spread {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
