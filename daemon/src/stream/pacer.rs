//! The pacer: one thread that wakes when a position is due and tells the guest. It sleeps while nothing runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use tracing::error;
use vsnd_pw_module::{Nanos, monotonic_now};

use super::voice::Voice;
use crate::realtime;

/// How often a guest is told its position. docs/timing.md has the measurements behind the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// The closest that two events of a stream come, however short its periods: a limit on the guest's interrupts and on
    /// our wake-ups.
    pub closest: Nanos,
    /// The longest between two events of a period: a guest's pointer is only as fresh as the last event.
    pub fresh: Nanos,
}

impl Default for Cadence {
    fn default() -> Self {
        Self { closest: Nanos(500_000), fresh: Nanos::from_millis(10) }
    }
}

/// Streams that are due so soon after each other share a wake-up: none is told a wrong position, as it is taken when it
/// is sent.
const TOGETHER: Nanos = Nanos(200_000);
/// How soon to look again at a voice that a request has just then.
const HELD: Nanos = Nanos(500_000);
/// Above everything that has no deadline, far below the sound server's data thread (88 by default).
const PRIORITY: u8 = 10;

/// Registers running voices. Clones share one thread, which ends with the last of them.
#[derive(Clone)]
pub struct Pacer {
    shared: Arc<Shared>,
    _alive: Arc<Alive>,
}

/// A voice as the request thread and the pacer share it.
pub type SharedVoice = Arc<Mutex<Voice>>;

#[derive(Default)]
struct Shared {
    cadence: Cadence,
    inbox: Mutex<Inbox>,
    changed: Condvar,
    wakeups: AtomicU64,
}

#[derive(Default)]
struct Inbox {
    started: Vec<Weak<Mutex<Voice>>>,
    ended: bool,
}

/// Ends the thread when the last pacer handle goes.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        lock(&self.0.inbox).ended = true;
        self.0.changed.notify_all();
    }
}

/// Locks, also after a panic elsewhere: one guest's fault must not silence the others.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks as [`lock`] does, unless somebody else has it.
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Pacer {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system says when it gives no thread.
    pub fn start() -> std::io::Result<Self> {
        Self::with_cadence(Cadence::default())
    }

    /// Starts the thread, to tell guests this often.
    ///
    /// # Errors
    /// What the system says when it gives no thread.
    pub fn with_cadence(cadence: Cadence) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { cadence, ..Shared::default() });
        let of_thread = Arc::clone(&shared);
        let body = move || {
            // Without it a position comes later on a busy machine, but is as true, because it is taken when it is sent.
            realtime::take_or_ask(PRIORITY);
            pace(&of_thread);
        };
        std::thread::Builder::new().name("pacer".into()).spawn(body)?;
        Ok(Self { _alive: Arc::new(Alive(Arc::clone(&shared))), shared })
    }

    /// How often guests are told.
    pub fn cadence(&self) -> Cadence {
        self.shared.cadence
    }

    /// How often the thread has woken up.
    pub fn wakeups(&self) -> u64 {
        self.shared.wakeups.load(Ordering::Relaxed)
    }

    /// Paces `voice` from now on, until it stops; one that is paced already is looked at now.
    pub fn add(&self, voice: &SharedVoice) {
        lock(&self.shared.inbox).started.push(Arc::downgrade(voice));
        self.shared.changed.notify_all();
    }
}

/// A voice, and when it wants to be called.
struct Paced {
    voice: Weak<Mutex<Voice>>,
    due: Nanos,
}

/// When to wake for voices that are due at these instants: at the first, or a little later if that serves others, too.
fn wake_at(due: impl Iterator<Item = Nanos> + Clone) -> Option<Nanos> {
    let first = due.clone().min()?;
    due.filter(|due| *due - first <= TOGETHER).max()
}

