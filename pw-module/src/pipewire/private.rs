//! A PipeWire of one's own, with a session manager and without hardware: for demonstrations and tests.
//!
//! Everything it needs lies in a directory of its own: sockets, configuration, state. Several can run in one process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::survey::survey;

/// The sink that every private server has, and the default one.
pub const SINK: &str = "test-sink";
/// Another sink, with the same channels.
pub const SECOND_SINK: &str = "second-sink";
/// The source that every private server has: what is played into it is recorded from it.
pub const SOURCE: &str = "test-source";

const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// What a private server is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The graph's rate in frames a second.
    pub rate: u32,
    /// Frames a cycle when no node asks for shorter ones, and the longest cycle.
    pub quantum: u32,
    /// The shortest cycle in frames.
    pub min_quantum: u32,
    /// The channels of the sinks and the source, such as "FL FR".
    pub positions: String,
    /// Whether to start PulseAudio's protocol server too, for its clients.
    pub pulse: bool,
    /// Whether signals of the terminal, such as that of Ctrl-C, don't reach its programs: they live until the server is
    /// dropped, so who starts it takes care of these signals.
    pub own_groups: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rate: 48_000,
            quantum: 1024,
            min_quantum: 32,
            positions: "FL FR".to_owned(),
            pulse: false,
            own_groups: false,
        }
    }
}

/// Why a private server can't be started.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// A file or directory of it can't be made.
    #[error("can't prepare the directory of a private PipeWire")]
    Prepare(#[source] io::Error),
    /// A program of it can't be started.
    #[error("can't start {program}; is it installed?")]
    Start {
        /// The program.
        program: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A program ended.
    #[error("{program} ended at once; see {}", .log.display())]
    Ended {
        /// The program.
        program: &'static str,
        /// Its log.
        log: PathBuf,
    },
    /// It doesn't get ready in time.
    #[error("a private PipeWire isn't ready after {} s: {missing}; see {}", PATIENCE.as_secs(), .logs.display())]
    NotReady {
        /// What is missing.
        missing: String,
        /// The directory of its logs.
        logs: PathBuf,
    },
}

/// A running private server. Dropping it stops its programs and removes its directory.
#[derive(Debug)]
pub struct PrivateServer {
    options: Options,
    directory: Option<tempfile::TempDir>,
    root: PathBuf,
    bus: Process,
    pipewire: Option<Process>,
    wireplumber: Option<Process>,
    pulse: Option<Process>,
}

impl PrivateServer {
    /// Starts a server and waits until it takes streams.
    ///
    /// # Errors
    /// When a program is missing, or the server doesn't get ready.
    pub fn start(options: Options) -> Result<Self, PrivateError> {
        let directory = tempfile::Builder::new().prefix("vsnd-pipewire.").tempdir();
        let directory = directory.map_err(PrivateError::Prepare)?;
        let root = directory.path().to_owned();
        prepare(&root, &options).map_err(PrivateError::Prepare)?;
        let address = format!("--address=unix:path={}", root.join("run/bus").display());
        let arguments = ["--session", "--nofork", "--nopidfile", &address];
        let bus = Process::start("dbus-daemon", &arguments, &root, &options)?;
        let mut server = Self {
            options,
            directory: Some(directory),
            root,
            bus,
            pipewire: None,
            wireplumber: None,
            pulse: None,
        };
        server.wait("no session bus", |server| server.root.join("run/bus").exists())?;
        server.resume()?;
        Ok(server)
    }

    /// The server's socket, as a remote name.
    pub fn remote(&self) -> String {
        self.root.join("run/pipewire-0").display().to_string()
    }

    /// Where the programs' logs and sockets are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The PulseAudio server string, for a server with [`Options::pulse`].
    pub fn pulse_server(&self) -> String {
        format!("unix:{}", self.root.join("run/pulse/native").display())
    }

    /// A command that finds this server and nothing else.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        surround(&mut command, &self.root);
        command
    }

    /// Kills the server as a crash would, and its session manager with it.
    pub fn crash(&mut self) {
        self.pipewire = None;
        self.wireplumber = None;
        self.pulse = None;
    }

    /// Starts what [`crash`](Self::crash) killed, and waits until the server takes streams.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn resume(&mut self) -> Result<(), PrivateError> {
        self.pipewire = Some(Process::start("pipewire", &[], &self.root, &self.options)?);
        self.wait("no node of the configuration", |server| server.missing_nodes(false).is_empty())?;
        self.wireplumber = Some(Process::start("wireplumber", &[], &self.root, &self.options)?);
        if self.options.pulse {
            self.pulse = Some(Process::start("pipewire-pulse", &[], &self.root, &self.options)?);
            self.wait("no socket of PulseAudio's protocol", |server| {
                server.root.join("run/pulse/native").exists()
            })?;
        }
        self.wait("no ports on the nodes", |server| server.missing_nodes(true).is_empty())
    }

    /// Process numbers of the server, its session manager, and the protocol server.
    pub fn processes(&self) -> Vec<u32> {
        [&self.pipewire, &self.wireplumber, &self.pulse].into_iter().flatten().map(|p| p.child.id()).collect()
    }

    /// Keeps the directory with its logs when the server is dropped, and tells where it is.
    pub fn keep(&mut self) -> &Path {
        if let Some(directory) = self.directory.take() {
            self.root = directory.keep();
        }
        &self.root
    }

    /// Which nodes aren't there yet, or (`ports`) have no ports: the session manager makes these.
    fn missing_nodes(&self, ports: bool) -> Vec<&'static str> {
        let all = [SINK, SECOND_SINK, SOURCE];
        let Ok(objects) = survey(Some(&self.remote()), Duration::from_secs(1)) else { return all.to_vec() };
        let there = |name: &str| {
            let node = objects.iter().find(|o| o.kind == "Node" && o.get("node.name") == Some(name));
            node.is_some_and(|node| {
                let id = node.id.to_string();
                !ports || objects.iter().any(|o| o.kind == "Port" && o.get("node.id") == Some(&id))
            })
        };
        all.into_iter().filter(|name| !there(name)).collect()
    }

    /// A program that has ended by itself.
    fn ended(&mut self) -> Option<&'static str> {
        let processes = [&mut self.pipewire, &mut self.wireplumber, &mut self.pulse];
        let mut processes = processes.into_iter().flatten().chain([&mut self.bus]);
        processes.find_map(|process| process.ended().then_some(process.program))
    }

    fn wait(&mut self, missing: &str, ready: impl Fn(&Self) -> bool) -> Result<(), PrivateError> {
        let deadline = Instant::now() + PATIENCE;
        while !ready(self) {
            if let Some(program) = self.ended() {
                let log = log_of(program, self.keep());
                return Err(PrivateError::Ended { program, log });
            }
            if Instant::now() > deadline {
                let missing = missing.to_owned();
                let logs = self.keep().to_owned();
                return Err(PrivateError::NotReady { missing, logs });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.crash();
    }
}

/// Directories and configuration of a server.
fn prepare(root: &Path, options: &Options) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for directory in ["run", "config/pipewire/pipewire.conf.d", "state", "data", "home"] {
        builder.create(root.join(directory))?;
    }
    let Options { rate, quantum, min_quantum, positions, .. } = options;
    let node = |name: &str, description: &str, class: &str, priority: u32| {
        format!(
            "{{ factory = adapter args = {{ factory.name = support.null-audio-sink node.name = {name} \
             node.description = \"{description}\" media.class = {class} object.linger = true \
             audio.position = [ {positions} ] priority.session = {priority} priority.driver = {priority} \
             monitor.channel-volumes = false monitor.passthrough = true }} }}\n"
        )
    };
    let config = format!(
        "context.properties = {{ default.clock.rate = {rate} default.clock.quantum = {quantum} \
         default.clock.min-quantum = {min_quantum} default.clock.max-quantum = {quantum} }}\n\
         context.objects = [\n{}{}{}]\n",
        node(SINK, "Test sink", "Audio/Sink", 2000),
        node(SECOND_SINK, "Second sink", "Audio/Sink", 1000),
        node(SOURCE, "Test source", "Audio/Source/Virtual", 3000),
    );
    fs::write(root.join("config/pipewire/pipewire.conf.d/10-private.conf"), config)
}

