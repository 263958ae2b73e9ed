//! Debian's packages, unpacked beside what cargo builds and never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where the things named `name` are kept: beside what cargo builds, as a test runs from `<target>/<profile>/deps`.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(3).context("a test outside of cargo's folder")?.join(name))
}

/// The packages' `/usr`, in the folder of `name`; downloaded the first time.
pub(crate) fn unpacked(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = folder(name)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/fetch.sh");
    let fetched = Command::new(script).arg(&folder).arg(name).args(packages).output()?;
    ensure!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    Ok(folder.join("root/usr"))
}
