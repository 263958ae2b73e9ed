//! The server that rings are shown on.

use std::ops::Deref;
use std::sync::Arc;

use vsnd_pw_module::pipewire::private::{Options, PrivateServer};
use vsnd_pw_module::pipewire::{Object, PipeWireServer, survey};
use vsnd_pw_module::{Node, NodeSpec, PcmRing, SoundServer};

pub use vsnd_tests::rings::*;

/// A private server, and the bridge's side of it.
pub struct Desk {
    pub private: PrivateServer,
    pub server: PipeWireServer,
    events: Events,
}

impl Desk {
    /// A server with cycles of 1024 frames, long enough for a busy machine to keep pace.
    pub fn new() -> Self {
        Self::with(Options { min_quantum: 1024, ..Options::default() })
    }

    pub fn with(options: Options) -> Self {
        let private = PrivateServer::start(options).unwrap();
        let (send, events) = Events::new();
        let server = PipeWireServer::start(send, Some(private.remote())).unwrap();
        let desk = Self { private, server, events };
        assert_eq!(desk.connected().name, "PipeWire");
        desk
    }

    pub fn open(&self, spec: &NodeSpec, ring: &Arc<PcmRing>) -> Box<dyn Node> {
        self.server.open(spec.clone(), Arc::clone(ring)).unwrap()
    }

    /// What the graph holds now.
    pub fn graph(&self) -> Vec<Object> {
        survey(Some(&self.private.remote()), PATIENCE).unwrap()
    }

    /// Waits until `wanted` finds in the graph what it looks for.
    pub fn in_graph<T>(&self, what: &str, wanted: impl Fn(&[Object]) -> Option<T>) -> T {
        eventually(what, || wanted(&self.graph()))
    }

    /// What a tool prints about this server.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.private.command(program);
        let output = command.args(arguments).env("LC_ALL", "C").output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Deref for Desk {
    type Target = Events;

    fn deref(&self) -> &Events {
        &self.events
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's logs are kept in {}", self.private.keep().display());
        }
    }
}