/// The environment in which a program finds the server in `root`, and no other.
fn surround(command: &mut Command, root: &Path) {
    for name in ["PULSE_SERVER", "PIPEWIRE_REMOTE", "PIPEWIRE_NODE", "PIPEWIRE_CONFIG_NAME", "DISPLAY"] {
        command.env_remove(name);
    }
    command
        .env("XDG_RUNTIME_DIR", root.join("run"))
        .env("PIPEWIRE_RUNTIME_DIR", root.join("run"))
        .env("PULSE_RUNTIME_PATH", root.join("run/pulse"))
        .env("XDG_CONFIG_HOME", root.join("config"))
        .env("XDG_STATE_HOME", root.join("state"))
        .env("XDG_DATA_HOME", root.join("data"))
        .env("HOME", root.join("home"))
        .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", root.join("run/bus").display()));
}

/// A program of the server; killed when dropped.
#[derive(Debug)]
struct Process {
    program: &'static str,
    child: Child,
}

impl Process {
    fn start(
        program: &'static str,
        arguments: &[&str],
        root: &Path,
        options: &Options,
    ) -> Result<Self, PrivateError> {
        let log = File::options().create(true).append(true).open(log_of(program, root));
        let log = log.map_err(PrivateError::Prepare)?;
        let errors = log.try_clone().map_err(PrivateError::Prepare)?;
        let mut command = Command::new(program);
        surround(&mut command, root);
        if options.own_groups {
            command.process_group(0);
        }
        command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors).current_dir(root);
        let child = command.spawn().map_err(|source| PrivateError::Start { program, source })?;
        Ok(Self { program, child })
    }

    /// Whether the program has ended.
    fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing of it is worth keeping, so it needn't end in an orderly way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_of(program: &str, root: &Path) -> PathBuf {
    root.join(format!("{program}.log"))
}
