//! `vsnd-bridge run`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tracing::{debug, error, info, warn};
use vsnd_bridge::bridge::Bridge;
use vsnd_bridge::control::Control;
use vsnd_bridge::guest::DeviceContext;
use vsnd_bridge::runtime::{Records, RuntimeError};
use vsnd_bridge::session_bus;
use vsnd_bridge::state::StateFile;
use vsnd_bridge::stream::Pacer;
use vsnd_bridge::xen;
use vsnd_pw_module::{NodeState, ServerEvent, Targets};
use zbus::Connection;

use super::RunArgs;
use super::signals::Asked;

/// Serves all guests until told to end. What they have open stays open for the next bridge.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    // As its unit has it, also where none is: before there is any other thread.
    rustix::thread::set_no_new_privs(true).context("no_new_privs")?;
    let policy = args.policy()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = {
        let _inside = runtime.enter();
        Asked::listen().context("signals")?
    };
    let records = Arc::new(records()?);
    let control = control();
    // Before anything of a guest is touched: one bridge serves a session.
    session_bus::serve(control.clone(), Connection::session)?;
    let told = control.clone();
    let server = args.service.server.start(move |event| {
        told.server_event(&event);
        log_event(event);
    })?;
    let xen = xen::real::open().context("Xen can't be reached")?;
    let own = xen.own;
    let pacer = Pacer::start().context("no thread for the pacer")?;
    let context = DeviceContext { xen, server, pacer, records, control };
    let bridge = Bridge::new(context, policy).context("XenStore")?;
    info!("serving the sound cards of domain {own}'s guests");
    runtime
        .block_on(bridge.run(asked.first()))
        .context("XenStore went away; start again once xenstored runs")?;
    Ok(ExitCode::SUCCESS)
}

/// What a bridge before left, and this one leaves. One that finds no place for it serves all the same.
fn records() -> anyhow::Result<Records> {
    let Some(directory) = Records::default_path() else {
        warn!(
            "$XDG_RUNTIME_DIR is not set, or is no absolute path: guests that play will notice when this bridge ends or is started again"
        );
        return Ok(Records::default());
    };
    match Records::open(&directory) {
        Ok(records) => Ok(records),
        Err(error @ RuntimeError::Taken) => Err(error.into()),
        Err(error) => {
            warn!("guests that play will notice when this bridge ends or is started again: {error}");
            Ok(Records::default())
        }
    }
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

/// Tells what the server tells. What a node does at its guest's pace is for who looks for a fault: a guest must not fill the log.
fn log_event(event: ServerEvent) {
    match event {
        ServerEvent::Connected(server) => info!("{server} answers"),
        ServerEvent::Targets(targets) if targets.sinks.is_empty() => {
            warn!("the sound server has no sink, guests run on the clock until it has one")
        }
        ServerEvent::Targets(Targets { sinks, sources }) => {
            info!("the sound server has the sinks {sinks:?} and the sources {sources:?}")
        }
        ServerEvent::Lost(why) => {
            warn!("the sound server went away, guests run on the clock until it is back: {why}")
        }
        ServerEvent::Node(node) => match node.state {
            NodeState::Failed(why) => {
                error!("node {} is not shown, its guest is not heard: {why}", node.node)
            }
            state => debug!("node {}: {state:?}", node.node),
        },
        ServerEvent::Volume(event) => debug!("node {}: the user's volume is {:?}", event.node, event.volume),
    }
}
