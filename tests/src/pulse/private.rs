//! A PulseAudio of one's own, without hardware, session bus or state of the user's.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use vsnd_pw_module::pulse::survey;

use super::program::pulseaudio;

/// The default sink, 32-bit float in stereo at 48000 frames a second.
pub const SINK: &str = "test-sink";
/// Another sink.
pub const SECOND_SINK: &str = "second-sink";
/// A sink whose monitor is the default source: what is played into it is recorded from it.
pub const MICROPHONE: &str = "test-microphone";

const PATIENCE: Duration = Duration::from_secs(20);

/// A running private server. Dropping it ends it and removes its directory.
pub struct PrivatePulse {
    directory: tempfile::TempDir,
    daemon: Option<Child>,
    /// The channels of the sinks, in order.
    channel_map: &'static str,
}

impl PrivatePulse {
    /// Starts a server with stereo sinks and waits until it answers.
    ///
    /// # Errors
    /// When there is no pulseaudio or pactl, or the server doesn't answer.
    pub fn start() -> Result<Self> {
        Self::with_channels("front-left,front-right")
    }

    /// Starts a server whose sinks have these channels.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn with_channels(channel_map: &'static str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("vsnd-pulse.").tempdir()?;
        let mut server = Self { directory, daemon: None, channel_map };
        for name in ["run", "pulse", "config", "state", "home"] {
            DirBuilder::new().mode(0o700).create(server.path(name))?;
        }
        server.resume()?;
        Ok(server)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The server string for clients.
    pub fn server(&self) -> String {
        format!("unix:{}", self.path("socket").display())
    }

    /// The process number of the server, while it runs.
    pub fn process(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// A command that finds this server and nothing else.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for name in ["DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "PULSE_SINK", "PULSE_SOURCE"] {
            command.env_remove(name);
        }
        command
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("PULSE_RUNTIME_PATH", self.path("pulse"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("HOME", self.path("home"))
            .env("PULSE_COOKIE", self.path("cookie"))
            .env("PULSE_SERVER", self.server())
            .env("LC_ALL", "C");
        command
    }

    /// Kills the server as a crash would.
    pub fn crash(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Starts what [`crash`](Self::crash) killed, and waits until it answers.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn resume(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = pulseaudio(|program| self.command(program))?;
        command.args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]);
        command.args(["--disable-shm=no", "--log-target=stderr", "-v"]);
        // Without norewinds a null sink renders two seconds ahead. The socket comes last, when everything is there.
        for sink in [SINK, SECOND_SINK, MICROPHONE] {
            let map = self.channel_map;
            let channels = map.split(',').count();
            let shape =
                format!("rate=48000 format=float32le channels={channels} channel_map={map} norewinds=1");
            command.args(["-L", &format!("module-null-sink sink_name={sink} {shape}")]);
        }
        command.args(["-L", "module-stream-restore restore_device=no"]);
        let socket = self.path("socket");
        let socket = format!("module-native-protocol-unix auth-anonymous=1 socket={}", socket.display());
        command.args(["-L", &socket]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.daemon = Some(command.spawn().context("pulseaudio can't be started")?);
        let deadline = Instant::now() + PATIENCE;
        while survey(Some(&self.server()), PATIENCE).is_err() {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
                bail!("the private PulseAudio doesn't answer; its log:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.tool("pactl", &["set-default-sink", SINK])?;
        self.tool("pactl", &["set-default-source", &format!("{MICROPHONE}.monitor")])?;
        Ok(())
    }

    /// What a tool prints about this server.
    ///
    /// # Errors
    /// When it fails.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> Result<String> {
        output(self.command(program).args(arguments))
    }
}

/// What a command prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.env("LC_ALL", "C").output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

impl Drop for PrivatePulse {
    fn drop(&mut self) {
        self.crash();
    }
}
