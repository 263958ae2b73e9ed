//! `vsnd-bridge run`.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use vsnd_bridge::bridge::Bridge;
use vsnd_bridge::guest::DeviceContext;
use vsnd_bridge::stream::Pacer;
use vsnd_bridge::xen;
use vsnd_pw_module::{NodeState, ServerEvent};

use super::RunArgs;

/// Serves all guests until told to end.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let policy = args.policy()?;
    let server = args.service.server.start(log_event)?;
    let xen = xen::real::open().context("Xen can't be reached")?;
    let own = xen.own;
    let pacer = Pacer::start().context("no thread for the pacer")?;
    let bridge = Bridge::new(DeviceContext { xen, server, pacer }, policy).context("XenStore")?;
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

/// Tells what the server tells.
fn log_event(event: ServerEvent) {
    match event {
        ServerEvent::Connected(server) => info!("{server} answers"),
        ServerEvent::Plays(true) => info!("the sound server has a sink"),
        ServerEvent::Plays(false) => {
            warn!("the sound server has no sink, guests run on the clock until it has one")
        }
        ServerEvent::Lost(why) => {
            warn!("the sound server went away, guests run on the clock until it is back: {why}")
        }
        ServerEvent::Node(node) => match node.state {
            NodeState::Failed(why) => {
                error!("node {} is not shown, its guest is not heard: {why}", node.node)
            }
            state => info!("node {}: {state:?}", node.node),
        },
    }
}
