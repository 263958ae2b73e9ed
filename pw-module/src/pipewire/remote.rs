//! Where the server is, and a connection to it.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use pipewire as pw;
use pw::context::ContextRc;
use pw::core::CoreRc;
use pw::properties::PropertiesBox;

/// Where the system's own server listens, when users have none.
const SYSTEM_DIRECTORY: &str = "/run/pipewire";

/// A server to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// The one whose name PipeWire finds in the environment, or this name.
    Named(Option<String>),
    /// The one that listens at this socket. PipeWire itself would let the environment overrule it.
    Socket(PathBuf),
}

impl From<Option<String>> for Remote {
    fn from(name: Option<String>) -> Self {
        match name {
            Some(path) if path.starts_with('/') => Self::Socket(path.into()),
            name => Self::Named(name),
        }
    }
}

impl Remote {
    /// Whether somebody listens there. Cheap, while a failing connection of PipeWire's costs a whole context.
    pub(super) fn listens(&self) -> bool {
        match self {
            Self::Socket(path) => UnixStream::connect(path).is_ok(),
            Self::Named(name) => {
                let candidates = candidates(name.as_deref(), |key| env::var(key).ok());
                // An empty list stands for forms that only PipeWire itself understands.
                candidates.is_empty() || candidates.iter().any(|path| UnixStream::connect(path).is_ok())
            }
        }
    }

    /// Connects with the client properties `properties`.
    pub(super) fn connect(
        &self,
        context: &ContextRc,
        mut properties: PropertiesBox,
    ) -> Result<CoreRc, ConnectError> {
        match self {
            Self::Socket(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(context.connect_fd_rc(OwnedFd::from(socket), Some(properties))?)
            }
            Self::Named(name) => {
                if let Some(name) = name {
                    properties.insert("remote.name", name.as_str());
                }
                Ok(context.connect_rc(Some(properties))?)
            }
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens at the server's socket.
    #[error("nobody listens at the socket of PipeWire")]
    Socket(#[from] io::Error),
    /// The library refuses.
    #[error("PipeWire doesn't run, or refuses the connection")]
    PipeWire(#[from] pw::Error),
}

/// The sockets at which PipeWire looks for a server by name, by its own rules.
fn candidates(name: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let set = |key: &str| variable(key).filter(|value| !value.is_empty());
    let name = set("PIPEWIRE_REMOTE").or_else(|| name.map(str::to_owned));
    let name = name.unwrap_or_else(|| "pipewire-0".to_owned());
    if name.contains(['[', ',', '@', ':']) {
        return Vec::new();
    }
    if name.starts_with('/') {
        return vec![name.into()];
    }
    let own = ["PIPEWIRE_RUNTIME_DIR", "XDG_RUNTIME_DIR", "HOME", "USERPROFILE"].into_iter().find_map(set);
    own.into_iter()
        .chain([SYSTEM_DIRECTORY.to_owned()])
        .map(|directory| Path::new(&directory).join(&name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_where_pipewire_looks() {
        let at = |name: Option<&str>, set: &[(&str, &str)]| {
            let value = |key: &str| set.iter().find(|(k, _)| *k == key).map(|(_, value)| (*value).to_owned());
            candidates(name, value).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        let session = ("XDG_RUNTIME_DIR", "/run/user/1");
        assert_eq!(at(None, &[session]), ["/run/user/1/pipewire-0", "/run/pipewire/pipewire-0"]);
        assert_eq!(at(Some("two"), &[session]), ["/run/user/1/two", "/run/pipewire/two"]);
        assert_eq!(at(Some("two"), &[session, ("PIPEWIRE_REMOTE", "/a/b")]), ["/a/b"]);
        assert_eq!(at(None, &[("PIPEWIRE_RUNTIME_DIR", "/p"), session])[0], "/p/pipewire-0");
        assert!(at(Some("[a,b]"), &[session]).is_empty());
    }

    #[test]
    fn an_absolute_path_is_a_socket() {
        assert_eq!(Remote::from(Some("/a".to_owned())), Remote::Socket("/a".into()));
        assert!(!Remote::from(Some("/nobody/listens/here".to_owned())).listens());
        assert_eq!(Remote::from(Some("a".to_owned())), Remote::Named(Some("a".to_owned())));
    }
}
