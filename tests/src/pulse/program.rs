//! Where the program pulseaudio is: installed, or unpacked beside what cargo builds.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

use crate::packages;

/// The package and the libraries that only it needs; libpulse comes with libpulse-dev. Unpacked and not installed, as
/// Debian's pipewire-audio conflicts with it: a test must not take a desktop its sound.
const PACKAGES: [&str; 9] = [
    "pulseaudio",
    "libltdl7",
    "libnsl2",
    "liborc-0.4-0",
    "libsoxr0",
    "libspeexdsp1",
    "libtdb1",
    "libtirpc3",
    "libwrap0",
];

/// A pulseaudio that runs where it is.
#[derive(Debug)]
enum Program {
    Installed,
    Unpacked { root: PathBuf, modules: PathBuf },
}

impl Program {
    fn find() -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if std::env::split_paths(&path).any(|folder| folder.join("pulseaudio").exists()) {
            return Ok(Self::Installed);
        }
        let root = packages::unpacked("pulseaudio", &PACKAGES)?;
        let modules = std::fs::read_dir(root.join("lib"))?
            .filter_map(|entry| Some(entry.ok()?.path().join("modules")))
            .find(|path| path.join("module-null-sink.so").exists())
            .context("the package holds no modules")?;
        Ok(Self::Unpacked { root, modules })
    }
}

/// The command of the pulseaudio that there is, looked for once; `surround` makes a command of a program.
///
/// # Errors
/// When there is none and none can be unpacked.
pub(super) fn pulseaudio(surround: impl FnOnce(&str) -> Command) -> Result<Command> {
    static PROGRAM: OnceLock<Result<Program, String>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| Program::find().map_err(|error| format!("{error:#}")));
    match program.as_ref().map_err(|error| anyhow!("no pulseaudio for tests: {error}"))? {
        Program::Installed => Ok(surround("pulseaudio")),
        Program::Unpacked { root, modules } => {
            let mut command = surround(&root.join("bin/pulseaudio").display().to_string());
            let libraries = root.join("lib/x86_64-linux-gnu");
            let mut path = OsString::from(libraries.join("pulseaudio"));
            path.push(":");
            path.push(libraries);
            command.env("LD_LIBRARY_PATH", path);
            command.arg(format!("--dl-search-path={}", modules.display()));
            Ok(command)
        }
    }
}
