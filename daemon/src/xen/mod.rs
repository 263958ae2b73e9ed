//! What the bridge needs of Xen, as three small traits: [`Store`], [`Grants`], [`Events`].
//!
//! `real` is Xen as Linux shows it to a process: /dev/xen/xenbus, /dev/xen/gntdev and /dev/xen/evtchn. The simulator
//! (`crate::sim`) is the other implementation.

pub mod real;

use std::fmt;
use std::sync::Arc;

use vsnd_pw_module::{Access, Pages};

/// A domain's number. Numbers are given out anew; a domain's identity is its UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomId(pub u16);

/// A reference into a guest's grant table, as the guest published it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GrantRef(pub u32);

/// A guest's end of an event channel, as the guest published it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RemotePort(pub u32);

/// Our end of a bound event channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPort(pub u32);

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What XenStore answers when it doesn't do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// ENOENT: no such node.
    #[error("no such node")]
    NotFound,
    /// EACCES: not for this domain.
    #[error("permission denied")]
    Denied,
    /// EAGAIN: the transaction met another change and has to be tried again.
    #[error("the transaction met another change")]
    Again,
    /// More octets than one message to XenStore holds; nothing was sent.
    #[error("{octets} octets are more than the {limit} that XenStore takes at once")]
    TooLarge {
        /// Octets of the path and the value together.
        octets: usize,
        /// What fits.
        limit: usize,
    },
    /// Any other error name that XenStore sends, such as EINVAL or ENOSPC.
    #[error("XenStore says {0}")]
    Other(String),
    /// The connection is gone, or answers out of protocol.
    #[error("XenStore can't be reached: {0}")]
    Disconnected(String),
}

/// Who may do what with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The domain; the first of a node's list is its owner, for whom `rights` is what all others get.
    pub domain: DomId,
    /// What it may do.
    pub rights: Rights,
}

/// What a domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Nothing.
    None,
    /// Read.
    Read,
    /// Write.
    Write,
    /// Both.
    ReadWrite,
}

/// Reading and changing nodes, alone or inside a transaction. Paths are absolute. Values are octets that anyone may have
/// written: untrusted. Calls wait for XenStore's answer and nothing else.
pub trait Nodes {
    /// A node's value.
    ///
    /// # Errors
    /// Any [`StoreError`].
    fn read(&self, path: &str) -> Result<Vec<u8>, StoreError>;

    /// Sets a node's value; missing parents are created.
    ///
    /// # Errors
    /// Any [`StoreError`].
    fn write(&self, path: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Names of a node's children, however many.
    ///
    /// # Errors
    /// Any [`StoreError`].
    fn directory(&self, path: &str) -> Result<Vec<String>, StoreError>;

    /// Removes a node and all below; no error if there is none.
    ///
    /// # Errors
    /// Any [`StoreError`] but [`StoreError::NotFound`].
    fn remove(&self, path: &str) -> Result<(), StoreError>;

    /// A node's permissions, its owner first.
    ///
    /// # Errors
    /// Any [`StoreError`].
    fn permissions(&self, path: &str) -> Result<Vec<Permission>, StoreError>;

    /// Sets a node's permissions, its owner first.
    ///
    /// # Errors
    /// Any [`StoreError`].
    fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), StoreError>;
}

/// Where fired watches go: called with the path that changed, from the store's own thread. It must not block nor call
/// the store; it may be called more often than there were changes. Changes of a path that it wasn't told of yet come as
/// one; of very many paths below the watched one (1024), the watched path alone stands for all. When the connection is
/// lost it is called once more with the watched path: the read that follows says [`StoreError::Disconnected`].
pub type WatchSink = Box<dyn Fn(&str) + Send>;

/// A watch; dropping it ends it.
pub trait Watch: Send {}

/// XenStore.
pub trait Store: Nodes + Send + Sync {
    /// Watches `path` and all below it, or `@releaseDomain` / `@introduceDomain`. Fires once at once, as XenStore does.
    /// A slow receiver neither blocks the store nor loses a change.
    ///
    /// # Errors
    /// Any [`StoreError`].
    fn watch(&self, path: &str, sink: WatchSink) -> Result<Box<dyn Watch>, StoreError>;

    /// Runs `body` in a transaction, again while XenStore answers EAGAIN. An error of `body` aborts it.
    ///
    /// # Errors
    /// What `body` returns, or [`StoreError::Again`] after very many tries.
    fn transaction(
        &self,
        body: &mut dyn FnMut(&dyn Nodes) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;
}

/// A mapping that can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The guest's reference can't be mapped: never granted, revoked, or not with this access.
    #[error("the guest doesn't grant page {0}")]
    BadReference(u32),
    /// The device or the kernel refused.
    #[error("grants can't be mapped: {0}")]
    Device(String),
    /// The policy allows the guest no more.
    #[error("the guest has {0}")]
    OverBound(String),
}

/// Memory that guests grant.
pub trait Grants: Send + Sync {
    /// Maps pages of `domain`, in the order given, as one contiguous range of `references.len()` x 4096 octets.
    /// All or nothing; dropping the pages gives them back.
    ///
    /// # Errors
    /// Any [`GrantError`]; nothing stays mapped then.
    fn map(&self, domain: DomId, references: &[GrantRef], access: Access) -> Result<Pages, GrantError>;
}

/// An event channel that can't be had, or died.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The guest's port can't be bound: not offered to us, or bound already.
    #[error("the guest's port {0} can't be bound: {1}")]
    Bind(u32, String),
    /// The device or the kernel refused.
    #[error("event channels don't work: {0}")]
    Device(String),
}

/// One handle on event channels, with ports of its own, all of them of one domain. Dropping it unbinds all of them.
///
/// A notified port is masked until [`unmask`](Self::unmask): unmask after the work, so that a guest's storm of
/// notifications costs no more than the work itself.
pub trait Events: Send + Sync {
    /// Binds the port that `domain` published. The first one settles which domain the handle is for.
    ///
    /// # Errors
    /// [`EventError::Bind`], also for a port of another domain.
    fn bind(&self, domain: DomId, remote: RemotePort) -> Result<LocalPort, EventError>;

    /// Frees a port. Unknown ports are ignored.
    fn unbind(&self, port: LocalPort);

    /// Notifies the guest. Errors only if the port is not bound or the guest is gone, which nobody need act on.
    fn notify(&self, port: LocalPort);

    /// Lets a notified port be notified again.
    fn unmask(&self, port: LocalPort);

    /// Waits until ports are notified or [`wake`](Self::wake) is called, and appends the ports (at most 64) to `ports`.
    ///
    /// # Errors
    /// [`EventError::Device`].
    fn wait(&self, ports: &mut Vec<LocalPort>) -> Result<(), EventError>;

    /// Makes a [`wait`](Self::wait) under way, or the next one, return. For another thread.
    fn wake(&self);
}

/// Xen, real or simulated, as seen by a backend.
#[derive(Clone)]
pub struct Xen {
    /// The domain that the backend runs in: Dom0, or a driver domain.
    pub own: DomId,
    /// XenStore.
    pub store: Arc<dyn Store>,
    /// The grant device.
    pub grants: Arc<dyn Grants>,
    /// Opens a new handle on event channels: one per card.
    pub open_events: Arc<dyn Fn() -> Result<Arc<dyn Events>, EventError> + Send + Sync>,
}
