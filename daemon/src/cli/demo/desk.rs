//! The desktop that the demo plays into: the user's own, or a private one. And the ears on it.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use vsnd_bridge::sim::signal::{Frame, read_wav, write_wav};
use vsnd_pw_module::pipewire::private::{Options, PrivateServer, SINK, SOURCE};
use vsnd_pw_module::pipewire::survey;

/// How long the desktop may take to answer, or to link what was asked for.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// The recorder's node.
const EAR: &str = "vsnd-demo-ear";
/// The node that speaks into the private server's microphone.
const MOUTH: &str = "vsnd-demo-mouth";
const CHANNELS: [&str; 2] = ["FL", "FR"];

/// A sound server to play into.
pub(super) enum Desk {
    /// The user's own PipeWire.
    Own,
    /// One without hardware that ends with the demo.
    Private(PrivateServer),
}

impl Desk {
    /// The user's own desktop if it has a sink and no private one is asked for.
    pub(super) fn choose(private: bool, rate: u32) -> anyhow::Result<Self> {
        if !private && has_sink() {
            return Ok(Self::Own);
        }
        let options = Options { rate, ..Options::default() };
        let server = PrivateServer::start(options).context(
            "a private PipeWire can't be started; sudo apt-get install pipewire pipewire-bin wireplumber dbus",
        )?;
        Ok(Self::Private(server))
    }

    /// What it is, for people.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Own => "yours",
            Self::Private(_) => "a private one, not audible",
        }
    }

    /// The server's name for clients.
    pub(super) fn remote(&self) -> Option<String> {
        match self {
            Self::Own => None,
            Self::Private(server) => Some(server.remote()),
        }
    }

    fn command(&self, program: &str) -> Command {
        match self {
            Self::Own => Command::new(program),
            Self::Private(server) => server.command(program),
        }
    }

    /// Links the ports of one node to those of another, once they are there.
    fn link(&self, from: &str, output: &str, to: &str) -> anyhow::Result<()> {
        for channel in CHANNELS {
            let (from, to) = (format!("{from}:{output}_{channel}"), format!("{to}:input_{channel}"));
            let deadline = Instant::now() + PATIENCE;
            loop {
                let linked = self.command("pw-link").args([&from, &to]).output().context("pw-link")?;
                if linked.status.success() {
                    break;
                }
                if Instant::now() > deadline {
                    let said = String::from_utf8_lossy(&linked.stderr).trim().to_owned();
                    bail!("{from} and {to} can't be linked: {said}");
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

fn has_sink() -> bool {
    let objects = survey(None, Duration::from_secs(2)).unwrap_or_default();
    objects.iter().any(|object| object.get("media.class") == Some("Audio/Sink"))
}

/// A program of PipeWire's that ends when it is dropped.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
            .spawn()
            .map(Self)
            .with_context(|| format!("{name} can't be started; sudo apt-get install pipewire-bin"))
    }

    /// Ends it as Ctrl-C would, and waits.
    fn end(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
            && matches!(self.0.try_wait(), Ok(None))
        {
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

/// Records what a node gives.
pub(super) struct Ear {
    program: Program,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Ear {
    /// Records the sink of a private desktop: what its loudspeaker would play.
    pub(super) fn on_sink(desk: &Desk, rate: u32) -> anyhow::Result<Self> {
        Self::on(desk, rate, SINK, "monitor")
    }

    /// Records one node: what it gives to whatever it is linked to.
    pub(super) fn on_node(desk: &Desk, rate: u32, node: &str) -> anyhow::Result<Self> {
        Self::on(desk, rate, node, "output")
    }

    fn on(desk: &Desk, rate: u32, node: &str, ports: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no directory for a recording")?;
        let file = folder.path().join("heard.wav");
        let mut command = desk.command("pw-record");
        command
            .args(["-P", &format!("{{ node.name = {EAR} node.autoconnect = false }}")])
            .args(["--format", "s16", "--channels", "2", "--rate", &rate.to_string()])
            .arg(&file);
        let ear = Self { program: Program::start(&mut command)?, file, _folder: folder };
        desk.link(node, ports, EAR)?;
        Ok(ear)
    }

    /// Everything that was recorded.
    pub(super) fn finish(mut self) -> anyhow::Result<Vec<Frame>> {
        self.program.end();
        let file = File::open(&self.file).context("nothing was recorded")?;
        let (_, frames) = read_wav(BufReader::new(file)).context("the recording can't be read")?;
        Ok(frames)
    }
}

/// Speaks into the microphone of a private desktop until it is dropped.
pub(super) struct Mouth {
    _program: Program,
    _folder: tempfile::TempDir,
}

impl Mouth {
    pub(super) fn say(desk: &Desk, rate: u32, frames: &[Frame]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no directory for a sound")?;
        let file = folder.path().join("said.wav");
        // Until both channels are linked nothing is said that could be heard by half.
        let mut said = vec![[0, 0]; rate as usize / 2];
        said.extend(frames);
        write_wav(File::create(&file)?, rate, &said).context("a sound can't be written")?;
        let mut command = desk.command("pw-play");
        command.args(["-P", &format!("{{ node.name = {MOUTH} node.autoconnect = false }}")]).arg(&file);
        let program = Program::start(&mut command)?;
        desk.link(MOUTH, "output", SOURCE)?;
        Ok(Self { _program: program, _folder: folder })
    }
}

#[cfg(test)]
mod tests {
    use vsnd_bridge::sim::signal::{TestSignal, compare};

    use super::*;

    #[test]
    fn what_is_said_on_a_private_desk_is_heard_there() {
        let desk = Desk::choose(true, 48_000).unwrap();
        let said = TestSignal::new(3).frames(10 * 48_000);
        let mouth = Mouth::say(&desk, 48_000, &said).unwrap();
        let ear = Ear::on(&desk, 48_000, SOURCE, "capture").unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        drop(mouth);
        let heard = ear.finish().unwrap();
        let report = compare(&heard, &[said]).remove(0);
        // A busy machine may cost the recorder a cycle, which is no fault of the desk's.
        assert!(report.heard > 10_000 && report.corrupt == 0, "{report}");
    }
}
