//! A session bus of one's own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use zbus::Connection;
use zbus::connection::Builder;

/// A running dbus-daemon. Dropping it ends it.
pub struct Bus {
    pub address: String,
    /// Sockets and service files, and a home for programs on this bus.
    pub directory: tempfile::TempDir,
    daemon: Child,
}

impl Bus {
    /// Starts a bus, and waits until it takes connections.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("vsnd-bus.").tempdir().unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address"])
            .arg(format!("--address=unix:path={}/bus", directory.path().display()))
            .env("XDG_DATA_HOME", directory.path())
            .env("XDG_RUNTIME_DIR", directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon, of the package dbus-daemon");
        // It tells its address when it listens.
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { address: address.trim_end().to_owned(), directory, daemon }
    }

    /// A connection to it.
    pub async fn connect(&self) -> Connection {
        Builder::address(self.address.as_str()).build().await.unwrap()
    }

    /// Lets a program find this bus and none else, and no home but its own.
    pub fn environment<'a>(
        &self,
        command: &'a mut tokio::process::Command,
    ) -> &'a mut tokio::process::Command {
        command
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .env("XDG_RUNTIME_DIR", self.directory.path())
            .env("HOME", self.directory.path())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
