//! What can be seen on this machine, without judgement.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit, getuid};
use vsnd_bridge::config::Config;

use crate::cli::{Server, ServiceArgs};

/// The Xen devices that the bridge opens, and the modules that make them.
const DEVICES: [(&str, &str); 3] =
    [("/dev/xen/xenbus", "xenfs"), ("/dev/xen/gntdev", "xen-gntdev"), ("/dev/xen/evtchn", "xen-evtchn")];

/// Where the system bus learns how to start rtkit.
const RTKIT: &str = "/usr/share/dbus-1/system-services/org.freedesktop.RealtimeKit1.service";

/// Everything that the findings are made of.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) user: String,
    pub(super) on_xen: bool,
    pub(super) devices: Vec<Device>,
    pub(super) store: Result<Store, String>,
    pub(super) server_choice: Server,
    /// Name and version of the server that answered, or why none did.
    pub(super) server: Result<String, String>,
    pub(super) runtime_directory: bool,
    /// RLIMIT_RTPRIO.
    pub(super) rtprio: u64,
    pub(super) rtkit: bool,
    /// Where the policy comes from, or why it can't be used.
    pub(super) config: Result<String, String>,
}

/// A device file.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) path: PathBuf,
    pub(super) module: String,
    pub(super) state: DeviceState,
}

/// Whether a device file can be opened, with its mode and owners.
#[derive(Debug)]
pub(super) enum DeviceState {
    Opened(String),
    Failed(ErrorKind, String),
}

/// What XenStore answers.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) domid: Result<u16, String>,
    /// Cards in this domain's vsnd directory.
    pub(super) cards: Result<usize, String>,
}

impl Facts {
    /// Looks at this machine. Takes two seconds at most, for a server that doesn't answer.
    pub(super) fn gather(args: &ServiceArgs) -> anyhow::Result<Self> {
        let server_choice = args.server.server()?;
        Ok(Self {
            user: name_of(getuid().as_raw(), "/etc/passwd"),
            on_xen: fs::read_to_string("/sys/hypervisor/type").is_ok_and(|kind| kind.trim() == "xen"),
            devices: DEVICES.iter().map(|(path, module)| Device::probe(Path::new(path), module)).collect(),
            store: store(),
            server_choice,
            server: server(server_choice),
            runtime_directory: std::env::var_os("XDG_RUNTIME_DIR").is_some(),
            rtprio: highest_priority(),
            rtkit: Path::new(RTKIT).exists(),
            config: config(args),
        })
    }
}

impl Device {
    fn probe(path: &Path, module: &str) -> Self {
        let mode = fs::metadata(path).map_or(String::new(), |meta| {
            let (owner, group) = (name_of(meta.uid(), "/etc/passwd"), name_of(meta.gid(), "/etc/group"));
            format!("mode {:04o}, {owner}:{group}", meta.mode() & 0o7777)
        });
        let state = match File::options().read(true).write(true).open(path) {
            Ok(_) => DeviceState::Opened(mode),
            Err(why) => DeviceState::Failed(why.kind(), mode),
        };
        Self { path: path.to_owned(), module: module.to_owned(), state }
    }
}

/// The highest real-time priority that this process may take by itself.
fn highest_priority() -> u64 {
    let limit = if getuid().is_root() { None } else { getrlimit(Resource::Rtprio).current };
    limit.unwrap_or(u64::MAX).min(99)
}

/// The name that belongs to a number in a file like /etc/passwd, or the number where it has none there.
fn name_of(number: u32, file: &str) -> String {
    let number = number.to_string();
    let entries = fs::read_to_string(file).unwrap_or_default();
    let entry = entries.lines().find(|line| line.split(':').nth(2) == Some(&number));
    entry.and_then(|line| line.split(':').next()).unwrap_or(&number).to_owned()
}

fn config(args: &ServiceArgs) -> Result<String, String> {
    Config::load(args.config.as_deref()).map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
    let path = args.config.clone().or_else(Config::default_path).filter(|path| path.exists());
    Ok(path.map_or("none, so everything is at its default".to_owned(), |path| path.display().to_string()))
}

fn store() -> Result<Store, String> {
    Err("to come".to_owned())
}

fn server(choice: Server) -> Result<String, String> {
    match choice {
        Server::Null => Ok("null".to_owned()),
        Server::PipeWire => Err("to come".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_are_not_there_are_told_from_those_that_are() {
        let none = Device::probe(Path::new("/dev/xen/no-such-device"), "none");
        assert!(matches!(none.state, DeviceState::Failed(ErrorKind::NotFound, ref mode) if mode.is_empty()));
        let null = Device::probe(Path::new("/dev/null"), "none");
        assert!(
            matches!(null.state, DeviceState::Opened(ref mode) if mode == "mode 0666, root:root"),
            "{null:?}"
        );
    }

    #[test]
    fn numbers_without_a_name_stay_numbers() {
        assert_eq!(name_of(0, "/etc/group"), "root");
        assert_eq!(name_of(4_000_000_000, "/etc/passwd"), "4000000000");
        assert_eq!(name_of(0, "/no/such/file"), "0");
    }
}
