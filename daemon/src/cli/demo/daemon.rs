//! The daemon as `run` runs it, on the simulated hypervisor.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::sync::oneshot;
use vsnd_bridge::bridge::Bridge;
use vsnd_bridge::config::{Capture, Config};
use vsnd_bridge::control::Control;
use vsnd_bridge::guest::DeviceContext;
use vsnd_bridge::sim::Hypervisor;
use vsnd_bridge::stream::Pacer;
use vsnd_pw_module::pipewire::PipeWireServer;
use vsnd_pw_module::{NodeState, ServerEvent};

use super::desk::Desk;

/// How long the sound server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The running daemon.
pub(super) struct Daemon {
    end: oneshot::Sender<()>,
    thread: JoinHandle<anyhow::Result<()>>,
    events: Receiver<ServerEvent>,
    shown: Mutex<BTreeSet<String>>,
}

impl Daemon {
    /// Starts it in a thread of its own; every guest may record.
    pub(super) fn start(hypervisor: &Hypervisor, desk: &Desk) -> anyhow::Result<Self> {
        let (tell, events) = channel();
        let (end, ended) = oneshot::channel();
        let (xen, remote) = (hypervisor.dom0(), desk.remote());
        let body = move || -> anyhow::Result<()> {
            let server = PipeWireServer::start(forward(tell), remote).context("PipeWire")?;
            let server = Arc::new(server);
            let context = DeviceContext {
                xen,
                server,
                pacer: Pacer::start()?,
                records: Arc::default(),
                control: Control::default(),
            };
            let mut policy = Config::default();
            policy.set_default_capture(Capture::Allow);
            let bridge = Bridge::new(context, policy)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let shutdown = async {
                // A demo that failed drops its end, which is a reason to stop, too.
                let _ = ended.await;
            };
            runtime.block_on(bridge.run(shutdown))?;
            Ok(())
        };
        let thread = std::thread::Builder::new().name("bridge".to_owned()).spawn(body)?;
        Ok(Self { end, thread, events, shown: Mutex::default() })
    }

    /// Name and version of the sound server, once it answers.
    pub(super) fn server(&self) -> anyhow::Result<String> {
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(ServerEvent::Connected(info)) => return Ok(info.to_string()),
                Ok(ServerEvent::Lost(why)) => bail!("PipeWire went away: {why}"),
                Ok(ServerEvent::Targets(_) | ServerEvent::Node(_) | ServerEvent::Volume(_)) => (),
                Err(_) => bail!("PipeWire doesn't answer; vsnd-bridge check tells why"),
            }
        }
    }

    /// Nodes that appeared since the last call, with the server's number for them.
    pub(super) fn new_nodes(&self) -> Vec<String> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = Vec::new();
        for event in self.events.try_iter() {
            let ServerEvent::Node(event) = event else { continue };
            match event.state {
                NodeState::Running { id } if shown.insert(event.node.clone()) => {
                    new.push(format!("{}, number {id} in PipeWire's graph", event.node));
                }
                NodeState::Failed(why) => new.push(format!("{} FAILED: {why}", event.node)),
                _ => (),
            }
        }
        new
    }

    /// Ends it as SIGTERM would.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        drop(self.end);
        self.thread.join().map_err(|_| anyhow!("the daemon panicked; please report it"))?
    }
}

fn forward(to: Sender<ServerEvent>) -> impl Fn(ServerEvent) + Send + 'static {
    move |event| {
        // Nobody listens any more when the demo ends.
        let _ = to.send(event);
    }
}
