//! `vsnd-bridge demo`.

mod desk;
mod sound;
mod verdict;

use std::process::ExitCode;

use super::DemoArgs;

pub(super) fn demo(_args: &DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("demo: to come")
}
