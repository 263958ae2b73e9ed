//! A real xenstored of one's own on a machine without Xen: Debian's binary with Xen's libraries stood in for
//! (`support/xenstored-shim.c`), on a private socket.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vsnd_bridge::xen::real::{Route, XenStore};

use crate::packages;

/// xenstored, ended when dropped.
pub struct Xenstored {
    folder: TempDir,
    process: Child,
    tools: PathBuf,
}

/// What every xenstored of this process needs, made once.
struct Parts {
    daemon: PathBuf,
    tools: PathBuf,
    shim: PathBuf,
}

impl Xenstored {
    /// Starts one, with nothing in its store but what it puts there.
    ///
    /// # Errors
    /// What is missing on this machine, or what kept it from starting.
    pub fn start() -> Result<Self> {
        static PARTS: OnceLock<Result<Parts, String>> = OnceLock::new();
        let parts = PARTS.get_or_init(|| Parts::make().map_err(|error| format!("{error:#}")));
        let parts = parts.as_ref().map_err(|error| anyhow::anyhow!("no xenstored for tests: {error}"))?;
        let folder = tempfile::tempdir()?;
        let log = File::create(folder.path().join("log"))?;
        let process = Command::new(&parts.daemon)
            .args(["-N", "-I", "-T"])
            .arg(folder.path().join("trace"))
            .env("XENSTORED_RUNDIR", folder.path())
            .env("XENSTORED_PATH", folder.path().join("socket"))
            .env("LD_PRELOAD", &parts.shim)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("xenstored can't be run")?;
        let mut started = Self { folder, process, tools: parts.tools.clone() };
        let deadline = Instant::now() + Duration::from_secs(10);
        while started.store().is_err() {
            if started.process.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(started.folder.path().join("log")).unwrap_or_default();
                bail!("xenstored doesn't start: {log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(started)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// A new connection.
    ///
    /// # Errors
    /// What connecting says.
    pub fn store(&self) -> Result<XenStore> {
        Ok(XenStore::open(&Route::Socket(self.socket()))?)
    }

    /// What one of Xen's own tools prints, such as `xenstore-ls`.
    ///
    /// # Errors
    /// When it fails, with its words.
    pub fn tool(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let output = Command::new(self.tools.join(name))
            .args(arguments)
            .env("XENSTORED_PATH", self.socket())
            .output()
            .with_context(|| format!("{name} can't be run"))?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// How often xenstored made a thing (connection, watch, transaction) and how often it ended one.
    ///
    /// # Errors
    /// When its trace can't be read.
    pub fn made_and_ended(&self, thing: &str) -> Result<(usize, usize)> {
        let trace = fs::read(self.folder.path().join("trace"))?;
        let trace = String::from_utf8_lossy(&trace);
        let count = |is: &dyn Fn(&str) -> bool| trace.lines().filter(|line| is(line)).count();
        // It notes no making of a transaction but the answer to the request.
        let made = match thing {
            "transaction" => count(&|line| line.starts_with("OUT ") && line.contains(" TRANSACTION_START (")),
            thing => count(&|line| line.starts_with(&format!("CREATE {thing} "))),
        };
        Ok((made, count(&|line| line.starts_with(&format!("DESTROY {thing} ")))))
    }

    /// Stops it until [`resume`](Self::resume): it lives and answers nothing.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).context("no process")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Xenstored {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Parts {
    fn make() -> Result<Self> {
        let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("support");
        // Their libraries come with libxen-dev.
        let folder = packages::folder("xenstored")?;
        let root = packages::unpacked("xenstored", &["xen-utils-4.17", "xenstore-utils"])?;
        let daemon = fs::read_dir(root.join("lib"))?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin/xenstored")))
            .find(|path| path.exists())
            .context("the package holds no xenstored")?;
        // Under a name of its own first: another test process may build the same at the same time.
        let fresh =
            tempfile::Builder::new().prefix("shim-").suffix(".so").tempfile_in(&folder)?.into_temp_path();
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&fresh)
            .arg(support.join("xenstored-shim.c"))
            .output()
            .context("there is no C compiler: install gcc")?;
        let words = String::from_utf8_lossy(&compiled.stderr);
        ensure!(compiled.status.success(), "the shim doesn't compile (is libxen-dev installed?): {words}");
        let shim = folder.join("xenstored-shim.so");
        fresh.persist(&shim)?;
        Ok(Self { daemon, tools: root.join("bin"), shim })
    }
}
