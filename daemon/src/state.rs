//! The file in which the user's changes are remembered.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use crate::mixer::Memory;
use crate::xdg::directory_or;

/// The file's name in `$XDG_STATE_HOME/vsnd-bridge`.
const FILE: &str = "domains.toml";
/// More than anybody has domains for: a file that is longer is none of ours.
const LONGEST: u64 = 1 << 20;
/// The first line of the file.
const HEAD: &str =
    "# What you changed by vsnd-bridge's controls, by domain. vsnd-bridge writes this file.\n\n";

/// The file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

/// Why a state can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It can't be ours.
    #[error("it is longer than {LONGEST} octets")]
    TooLong,
    /// It can't be understood.
    #[error("{}", .0.to_string().trim_end().replace('\n', "; "))]
    Parse(#[from] toml::de::Error),
}

impl StateFile {
    /// The file in `$XDG_STATE_HOME/vsnd-bridge`, `~/.local/state` where that is unset. `None` when the environment names no
    /// home.
    pub fn default_path() -> Option<PathBuf> {
        Some(directory_or("XDG_STATE_HOME", ".local/state")?.join("vsnd-bridge").join(FILE))
    }

    /// Reads the file at `path`. One that can't be used is told of and kept aside as `domains.toml.bad`, and nothing is
    /// remembered from before. While such a file is there, the memory is [in doubt](Memory::doubt).
    pub fn open(path: PathBuf) -> (Self, Memory) {
        let aside = path.with_extension("toml.bad");
        let mut in_doubt = aside.exists();
        let mut memory = match read(&path) {
            Ok(memory) => memory,
            Err(fault) => {
                in_doubt = true;
                error!(
                    "volumes and permissions of before are forgotten, {} can't be used: {fault}",
                    path.display()
                );
                if let Err(error) = fs::rename(&path, &aside) {
                    error!("nor can it be kept aside as {}: {error}", aside.display());
                }
                Memory::default()
            }
        };
        if in_doubt {
            warn!(
                "no policy lets a guest record without asking you: mend {}, move it back and start vsnd-bridge again, or remove it",
                aside.display()
            );
            memory.doubt();
        }
        (Self { path }, memory)
    }

    /// Whether [`open`](Self::open) would find a file at `path` that it can use, or none. Changes nothing.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn probe(path: &Path) -> Result<(), ReadError> {
        read(path).map(drop)
    }

    /// Replaces the file's contents, whole or not at all.
    pub fn save(&self, memory: &Memory) {
        if let Err(error) = replace(&self.path, memory) {
            warn!("volumes and permissions can't be remembered in {}: {error}", self.path.display());
        }
    }
}

/// What the file holds; a file that is not there holds nothing.
fn read(path: &Path) -> Result<Memory, ReadError> {
    match fs::metadata(path) {
        Ok(file) if file.len() > LONGEST => Err(ReadError::TooLong),
        Ok(_) => Ok(toml::from_str(&fs::read_to_string(path)?)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
        Err(error) => Err(error.into()),
    }
}

fn replace(path: &Path, memory: &Memory) -> io::Result<()> {
    let text = toml::to_string(memory).map_err(io::Error::other)?;
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(HEAD.as_bytes())?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::names::Domain;
    use crate::mixer::{Change, Identity, Settings};
    use crate::xen::DomId;
    use vsnd_dbus::{Capture, CubicVolume};

    fn identity() -> Identity {
        let domain = Domain { id: DomId(1), name: Some("work \"1\"".to_owned()), uuid: None };
        Identity::of(&domain).unwrap()
    }

    fn settings(memory: &Memory) -> Settings {
        memory.settings(Some(&identity()), Capture::Ask)
    }

    #[test]
    fn what_is_saved_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not/there/yet/domains.toml");
        let (file, mut memory) = StateFile::open(path.clone());
        memory.remember(&identity(), Change::Volume(CubicVolume::try_from(0.3).unwrap()));
        file.save(&memory);
        memory.remember(&identity(), Change::Muted(true));
        memory.remember(&identity(), Change::Capture(Capture::Deny));
        file.save(&memory);
        let (_, again) = StateFile::open(path.clone());
        assert_eq!(settings(&again), settings(&memory));
        assert_eq!(settings(&again).capture, Capture::Deny);
        let files = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "nothing else is left there");
    }

    #[test]
    fn a_file_that_can_not_be_used_is_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for (what, content) in [
            ("cut off", "[[domain]]\nname = \"wor".as_bytes().to_vec()),
            ("no text", vec![0xff; 100]),
            ("no volume", b"[[domain]]\nname = \"work\"\nvolume = 90.0\n".to_vec()),
            ("no such key", b"[[domain]]\nname = \"work\"\nloud = true\n".to_vec()),
            ("too long", vec![b'#'; LONGEST as usize + 1]),
        ] {
            fs::write(&path, &content).unwrap();
            assert!(StateFile::probe(&path).is_err(), "{what}");
            assert_eq!(fs::read(&path).unwrap(), content, "a look changes nothing");
            let (file, memory) = StateFile::open(path.clone());
            let forgotten = Memory::default().settings(Some(&identity()), Capture::Ask);
            assert_eq!(settings(&memory), forgotten, "{what}");
            assert_eq!(fs::read(folder.path().join("domains.toml.bad")).unwrap(), content, "{what}");
            assert!(!path.exists(), "{what}");
            file.save(&memory);
            assert!(fs::read_to_string(&path).unwrap().starts_with('#'));
            StateFile::probe(&path).unwrap();
        }
    }

    #[test]
    fn who_may_have_been_denied_the_microphone_is_not_let_in_by_a_file_that_can_not_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let opened = || StateFile::open(path.clone());
        let by_policy = |memory: &Memory, policy| memory.settings(Some(&identity()), policy).capture;
        assert_eq!(by_policy(&opened().1, Capture::Allow), Capture::Allow);

        fs::write(&path, "[[domain]]\nname = \"wor").unwrap();
        let (file, memory) = opened();
        assert_eq!(by_policy(&memory, Capture::Allow), Capture::Ask);
        assert_eq!(by_policy(&memory, Capture::Deny), Capture::Deny);

        file.save(&memory);
        let (_, mut later) = opened();
        assert_eq!(by_policy(&later, Capture::Allow), Capture::Ask, "it was not mended");
        later.remember(&identity(), Change::Capture(Capture::Allow));
        assert_eq!(by_policy(&later, Capture::Deny), Capture::Allow, "the user said so since");

        fs::remove_file(path.with_extension("toml.bad")).unwrap();
        assert_eq!(by_policy(&opened().1, Capture::Allow), Capture::Allow);
    }
}