fn pace(shared: &Shared) {
    let mut voices: Vec<Paced> = Vec::new();
    loop {
        voices.retain_mut(|paced| {
            let now = monotonic_now();
            if paced.due > now {
                return true;
            }
            let Some(voice) = paced.voice.upgrade() else { return false };
            // Who holds one guest's voice may be held up, and no other guest's position waits for that.
            let Some(mut voice) = try_lock(&voice) else {
                paced.due = now + HELD;
                return true;
            };
            // A voice that breaks down is left out, and the others go on.
            let next = catch_unwind(AssertUnwindSafe(move || voice.step(now)));
            let next = next.inspect_err(|_| {
                error!("a stream's positions end by a fault of the bridge; please report it");
            });
            let Ok(Some(next)) = next else { return false };
            paced.due = next;
            true
        });
        let wake = wake_at(voices.iter().map(|paced| paced.due));
        let mut inbox = lock(&shared.inbox);
        while inbox.started.is_empty() && !inbox.ended {
            inbox = if let Some(wake) = wake {
                let left = wake - monotonic_now();
                if left <= Nanos(0) {
                    break;
                }
                let left = Duration::from_nanos(left.0.unsigned_abs());
                shared.changed.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0
            } else {
                shared.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner)
            };
            shared.wakeups.fetch_add(1, Ordering::Relaxed);
        }
        if inbox.ended {
            return;
        }
        for started in inbox.started.drain(..) {
            match voices.iter_mut().find(|paced| paced.voice.ptr_eq(&started)) {
                Some(paced) => paced.due = Nanos(i64::MIN),
                None => voices.push(Paced { voice: started, due: Nanos(i64::MIN) }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sndif::EventPage;
    use crate::sndif::testing::shared_pages;
    use crate::stream::{EventWriter, Signals};
    use vsnd_pw_module::{Direction, Frames, Pages, PcmRing, SampleFormat, StreamFormat};

    /// A stream without a node, on the null clock.
    fn voice(pacer: &Pacer) -> SharedVoice {
        voice_that(pacer, || ())
    }

    fn voice_that(pacer: &Pacer, told: impl Fn() + Send + 'static) -> SharedVoice {
        let [ours, _theirs] = shared_pages();
        let events = EventWriter::new(EventPage::attach(ours).unwrap());
        let signals = Signals { positions: Box::new(told), answer: Box::new(|| ()) };
        let format = StreamFormat::new(SampleFormat::S16Le, 2, 48_000).unwrap();
        let pages = Pages::anonymous(4096 * 10).unwrap();
        let ring = Arc::new(PcmRing::new(Direction::Playback, format, Frames(9_600), pages));
        let mut voice = Voice::new(events, signals, pacer.cadence());
        voice.open(ring, Frames(480), monotonic_now());
        Arc::new(Mutex::new(voice))
    }

    fn wakeups(pacer: &Pacer, span: Duration) -> u64 {
        let before = pacer.wakeups();
        std::thread::sleep(span);
        pacer.wakeups() - before
    }

    #[test]
    fn nothing_wakes_the_pacer_while_nothing_runs() {
        const SPAN: Duration = Duration::from_millis(300);
        let pacer = Pacer::start().unwrap();
        let voices = [voice(&pacer), voice(&pacer)];
        assert_eq!(wakeups(&pacer, SPAN), 0, "opened, not started");
        for voice in &voices {
            lock(voice).start(monotonic_now());
            pacer.add(voice);
        }
        let running = wakeups(&pacer, SPAN);
        assert!((10..=100).contains(&running), "{running} wake-ups for 30 periods of two streams");
        voices.iter().for_each(|voice| lock(voice).stop(false));
        // The last wake-up that was due finds them at rest.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(wakeups(&pacer, SPAN), 0, "stopped");
    }

    #[test]
    fn a_voice_that_breaks_down_is_left_out_and_the_others_go_on() {
        let pacer = Pacer::start().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let broken = voice_that(&pacer, || panic!("a fault of the bridge"));
        let honest = voice_that(&pacer, move || {
            let _ = tell.send(());
        });
        for voice in [&broken, &honest] {
            lock(voice).start(monotonic_now());
            pacer.add(voice);
        }
        for _ in 0..20 {
            told.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        assert!(broken.is_poisoned());
    }

    #[test]
    fn a_guest_whose_request_takes_long_holds_up_no_other() {
        let pacer = Pacer::start().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let held = voice(&pacer);
        let honest = voice_that(&pacer, move || {
            let _ = tell.send(());
        });
        for voice in [&held, &honest] {
            lock(voice).start(monotonic_now());
            pacer.add(voice);
        }
        let request = lock(&held);
        for _ in 0..20 {
            told.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        drop(request);
    }

    #[test]
    fn streams_that_are_due_together_share_a_wake_up() {
        let due = |micros: &[i64]| {
            let due: Vec<Nanos> = micros.iter().map(|micros| Nanos(micros * 1000)).collect();
            wake_at(due.into_iter()).map(|at| at.0 / 1000)
        };
        assert_eq!(due(&[]), None);
        assert_eq!(due(&[700, 100, 250, 301]), Some(250));
    }
}
