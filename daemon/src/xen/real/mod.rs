//! Xen as Linux shows it to a process: XenStore, granted memory and event channels, each behind a file.
//!
//! Whoever may open the files may use them; no capability is asked for. So an unprivileged user's daemon needs nothing
//! but their modes, and what is missing for that is told by file, see [`Unusable`].

mod events;
mod grants;
mod ioctl;
mod probe;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

pub use events::EventChannels;
pub use grants::GrantDevice;
pub use probe::{FileReport, Probe, Problem, Unusable};
pub use store::{Route, XenStore};

use super::{DomId, EventError, Events, Nodes, StoreError, Xen};

/// Where Xen is found.
#[derive(Clone, Debug)]
pub struct Places {
    /// Ways to XenStore, best first.
    pub store: Vec<Route>,
    /// The grant device.
    pub grants: PathBuf,
    /// The event channel device.
    pub events: PathBuf,
}

impl Default for Places {
    /// Linux's own places, and XenStore where $XENSTORED_PATH says if it is set.
    fn default() -> Self {
        Self { store: Route::all(), grants: "/dev/xen/gntdev".into(), events: "/dev/xen/evtchn".into() }
    }
}

/// Why there is no way to Xen. Its text names the file and what mends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No way to XenStore works; each with its reason.
    #[error("no way to XenStore: {}", Unusable::list(.0))]
    Store(Vec<Unusable>),
    /// A device can't be used.
    #[error("{0}")]
    Device(Unusable),
    /// XenStore doesn't say which domain this is.
    #[error(
        "XenStore doesn't tell this domain's own number ({0}): in Dom0 run xen-init-dom0, which Xen's start-up does"
    )]
    Domain(StoreError),
}

/// Opens all of Xen.
///
/// # Errors
/// Any [`OpenError`]; nothing stays open then.
pub fn open() -> Result<Xen, OpenError> {
    open_at(&Places::default())
}

/// [`open`], with the files elsewhere.
///
/// # Errors
/// Any [`OpenError`]; nothing stays open then.
pub fn open_at(places: &Places) -> Result<Xen, OpenError> {
    let store = open_store(&places.store)?;
    let unusable = |path: &PathBuf| {
        let path = path.clone();
        move |error| OpenError::Device(Unusable::of_device(&path, &error))
    };
    let grants = GrantDevice::open(&places.grants).map_err(unusable(&places.grants))?;
    // Tried once here, so that a refusal is told at the start and not with the first guest.
    EventChannels::open(&places.events).map_err(unusable(&places.events))?;
    let path = places.events.clone();
    let open_events = move || -> Result<Arc<dyn Events>, EventError> {
        let channels = EventChannels::open(&path)
            .map_err(|error| EventError::Device(Unusable::of_device(&path, &error).to_string()))?;
        Ok(Arc::new(channels))
    };
    let own = own_domain(&store)?;
    Ok(Xen { own, store: Arc::new(store), grants: Arc::new(grants), open_events: Arc::new(open_events) })
}

/// Connects to XenStore by the first of `routes` that works.
///
/// # Errors
/// [`OpenError::Store`].
pub fn open_store(routes: &[Route]) -> Result<XenStore, OpenError> {
    let mut failures = Vec::new();
    for route in routes {
        match XenStore::open(route) {
            Ok(store) => return Ok(store),
            Err(error) => failures.push(Unusable::of_route(route, &error)),
        }
    }
    Err(OpenError::Store(failures))
}

/// The number of the domain that this process runs in.
///
/// # Errors
/// [`OpenError::Domain`].
pub fn own_domain(store: &dyn Nodes) -> Result<DomId, OpenError> {
    // Relative paths start at the domain's own directory, whichever that is.
    let value = store.read("domid").map_err(OpenError::Domain)?;
    let number = std::str::from_utf8(&value).ok().and_then(|text| text.trim().parse().ok());
    number.map(DomId).ok_or_else(|| OpenError::Domain(StoreError::Other("no number".into())))
}

/// Values of C expressions, as the system's own headers have them.
#[cfg(test)]
fn c_values(headers: &str, expressions: &[&str]) -> Vec<u64> {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("values.c"), folder.path().join("values"));
    let lines: String = expressions
        .iter()
        .map(|expression| format!("printf(\"%llu\\n\", (unsigned long long)({expression}));\n"))
        .collect();
    std::fs::write(&source, format!("{headers}\n#include <stdio.h>\nint main(void) {{\n{lines}}}\n"))
        .unwrap();
    let compiled = Command::new("cc").arg(&source).arg("-o").arg(&program).status();
    assert!(
        compiled.expect("a C compiler").success(),
        "the headers of libxen-dev and linux-libc-dev are there"
    );
    let output = Command::new(&program).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_first_route_that_works_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let missing = Route::Device(folder.path().join("xenbus"));
        assert!(open_store(&[missing.clone(), Route::Socket(socket)]).is_ok());
        let Err(OpenError::Store(failures)) = open_store(&[missing]) else { panic!("nothing is there") };
        assert_eq!(failures.len(), 1);
    }

    #[test]
    fn an_error_names_the_file_and_what_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let places = Places {
            store: vec![Route::Socket(socket)],
            grants: folder.path().join("gntdev"),
            events: folder.path().join("evtchn"),
        };
        let error = open_at(&places).err().unwrap().to_string();
        assert!(error.contains("gntdev: ") && error.contains("doesn't run on Xen"), "{error}");
    }

    #[test]
    fn ways_that_fail_for_one_reason_share_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let routes = ["a", "b"].map(|name| Route::Socket(folder.path().join(name)));
        let error = open_store(&routes).err().unwrap().to_string();
        assert_eq!(error.matches("not there").count(), 1, "{error}");
        assert!(error.contains("/a, ") && error.contains("/b: not there"), "{error}");
    }

    /// Nodes that only read.
    struct Fixed(HashMap<&'static str, &'static str>);

    impl Nodes for Fixed {
        fn read(&self, path: &str) -> Result<Vec<u8>, StoreError> {
            self.0.get(path).map(|value| value.as_bytes().to_vec()).ok_or(StoreError::NotFound)
        }
        fn write(&self, _: &str, _: &[u8]) -> Result<(), StoreError> {
            Err(StoreError::Denied)
        }
        fn directory(&self, _: &str) -> Result<Vec<String>, StoreError> {
            Err(StoreError::Denied)
        }
        fn remove(&self, _: &str) -> Result<(), StoreError> {
            Err(StoreError::Denied)
        }
        fn permissions(&self, _: &str) -> Result<Vec<super::super::Permission>, StoreError> {
            Err(StoreError::Denied)
        }
        fn set_permissions(&self, _: &str, _: &[super::super::Permission]) -> Result<(), StoreError> {
            Err(StoreError::Denied)
        }
    }

    #[test]
    fn the_own_domain_is_what_xenstore_says_and_nothing_else() {
        let domain = |value| own_domain(&Fixed(HashMap::from([("domid", value)])));
        assert_eq!(domain("7"), Ok(DomId(7)));
        assert!(domain("seven").is_err());
        assert!(domain("70000").is_err());
        assert_eq!(own_domain(&Fixed(HashMap::new())), Err(OpenError::Domain(StoreError::NotFound)));
    }
}
