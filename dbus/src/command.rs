//! What the bus asks of the bridge.

use tokio::sync::oneshot;
use zbus::fdo;

use crate::{Capture, CubicVolume, DomainId, NodeName, StreamId};

/// What somebody on the bus wants. Values are checked; whether the objects still are there is for the bridge to see.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Set a domain's volume.
    SetVolume {
        /// Whose.
        domain: DomainId,
        /// How loud.
        volume: CubicVolume,
    },
    /// Mute a domain, or let it be heard again.
    SetMuted {
        /// Which.
        domain: DomainId,
        /// Whether it is silent.
        muted: bool,
    },
    /// Set whether a domain may record.
    SetCapture {
        /// Which.
        domain: DomainId,
        /// Whether it may.
        capture: Capture,
    },
    /// Route a stream.
    SetTarget {
        /// Whose.
        domain: DomainId,
        /// Which.
        stream: StreamId,
        /// The sink or source; `None` leaves it to the session manager.
        target: Option<NodeName>,
    },
}

/// A command that waits for its answer. One that is dropped is answered as failed.
#[derive(Debug)]
pub struct Request {
    /// What is wanted.
    pub command: Command,
    reply: oneshot::Sender<Result<(), Refusal>>,
}

/// Why a command is not carried out. The texts are for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The domain or stream is gone: `org.freedesktop.DBus.Error.UnknownObject`.
    #[error("{0}")]
    Gone(String),
    /// The value can't be used, such as a sink that doesn't exist: `org.freedesktop.DBus.Error.InvalidArgs`.
    #[error("{0}")]
    Invalid(String),
    /// Not on this sound server, or not for this object: `org.freedesktop.DBus.Error.NotSupported`.
    #[error("{0}")]
    NotSupported(String),
    /// It went wrong: `org.freedesktop.DBus.Error.Failed`.
    #[error("{0}")]
    Failed(String),
}

impl Request {
    pub(crate) fn new(command: Command) -> (Self, oneshot::Receiver<Result<(), Refusal>>) {
        let (reply, answer) = oneshot::channel();
        (Self { command, reply }, answer)
    }

    /// Answers whoever asked. What the command changed is to be published before
    /// ([`Service::update`](crate::Service::update)): the answer is followed by a signal of the property, as it is published then.
    pub fn answer(self, outcome: Result<(), Refusal>) {
        // Nobody waits any more where the asker's connection is gone.
        let _ = self.reply.send(outcome);
    }
}

impl From<Refusal> for fdo::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Gone(text) => Self::UnknownObject(text),
            Refusal::Invalid(text) => Self::InvalidArgs(text),
            Refusal::NotSupported(text) => Self::NotSupported(text),
            Refusal::Failed(text) => Self::Failed(text),
        }
    }
}
