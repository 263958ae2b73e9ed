//! A session bus of one's own, for clients and for programs.

use std::fs;
use std::path::{Path, PathBuf};

use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;

#[path = "../../../tests/src/bus.rs"]
mod private;

/// A running dbus-daemon. Dropping it ends it.
pub struct Bus(private::PrivateBus);

impl Bus {
    /// Starts a bus, and waits until it takes connections.
    pub fn start() -> Self {
        Self(private::PrivateBus::start().expect("a bus, by the package dbus-daemon"))
    }

    /// Its service files are looked for in here.
    pub fn directory(&self) -> &Path {
        self.0.directory()
    }

    /// Has it start a bridge by making the file that is returned.
    pub async fn activates_a_file(&self) -> PathBuf {
        let file = self.directory().join("started");
        let exec = format!("/usr/bin/touch {}", file.display());
        self.activates(&format!("[D-BUS Service]\nName=org.vsnd.Bridge1\nExec={exec}\n")).await;
        file
    }

    /// Has it start bridges by this service file.
    pub async fn activates(&self, service: &str) {
        let services = self.directory().join("dbus-1/services");
        fs::create_dir_all(&services).unwrap();
        fs::write(services.join("org.vsnd.Bridge1.service"), service).unwrap();
        DBusProxy::new(&self.connect().await).await.unwrap().reload_config().await.unwrap();
    }

    /// A connection to it.
    pub async fn connect(&self) -> Connection {
        Builder::address(self.0.address()).build().await.unwrap()
    }

    /// Lets a program find this bus and none else, and no home but its own.
    pub fn environment<'a>(
        &self,
        command: &'a mut tokio::process::Command,
    ) -> &'a mut tokio::process::Command {
        command
            .env("DBUS_SESSION_BUS_ADDRESS", self.0.address())
            .env("XDG_RUNTIME_DIR", self.directory())
            .env("HOME", self.directory())
    }
}
