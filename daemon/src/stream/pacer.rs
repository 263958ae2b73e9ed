//! The pacer: one thread that wakes when a position is due and tells the guest. It sleeps while nothing runs.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use vsnd_pw_module::{Nanos, monotonic_now};

use super::voice::Voice;

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
    inbox: Mutex<Inbox>,
    changed: Condvar,
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

impl Pacer {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system says when it gives no thread.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new().name("pacer".into()).spawn(move || pace(&of_thread))?;
        Ok(Self { _alive: Arc::new(Alive(Arc::clone(&shared))), shared })
    }

    /// Paces `voice` from now on, until it stops.
    pub fn add(&self, voice: &SharedVoice) {
        lock(&self.shared.inbox).started.push(Arc::downgrade(voice));
        self.shared.changed.notify_all();
    }
}

fn pace(shared: &Shared) {
    let mut voices: Vec<Weak<Mutex<Voice>>> = Vec::new();
    loop {
        let mut due: Option<Nanos> = None;
        voices.retain(|voice| {
            let Some(voice) = voice.upgrade() else { return false };
            let Some(next) = lock(&voice).step(monotonic_now()) else { return false };
            due = Some(due.map_or(next, |due| due.min(next)));
            true
        });
        let mut inbox = lock(&shared.inbox);
        while inbox.started.is_empty() && !inbox.ended {
            let Some(due) = due else {
                inbox = shared.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = due - monotonic_now();
            if left <= Nanos(0) {
                break;
            }
            let left = Duration::from_nanos(left.0.unsigned_abs());
            inbox = shared.changed.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if inbox.ended {
            return;
        }
        for started in inbox.started.drain(..) {
            if !voices.iter().any(|voice| voice.ptr_eq(&started)) {
                voices.push(started);
            }
        }
    }
}
