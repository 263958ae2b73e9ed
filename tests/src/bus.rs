//! A session bus of one's own. The tests of vsnd-dbus, which need nothing else of this package, take this file from here.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A running dbus-daemon, on which anybody may have any name. Dropping it ends it.
pub struct PrivateBus {
    address: String,
    directory: tempfile::TempDir,
    daemon: Child,
}

impl PrivateBus {
    /// Starts a bus, and waits until it takes connections.
    ///
    /// # Errors
    /// When there is no dbus-daemon.
    pub fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("vsnd-bus.").tempdir()?;
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address"])
            .arg(format!("--address=unix:path={}/bus", directory.path().display()))
            .env("XDG_DATA_HOME", directory.path())
            .env("XDG_RUNTIME_DIR", directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("dbus-daemon can't be started")?;
        // It tells its address when it listens.
        let mut address = String::new();
        let out = daemon.stdout.take().context("dbus-daemon's output")?;
        BufReader::new(out).read_line(&mut address)?;
        Ok(Self { address: address.trim_end().to_owned(), directory, daemon })
    }

    /// Where clients find it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its socket is in here, its service files are looked for in here, and programs on it may have it as their home.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
