//! XenStore as a process of this domain reaches it: the kernel's device or xenstored's socket, the same protocol on both.

mod connection;
mod watches;
mod wire;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::xen::{Nodes, Permission, Store, StoreError, Watch, WatchSink};
use connection::{Connection, transaction_id};
use wire::Kind;

/// How often a transaction is tried before its caller hears of the conflict.
const TRIES: u32 = 100;

/// The sockets of xenstored, where no environment names one.
const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];

/// A way to XenStore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The kernel's device, which file modes can open to an unprivileged user.
    Device(PathBuf),
    /// xenstored's socket, which only root can open.
    Socket(PathBuf),
}

impl Route {
    /// The ways to try, best first: what $XENSTORED_PATH names alone if it is set, otherwise the device and then the
    /// usual sockets.
    pub fn all() -> Vec<Self> {
        if let Some(path) = std::env::var_os("XENSTORED_PATH").filter(|path| !path.is_empty()) {
            return vec![Self::Socket(path.into())];
        }
        let mut routes = vec![Self::Device("/dev/xen/xenbus".into())];
        routes.extend(SOCKETS.map(|path| Self::Socket(path.into())));
        routes
    }

    /// The file behind it.
    pub fn path(&self) -> &Path {
        match self {
            Self::Device(path) | Self::Socket(path) => path,
        }
    }
}

/// XenStore over one connection. Any thread may call; watches that outlive it keep the connection.
pub struct XenStore {
    connection: Arc<Connection>,
}

impl XenStore {
    /// Connects by `route`.
    ///
    /// # Errors
    /// What opening or connecting says.
    pub fn open(route: &Route) -> io::Result<Self> {
        let connection = match route {
            Route::Device(path) => Connection::device(path)?,
            Route::Socket(path) => Connection::socket(path)?,
        };
        Ok(Self { connection: Arc::new(connection) })
    }

    fn nodes(&self) -> Scope<'_> {
        Scope { connection: &self.connection, transaction: 0 }
    }
}

/// Nodes as one transaction sees them; transaction 0 is none.
struct Scope<'a> {
    connection: &'a Connection,
    transaction: u32,
}

impl Scope<'_> {
    fn call(&self, kind: Kind, parts: &[&[u8]]) -> Result<Vec<u8>, StoreError> {
        self.connection.call(kind, self.transaction, parts)
    }

    /// A directory too large for one message, in parts: within a transaction, which sees it as it stood at the first. A
    /// directory that changes all the time could not be read otherwise.
    fn directory_in_parts(&self, path: &[u8]) -> Result<Vec<String>, StoreError> {
        if self.transaction == 0 {
            return Transaction::start(self.connection)?.scope.directory_in_parts(path);
        }
        let mut names = Vec::new();
        let mut generation = None;
        let mut offset = 0;
        loop {
            let answer = self.call(Kind::DirectoryPart, &[path, format!("{offset}\0").as_bytes()])?;
            let part = wire::directory_part(&answer)?;
            // Parts of different states don't fit together. Only our own change could be the reason.
            if *generation.get_or_insert_with(|| part.generation.clone()) != part.generation {
                return Err(StoreError::Again);
            }
            offset += part.octets;
            names.extend(part.names);
            if part.last {
                return Ok(names);
            }
        }
    }
}

impl Nodes for Scope<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.call(Kind::Read, &[&wire::string(path)?])
    }

    fn write(&self, path: &str, value: &[u8]) -> Result<(), StoreError> {
        self.call(Kind::Write, &[&wire::string(path)?, value]).map(drop)
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let path = wire::string(path)?;
        match self.call(Kind::Directory, &[&path]) {
            Ok(list) => wire::strings(&list),
            Err(StoreError::Other(error)) if error == "E2BIG" => self.directory_in_parts(&path),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, path: &str) -> Result<(), StoreError> {
        match self.call(Kind::Rm, &[&wire::string(path)?]) {
            Ok(_) | Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn permissions(&self, path: &str) -> Result<Vec<Permission>, StoreError> {
        wire::decode_permissions(&self.call(Kind::GetPerms, &[&wire::string(path)?])?)
    }

    fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), StoreError> {
        let list = wire::encode_permissions(permissions);
        self.call(Kind::SetPerms, &[&wire::string(path)?, &list]).map(drop)
    }
}

impl Nodes for XenStore {
    fn read(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.nodes().read(path)
    }

    fn write(&self, path: &str, value: &[u8]) -> Result<(), StoreError> {
        self.nodes().write(path, value)
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, StoreError> {
        self.nodes().directory(path)
    }

    fn remove(&self, path: &str) -> Result<(), StoreError> {
        self.nodes().remove(path)
    }

    fn permissions(&self, path: &str) -> Result<Vec<Permission>, StoreError> {
        self.nodes().permissions(path)
    }

    fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), StoreError> {
        self.nodes().set_permissions(path, permissions)
    }
}

impl Store for XenStore {
    fn watch(&self, path: &str, sink: WatchSink) -> Result<Box<dyn Watch>, StoreError> {
        let token = self.connection.watch(path, sink)?;
        Ok(Box::new(Guard { connection: self.connection.clone(), path: path.into(), token }))
    }

    fn transaction(
        &self,
        body: &mut dyn FnMut(&dyn Nodes) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for attempt in 0..TRIES {
            back_off(attempt);
            let transaction = Transaction::start(&self.connection)?;
            let outcome = body(&transaction.scope).and_then(|()| transaction.commit());
            if outcome != Err(StoreError::Again) {
                return outcome;
            }
        }
        Err(StoreError::Again)
    }
}

/// Lets the other parties of a conflict go first: not at all at the first tries, then up to 32 ms, and never twice the
/// same, or two that collide would go on colliding.
fn back_off(attempt: u32) {
    let Some(doublings) = attempt.checked_sub(3) else { return };
    let longest = 1000 << doublings.min(5);
    let chance = RandomState::new().build_hasher().finish();
    thread::sleep(Duration::from_micros(chance % longest));
}

/// An open transaction; dropped before its commit, it never happened.
struct Transaction<'a> {
    scope: Scope<'a>,
    open: bool,
}

impl<'a> Transaction<'a> {
    fn start(connection: &'a Connection) -> Result<Self, StoreError> {
        let answer = connection.call(Kind::TransactionStart, 0, &[b"\0"])?;
        let transaction = transaction_id(&answer)
            .filter(|id| *id != 0)
            .ok_or_else(|| wire::malformed("a transaction without number"))?;
        Ok(Self { scope: Scope { connection, transaction }, open: true })
    }

    fn commit(mut self) -> Result<(), StoreError> {
        // Whatever the answer, there is no transaction after it.
        self.open = false;
        self.scope.call(Kind::TransactionEnd, &[b"T\0"]).map(drop)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.scope.connection.tell(Kind::TransactionEnd, self.scope.transaction, &[b"F\0"]);
        }
    }
}

/// A watch; ends it when dropped.
struct Guard {
    connection: Arc<Connection>,
    path: String,
    token: u64,
}

impl Watch for Guard {}

impl Drop for Guard {
    fn drop(&mut self) {
        self.connection.unwatch(&self.path, self.token);
    }
}
