//! The bridge's end: publishes its state on a connection and takes requests from it.

mod name;
mod shared;
mod signaller;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zbus::{Connection, fdo};

pub use name::Owner;
pub(crate) use shared::{Shared, invalid};

use crate::{BridgeState, DomainId, Object, Request};
use signaller::Signaller;

/// A bridge on a connection. Its methods never wait, for nobody on the bus.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    signaller: JoinHandle<()>,
}

/// Why a bridge can't be shown on the bus.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another bridge serves this session.
    #[error("{name} belongs to {0}; one bridge can serve a session", name = crate::BUS_NAME)]
    NameTaken(Owner),
    /// The bus doesn't do its part.
    #[error("D-Bus: {0}")]
    Bus(zbus::Error),
}

// Not by #[from]: zbus's texts hold those of their sources already.
impl From<zbus::Error> for StartError {
    fn from(error: zbus::Error) -> Self {
        Self::Bus(error)
    }
}

impl Service {
    /// Publishes `state` on `connection`, takes the well-known name if there is a bus at its other end, and sends what
    /// others ask for to `requests`. Belongs to the tokio runtime it is called in.
    ///
    /// # Errors
    /// [`StartError::NameTaken`]: another process has the name. Nobody finds what this one would show then.
    pub async fn start(
        connection: Connection,
        state: BridgeState,
        requests: mpsc::Sender<Request>,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new(state, requests));
        connection.object_server().at(Object::Bridge.path(), fdo::ObjectManager).await?;
        let mut signaller = Signaller::new(connection.clone(), Arc::clone(&shared));
        signaller.turn().await?;
        if connection.is_bus() {
            name::claim(&connection).await?;
        }
        Ok(Self { shared, signaller: tokio::spawn(signaller.run()) })
    }

    /// Changes what is published. Whoever asks sees it from now on; whoever listens is told soon, of several changes to one
    /// object at once. Never waits.
    pub fn update(&self, change: impl FnOnce(&mut BridgeState)) {
        change(&mut self.shared.state());
        self.shared.wake();
    }

    /// Tells that a domain starts to record without permission, after what was published until now. Never waits.
    pub fn capture_requested(&self, domain: DomainId) {
        self.shared.note_request(domain);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.signaller.abort();
    }
}
