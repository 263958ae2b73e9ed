//! What is there of Xen on this machine and what this user may use of it, each lack with the remedy.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{EventChannels, GrantDevice, OpenError, Places, Route, XenStore, own_domain};
use crate::xen::DomId;

/// Why a file can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It isn't there, and neither is Xen.
    NoXen,
    /// It isn't there though Linux runs on Xen.
    Missing,
    /// This user may not open it.
    Denied,
    /// It is there and its other end isn't.
    NobodyListens,
    /// Anything else, in the kernel's words.
    Other(String),
}

/// A file that can't be used. As text: the file, why, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub problem: Problem,
    /// What the user can do about it.
    pub remedy: String,
}

impl Unusable {
    /// Of a device.
    pub(super) fn of_device(path: &Path, error: &io::Error) -> Self {
        Self::new(path, error, false, runs_on_xen())
    }

    /// Of a way to XenStore.
    pub(super) fn of_route(route: &Route, error: &io::Error) -> Self {
        Self::new(route.path(), error, matches!(route, Route::Socket(_)), runs_on_xen())
    }

    /// Several as one text, in which what they have in common stands once.
    pub(super) fn list(all: &[Self]) -> String {
        let alike = all.chunk_by(|one, other| (&one.problem, &one.remedy) == (&other.problem, &other.remedy));
        let texts = alike.map(|alike| {
            let paths: Vec<_> = alike.iter().map(|one| one.path.display().to_string()).collect();
            let why = alike.first().map(|one| format!(": {}: {}", one.problem, one.remedy));
            paths.join(", ") + &why.unwrap_or_default()
        });
        texts.collect::<Vec<_>>().join("; ")
    }

    fn new(path: &Path, error: &io::Error, socket: bool, xen: bool) -> Self {
        let problem = match error.kind() {
            io::ErrorKind::NotFound if !xen => Problem::NoXen,
            io::ErrorKind::NotFound => Problem::Missing,
            io::ErrorKind::PermissionDenied => Problem::Denied,
            io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut => Problem::NobodyListens,
            _ => Problem::Other(error.to_string()),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let remedy = match &problem {
            Problem::NoXen => {
                "boot Xen with this Linux as Dom0, or use vsnd-bridge demo, which needs none".into()
            }
            Problem::Missing | Problem::NobodyListens if socket => "start xenstored".into(),
            // The device is part of the kernel; opening it fails like this until there is a XenStore.
            Problem::Missing if name == "xenbus" => "start xenstored".into(),
            Problem::Missing => format!("modprobe xen-{name}"),
            Problem::Denied if socket => "only root may use it; other users need /dev/xen/xenbus".into(),
            Problem::Denied => {
                "add yourself to the group vsnd and log in anew; contrib/udev gives that group the device"
                    .into()
            }
            Problem::NobodyListens | Problem::Other(_) => "look into the kernel's log".into(),
        };
        Self { path: path.into(), problem, remedy }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoXen => "not there, this Linux doesn't run on Xen",
            Self::Missing => "not there",
            Self::Denied => "permission denied",
            Self::NobodyListens => "nobody listens",
            Self::Other(words) => words,
        })
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.path.display(), self.problem, self.remedy)
    }
}

/// Whether this Linux runs on Xen.
fn runs_on_xen() -> bool {
    fs::read("/sys/hypervisor/type").is_ok_and(|kind| kind.trim_ascii() == b"xen")
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Its permission bits, if it is there.
    pub mode: Option<u32>,
    /// The numbers of its owner and group, if it is there.
    pub owner: Option<(u32, u32)>,
    /// Why it can't be used, unless it can.
    pub unusable: Option<Unusable>,
}

impl FileReport {
    fn new(path: &Path, unusable: Option<Unusable>) -> Self {
        let metadata = fs::metadata(path).ok();
        Self {
            path: path.into(),
            mode: metadata.as_ref().map(|metadata| metadata.mode() & 0o7777),
            owner: metadata.as_ref().map(|metadata| (metadata.uid(), metadata.gid())),
            unusable,
        }
    }
}

/// What there is of Xen.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Whether this Linux runs on Xen.
    pub runs_on_xen: bool,
    /// Ways to XenStore, best first. One that can be used is enough.
    pub store: Vec<FileReport>,
    /// The grant device.
    pub grants: FileReport,
    /// The event channel device.
    pub events: FileReport,
    /// This domain's own number.
    pub domain: Result<DomId, OpenError>,
}

impl Probe {
    /// Looks, by opening everything once and closing it.
    pub fn new(places: &Places) -> Self {
        let mut store = Vec::new();
        let mut opened = None;
        for route in &places.store {
            let unusable = match XenStore::open(route) {
                Ok(connection) => {
                    opened.get_or_insert(connection);
                    None
                }
                Err(error) => Some(Unusable::of_route(route, &error)),
            };
            store.push(FileReport::new(route.path(), unusable));
        }
        let domain = match opened {
            Some(connection) => own_domain(&connection),
            None => Err(OpenError::Store(store.iter().filter_map(|file| file.unusable.clone()).collect())),
        };
        let device = |path: &Path, opened: io::Result<()>| {
            FileReport::new(path, opened.err().map(|error| Unusable::of_device(path, &error)))
        };
        Self {
            runs_on_xen: runs_on_xen(),
            store,
            grants: device(&places.grants, GrantDevice::open(&places.grants).map(drop)),
            events: device(&places.events, EventChannels::open(&places.events).map(drop)),
            domain,
        }
    }

    /// Whether the bridge can run.
    pub fn is_complete(&self) -> bool {
        self.domain.is_ok() && self.grants.unusable.is_none() && self.events.unusable.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn text(path: &str, kind: io::ErrorKind, socket: bool, xen: bool) -> String {
        Unusable::new(Path::new(path), &io::Error::from(kind), socket, xen).to_string()
    }

    #[test]
    fn every_lack_has_its_remedy() {
        use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, TimedOut};
        let device = |kind, xen| text("/dev/xen/gntdev", kind, false, xen);
        assert_eq!(device(NotFound, true), "/dev/xen/gntdev: not there: modprobe xen-gntdev");
        assert!(device(NotFound, false).contains("doesn't run on Xen"));
        assert!(device(PermissionDenied, true).contains("permission denied: add yourself to the group vsnd"));
        assert!(text("/dev/xen/xenbus", NotFound, false, true).ends_with("start xenstored"));
        assert!(text("/run/xenstored/socket", ConnectionRefused, true, true).ends_with("start xenstored"));
        assert!(text("/run/xenstored/socket", TimedOut, true, true).ends_with("start xenstored"));
        assert!(text("/run/xenstored/socket", PermissionDenied, true, true).contains("/dev/xen/xenbus"));
    }

    #[test]
    fn a_probe_tells_modes_and_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let grants = folder.path().join("gntdev");
        fs::write(&grants, "").unwrap();
        fs::set_permissions(&grants, fs::Permissions::from_mode(0o640)).unwrap();
        let events = folder.path().join("evtchn");
        let places = Places { store: vec![Route::Socket(folder.path().join("socket"))], grants, events };
        let probe = Probe::new(&places);
        assert_eq!(probe.grants.mode, Some(0o640));
        assert_eq!(probe.grants.unusable, None);
        assert_eq!(probe.events.mode, None);
        assert_eq!(probe.events.unusable.as_ref().unwrap().path, places.events);
        assert!(probe.store[0].unusable.is_some() && probe.domain.is_err());
        assert!(!probe.is_complete());
    }
}
