//! Handles of nodes, and the commands by which they reach the thread that owns the nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::{Attachment, Node, NodeSpec, PcmRing};

/// The number by which handles and commands name a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeKey(u64);

/// What the thread is asked to do.
pub(crate) enum Command {
    /// To show a ring as a node.
    Open(NodeKey, Box<Opened>),
    /// To carry out an order of one node's handle.
    Node(NodeKey, Order),
    /// To look for the server, or not to.
    Seek(bool),
    /// To play the tails, drop everything and end.
    Quit,
}

/// A node to make.
pub(crate) struct Opened {
    pub(crate) spec: NodeSpec,
    pub(crate) ring: Arc<PcmRing>,
    /// While it lasts the ring is the node's to use.
    pub(crate) lease: Arc<Lease>,
    /// From the beginning, so that a START which comes at once waits for the node.
    pub(crate) attachment: Attachment,
}

/// What a handle asks of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The stream starts.
    Start,
    /// The stream stopped.
    Stop,
    /// To be routed to this sink or source, or as the server likes.
    Target(Option<String>),
    /// The handle is gone.
    Release,
}

/// Whether a ring is a node's to use: until the node's handle is dropped.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    ended: AtomicBool,
}

impl Lease {
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// From now on the ring may have another user.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// Posts a command to the thread; never waits.
type Post = Arc<dyn Fn(Command) + Send + Sync>;

/// Makes nodes and their handles.
pub(crate) struct Handles {
    post: Post,
    next: AtomicU64,
}

impl Handles {
    pub(crate) fn new(post: impl Fn(Command) + Send + Sync + 'static) -> Self {
        Self { post: Arc::new(post), next: AtomicU64::new(1) }
    }

    /// A node for `ring`.
    pub(crate) fn open(&self, spec: NodeSpec, ring: Arc<PcmRing>) -> Box<dyn Node> {
        let key = NodeKey(self.next.fetch_add(1, Ordering::Relaxed));
        let lease = Arc::new(Lease::default());
        let handle = Handle { key, lease: Arc::clone(&lease), post: Arc::clone(&self.post) };
        let attachment = ring.attach();
        (self.post)(Command::Open(key, Box::new(Opened { spec, ring, lease, attachment })));
        Box::new(handle)
    }

    /// Asks the thread to look for the server, or not to.
    pub(crate) fn seek(&self, wanted: bool) {
        (self.post)(Command::Seek(wanted));
    }

    /// Asks the thread to end.
    pub(crate) fn quit(&self) {
        (self.post)(Command::Quit);
    }
}

/// The handle of one node.
struct Handle {
    key: NodeKey,
    lease: Arc<Lease>,
    post: Post,
}

impl Node for Handle {
    fn start(&self) {
        (self.post)(Command::Node(self.key, Order::Start));
    }

    fn stop(&self) {
        (self.post)(Command::Node(self.key, Order::Stop));
    }

    fn set_target(&self, target: Option<String>) {
        (self.post)(Command::Node(self.key, Order::Target(target)));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // At once, ahead of the command.
        self.lease.end();
        (self.post)(Command::Node(self.key, Order::Release));
    }
}
