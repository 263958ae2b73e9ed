//! `vsnd-bridge run`.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use vsnd_bridge::bridge::Bridge;
use vsnd_bridge::control::Control;
use vsnd_bridge::guest::DeviceContext;
use vsnd_bridge::state::StateFile;
use vsnd_bridge::stream::Pacer;
use vsnd_bridge::xen;
use vsnd_pw_module::{NodeState, ServerEvent};

use super::{RunArgs, server};

/// Serves all guests until told to end.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let policy = args.policy()?;
    let control = control();
    let told = control.clone();
    let server = server::start(args.service.server.server(), move |event| {
        told.server_event(&event);
        log_event(event);
    })?;
    let xen = xen::real::open().context("Xen can't be reached")?;
    let own = xen.own;
    let pacer = Pacer::start().context("no thread for the pacer")?;
    let bridge = Bridge::new(DeviceContext { xen, server, pacer, control }, policy).context("XenStore")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
            }
        };
        info!("serving the sound cards of domain {own}'s guests");
        bridge.run(shutdown).await.context("XenStore went away; start again once xenstored runs")?;
        anyhow::Ok(ExitCode::SUCCESS)
    })
}

/// The controls, with what the user changed before.
fn control() -> Control {
    let Some(path) = StateFile::default_path() else {
        warn!(
            "neither $XDG_STATE_HOME nor $HOME is set: volumes and permissions are forgotten when this bridge ends"
        );
        return Control::default();
    };
    let (file, memory) = StateFile::open(path);
    Control::new(Some(file), memory)
}

/// Tells what the server tells.
fn log_event(event: ServerEvent) {
    match event {
        ServerEvent::Connected(server) => info!("{} {} answers", server.name, server.version),
        ServerEvent::Lost(why) => {
            warn!("the sound server went away, guests run on the clock until it is back: {why}")
        }
        ServerEvent::Node(node) => match node.state {
            NodeState::Failed(why) => {
                error!("node {} is not shown, its guest is not heard: {why}", node.node)
            }
            state => info!("node {}: {state:?}", node.node),
        },
        ServerEvent::Volume(event) => info!("node {}: the user's volume is {:?}", event.node, event.volume),
    }
}
