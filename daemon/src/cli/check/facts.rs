//! What can be seen on this machine, without judgement.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit, getuid};
use vsnd_bridge::config::{Config, ConfigError};
use vsnd_bridge::runtime::{Records, RuntimeError};
use vsnd_bridge::session_bus;
use vsnd_bridge::state::{ReadError, StateFile};
use vsnd_bridge::xen::real::{FileReport, OpenError, Places, Probe, Problem, open_store};
use vsnd_bridge::xen::{Nodes, StoreError};
use zbus::Connection;

use super::server::{Answer, ask};
use crate::cli::ServiceArgs;
use crate::cli::server::Server;

/// Where the system bus learns how to start rtkit.
const RTKIT: &str = "/usr/share/dbus-1/system-services/org.freedesktop.RealtimeKit1.service";
/// Everything that the findings are made of.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) user: String,
    pub(super) on_xen: bool,
    /// Ways to XenStore, best first; one is enough.
    pub(super) routes: Vec<File>,
    pub(super) devices: Vec<File>,
    pub(super) store: Store,
    pub(super) server_choice: Server,
    /// The server that answered, or why none did.
    pub(super) server: Result<Answer, String>,
    /// Where streams are kept for the next bridge, if the environment names a place, and why that can't be used.
    pub(super) runtime_directory: Option<(PathBuf, Result<(), RuntimeError>)>,
    /// Where the user's changes are remembered, if the environment names a place, and why that can't be used.
    pub(super) state_file: Option<(PathBuf, Result<(), ReadError>)>,
    /// Why mixers and vsndctl find nobody.
    pub(super) session_bus: Result<(), session_bus::Error>,
    /// The highest real-time priority that this process may take without help.
    pub(super) rtprio: u64,
    pub(super) rtkit: bool,
    /// Where the policy comes from, or why it can't be used.
    pub(super) config: Result<String, ConfigError>,
}

/// A device file or a socket.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: String,
    /// Mode and owners, if it is there.
    pub(super) mode: Option<String>,
    /// Why it can't be used, unless it can.
    pub(super) problem: Option<Problem>,
}

/// What XenStore answers.
#[derive(Debug)]
pub(super) enum Store {
    /// It can't be reached.
    Unreached,
    /// It answers, and knows neither this domain nor, so, its guests.
    WithoutDomain(String),
    /// It answers.
    Answers {
        /// This domain's number.
        domain: u16,
        /// Guests with cards that this domain is to serve.
        guests: Result<usize, String>,
    },
}

impl Facts {
    /// Looks at this machine. Takes a few seconds at most, for servers that don't answer.
    pub(super) fn gather(args: &ServiceArgs) -> anyhow::Result<Self> {
        let (server_choice, server) = ask(args.server.servers());
        let places = Places::default();
        let probe = Probe::new(&places);
        Ok(Self {
            user: name_of(getuid().as_raw(), "/etc/passwd"),
            on_xen: probe.runs_on_xen,
            store: store(&probe, &places),
            routes: probe.store.into_iter().map(File::new).collect(),
            devices: [probe.grants, probe.events].map(File::new).into(),
            server_choice,
            server,
            runtime_directory: Records::default_path().map(|path| {
                let usable = Records::probe(&path);
                (path, usable)
            }),
            state_file: StateFile::default_path().map(|path| {
                let usable = StateFile::probe(&path);
                (path, usable)
            }),
            session_bus: session_bus::probe(Connection::session()),
            rtprio: highest_priority(),
            rtkit: Path::new(RTKIT).exists(),
            config: config(args),
        })
    }
}

impl File {
    fn new(report: FileReport) -> Self {
        let mode = report.mode.zip(report.owner).map(|(mode, (owner, group))| {
            format!("mode {mode:04o}, {}:{}", name_of(owner, "/etc/passwd"), name_of(group, "/etc/group"))
        });
        let problem = report.unusable.map(|unusable| unusable.problem);
        Self { path: report.path.display().to_string(), mode, problem }
    }
}

fn store(probe: &Probe, places: &Places) -> Store {
    let domain = match &probe.domain {
        Ok(domain) => *domain,
        Err(OpenError::Domain(why)) => return Store::WithoutDomain(why.to_string()),
        Err(_) => return Store::Unreached,
    };
    let guests = match open_store(&places.store) {
        Err(why) => Err(why.to_string()),
        Ok(store) => match store.directory(&format!("/local/domain/{domain}/backend/vsnd")) {
            Ok(guests) => Ok(guests.len()),
            // The toolstack makes it with the first card.
            Err(StoreError::NotFound) => Ok(0),
            Err(why) => Err(why.to_string()),
        },
    };
    Store::Answers { domain: domain.0, guests }
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

fn config(args: &ServiceArgs) -> Result<String, ConfigError> {
    Config::load(args.config.as_deref())?;
    let path = args.config.clone().or_else(Config::default_path).filter(|path| path.exists());
    Ok(path.map_or("none, so everything is at its default".to_owned(), |path| path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_name_stay_numbers() {
        assert_eq!(name_of(0, "/etc/group"), "root");
        assert_eq!(name_of(4_000_000_000, "/etc/passwd"), "4000000000");
        assert_eq!(name_of(0, "/no/such/file"), "0");
    }

    #[test]
    fn a_file_is_told_with_mode_and_owners() {
        let report =
            FileReport { path: "/dev/null".into(), mode: Some(0o666), owner: Some((0, 0)), unusable: None };
        assert_eq!(File::new(report).mode.unwrap(), "mode 0666, root:root");
    }
}
