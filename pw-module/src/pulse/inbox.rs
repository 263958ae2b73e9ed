//! Commands to the thread, with an eventfd that wakes its loop.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;

use libpulse_binding::mainloop::api::{Mainloop as _, MainloopInner};
use libpulse_binding::mainloop::events::io::{FlagSet, IoEvent};
use libpulse_binding::mainloop::standard::{Mainloop, MainloopInternal};
use rustix::event::{EventfdFlags, eventfd};

use super::StartError;
use crate::handle::Command;

/// The handles' end.
#[derive(Clone)]
pub(super) struct Sender {
    queue: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
}

impl Sender {
    /// Posts a command; never waits.
    pub(super) fn send(&self, command: Command) {
        if self.queue.send(command).is_err() {
            tracing::debug!("the thread for PulseAudio has ended");
            return;
        }
        // Full means that the loop is about to wake anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The thread's end, before it has a loop.
pub(super) struct Receiver {
    queue: mpsc::Receiver<Command>,
    wake: Arc<OwnedFd>,
}

/// A new inbox.
pub(super) fn inbox() -> Result<(Sender, Receiver), StartError> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let wake = Arc::new(wake.map_err(|errno| StartError::Wake(errno.into()))?);
    let (queue, commands) = mpsc::channel();
    Ok((Sender { queue, wake: Arc::clone(&wake) }, Receiver { queue: commands, wake }))
}

/// The thread's end as a part of its loop.
pub(super) struct Inbox {
    _event: IoEvent<MainloopInner<MainloopInternal>>,
    queue: mpsc::Receiver<Command>,
}

impl Inbox {
    /// Lets `receiver` wake `mainloop`, which has to outlive the result. `None` when the library has no memory for it.
    pub(super) fn attach(mainloop: &mut Mainloop, receiver: Receiver) -> Option<Self> {
        let Receiver { queue, wake } = receiver;
        let fd = wake.as_raw_fd();
        let drain = Box::new(move |_, _, _| {
            let _ = rustix::io::read(&wake, &mut [0; 8]);
        });
        let event = mainloop.new_io_event(fd, FlagSet::INPUT, drain)?;
        Some(Self { _event: event, queue })
    }

    /// The next command, if there is one.
    pub(super) fn next(&self) -> Option<Command> {
        self.queue.try_recv().ok()
    }
}
