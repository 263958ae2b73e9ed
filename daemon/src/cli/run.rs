//! `vsnd-bridge run`.

use std::process::ExitCode;

use super::RunArgs;

/// Serves all guests until told to end.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let _policy = args.policy()?;
    let _server = args.service.server.server()?;
    anyhow::bail!("serving guests: to come")
}
