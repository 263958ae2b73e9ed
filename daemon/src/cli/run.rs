//! `vsnd-bridge run`.

use std::process::ExitCode;

use anyhow::Context as _;
use tracing::{error, info, warn};
use vsnd_bridge::bridge::Bridge;
use vsnd_bridge::guest::DeviceContext;
use vsnd_bridge::stream::Pacer;
use vsnd_bridge::xen;
use vsnd_pw_module::{NodeState, ServerEvent};

use super::signals::Asked;
use super::{RunArgs, server};

/// Serves all guests until told to end.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let policy = args.policy()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = {
        let _inside = runtime.enter();
        Asked::listen().context("signals")?
    };
    let server = server::start(args.service.server.server(), log_event)?;
    let xen = xen::real::open().context("Xen can't be reached")?;
    let own = xen.own;
    let pacer = Pacer::start().context("no thread for the pacer")?;
    let bridge = Bridge::new(DeviceContext { xen, server, pacer }, policy).context("XenStore")?;
    info!("serving the sound cards of domain {own}'s guests");
    runtime
        .block_on(bridge.run(asked.first()))
        .context("XenStore went away; start again once xenstored runs")?;
    Ok(ExitCode::SUCCESS)
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
    }
}
