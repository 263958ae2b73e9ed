//! The runtime directory: what the next process finds of this one, and the lock that keeps two from serving at once.
//!
//! It lies in memory (tmpfs), belongs to the user alone, and holds a [`Record`] of each stream in a file of its own. A file
//! holds numbers only, none of which opens anything by itself: a grant's number is worth nothing to whoever may not open
//! Xen's devices, and who may needs no file for it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use tracing::warn;
use vsnd_pw_module::{Access, Pages};

use crate::guest::DeviceId;
use crate::guest::names::Place;
use crate::stream::Record;
use crate::xdg;
use crate::xen::DomId;

/// Octets of a record's file: a page.
const PAGE: usize = 4096;
/// A bridge that was killed holds its lock, and its name on the session bus, until the kernel has taken it apart.
pub const PREDECESSOR: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(2);

/// Why the runtime directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It can't be made or looked at.
    #[error("the runtime directory {} can't be used: {error}", path.display())]
    Io {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Others may look into it.
    #[error("the runtime directory {} must be this user's alone: chmod 700 it, or remove it", .0.display())]
    NotPrivate(PathBuf),
    /// Another bridge is at work.
    #[error("another vsnd-bridge serves guests already; stop it first (systemctl --user stop vsnd-bridge)")]
    Taken,
}

/// Where records of streams are kept: in the runtime directory, or (the default) nowhere, so that no later process takes
/// anything over.
#[derive(Debug, Default)]
pub struct Records {
    directory: Option<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Held as long as the process lives.
    _lock: File,
}

impl Records {
    /// The directory that the session has for it, `$XDG_RUNTIME_DIR/vsnd-bridge`. `None` when the environment names none.
    pub fn default_path() -> Option<PathBuf> {
        Some(xdg::directory("XDG_RUNTIME_DIR")?.join("vsnd-bridge"))
    }

    /// The directory at `path`, made if there is none, for this process alone. Waits two seconds at most for another one to
    /// be gone.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub fn open(path: &Path) -> Result<Self, RuntimeError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(path)(error)),
            _ => (),
        }
        private(path)?;
        let lock_path = path.join("lock");
        let lock = open_own(&lock_path).map_err(failed(&lock_path))?;
        let deadline = Instant::now() + PREDECESSOR;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(POLL),
                Err(TryLockError::WouldBlock) => return Err(RuntimeError::Taken),
                Err(TryLockError::Error(error)) => return Err(failed(&lock_path)(error)),
            }
        }
        Ok(Self { directory: Some(Directory { path: path.to_owned(), _lock: lock }) })
    }

    /// Whether [`open`](Self::open) would find a directory at `path` that it can use, or a place to make it. Changes nothing, and
    /// doesn't tell whether another process has it.
    ///
    /// # Errors
    /// [`RuntimeError`], but not [`Taken`](RuntimeError::Taken).
    pub fn probe(path: &Path) -> Result<(), RuntimeError> {
        let written = match private(path) {
            Err(RuntimeError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                path.parent().unwrap_or(path)
            }
            found => {
                found?;
                path
            }
        };
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::access(written, wanted).map_err(|error| failed(written)(error.into()))
    }

    /// The record of one stream, as it stands; one that nobody finds again where there can't be a file.
    pub fn of(&self, guest: DomId, place: Place) -> Record {
        let Some(directory) = &self.directory else { return Record::default() };
        let Place { card, pcm, stream } = place;
        let path = directory.path.join(format!("{guest}.{card}.{pcm}.{stream}"));
        map(&path).unwrap_or_else(|error| {
            let path = path.display();
            warn!("{path} can't be used, the next bridge will not take this stream over: {error}");
            Record::default()
        })
    }

    /// Removes the records of all cards but those that are `wanted`.
    pub fn retain(&self, wanted: impl Fn(DeviceId) -> bool) {
        let Some(directory) = &self.directory else { return };
        let Ok(entries) = directory.path.read_dir() else { return };
        for entry in entries.flatten() {
            if card_of(&entry.file_name().to_string_lossy()).is_some_and(|card| !wanted(card)) {
                // What can't be removed is disbelieved.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |error| RuntimeError::Io { path, error }
}

/// Sees that `path` is a directory, and this user's alone.
fn private(path: &Path) -> Result<(), RuntimeError> {
    let found = path.symlink_metadata().map_err(failed(path))?;
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() || found.uid() != own || found.mode() & 0o077 != 0 {
        return Err(RuntimeError::NotPrivate(path.to_owned()));
    }
    Ok(())
}

/// The card that a record's file speaks of, by its name.
fn card_of(name: &str) -> Option<DeviceId> {
    let mut numbers = name.split('.');
    let frontend = DomId(numbers.next()?.parse().ok()?);
    let device = numbers.next()?.parse().ok()?;
    (numbers.count() == 2).then_some(DeviceId { frontend, device })
}

/// A file that only this user may open, made if there is none; a link is not followed.
fn open_own(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

fn map(path: &Path) -> io::Result<Record> {
    let file = open_own(path)?;
    // Now, because a page that can't be had at a store would end the process.
    fallocate(&file, FallocateFlags::empty(), 0, PAGE as u64)?;
    let pages = Pages::of_device(file.as_fd(), 0, PAGE, Access::ReadWrite, None)?;
    Record::of(pages).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::sndif::Transport;
    use crate::stream::Incarnation;
    use crate::xen::{GrantRef, RemotePort};

    const TRANSPORT: Transport = Transport {
        ring: GrantRef(8),
        ring_port: RemotePort(1),
        events: GrantRef(9),
        events_port: RemotePort(2),
    };
    const PLACE: Place = Place { card: 0, pcm: 1, stream: 2 };

    fn names(path: &Path) -> Vec<String> {
        let entries = path.read_dir().unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn records_are_this_users_alone_and_go_with_their_card() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsnd-bridge");
        let records = Records::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        for guest in [3, 4] {
            records.of(DomId(guest), PLACE);
        }
        std::fs::write(path.join("notes.txt"), "").unwrap();
        assert_eq!(path.join("3.0.1.2").metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(path.join("3.0.1.2").metadata().unwrap().len(), 4096);
        records.retain(|card| card == DeviceId { frontend: DomId(4), device: 0 });
        assert_eq!(names(&path), ["4.0.1.2", "lock", "notes.txt"]);
    }

    #[test]
    fn a_directory_that_others_may_read_is_refused_and_so_is_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("open");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(Records::open(&path), Err(RuntimeError::NotPrivate(_))));
        assert!(matches!(Records::probe(&path), Err(RuntimeError::NotPrivate(_))));
        let link = folder.path().join("link");
        let target = tempfile::tempdir().unwrap();
        symlink(target.path(), &link).unwrap();
        assert!(matches!(Records::open(&link), Err(RuntimeError::NotPrivate(_))));
        let records = Records::open(&folder.path().join("own")).unwrap();
        symlink(target.path().join("elsewhere"), folder.path().join("own/3.0.1.2")).unwrap();
        records.of(DomId(3), PLACE).begin(&Incarnation { uuid: 1, transport: TRANSPORT });
        assert_eq!(names(target.path()), [""; 0], "a link is not followed");
    }

    #[test]
    fn a_look_at_the_directory_makes_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsnd-bridge");
        Records::probe(&path).unwrap();
        assert_eq!(names(folder.path()), [""; 0]);
        let _records = Records::open(&path).unwrap();
        Records::probe(&path).unwrap();
        let nowhere = folder.path().join("not/there");
        assert!(matches!(Records::probe(&nowhere), Err(RuntimeError::Io { .. })));
    }

    #[test]
    fn one_bridge_serves_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsnd-bridge");
        let first = Records::open(&path).unwrap();
        assert!(matches!(Records::open(&path), Err(RuntimeError::Taken)));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Records::open(&path));
            std::thread::sleep(Duration::from_millis(50));
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
