//! The desktop that the demo plays into: the user's own, or a private one. And the ears on it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vsnd_bridge::sim::signal::Frame;
use vsnd_pw_module::pipewire::endpoint::{Ear, Mouth, Recording};
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
    Private(Box<PrivateServer>),
}

impl Desk {
    /// The user's own desktop if it has a sink and no private one is asked for.
    pub(super) fn choose(private: bool, rate: u32) -> anyhow::Result<Self> {
        if !private && has_sink() {
            return Ok(Self::Own);
        }
        // Ctrl-C asks the demo to end, which then ends the server.
        let options = Options { rate, own_groups: true, ..Options::default() };
        let server = PrivateServer::start(options).context(
            "a private PipeWire can't be started; sudo apt-get install pipewire pipewire-bin wireplumber dbus",
        )?;
        Ok(Self::Private(Box::new(server)))
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
                let linked = self.command("pw-link").args([&from, &to]).output();
                let linked = linked.context("pw-link can't be started; sudo apt-get install pipewire-bin")?;
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

/// Records what a node gives.
pub(super) struct Listener(Ear);

impl Listener {
    /// Listens to the sink of a private desktop: what its loudspeaker would play.
    pub(super) fn on_sink(desk: &Desk, rate: u32, longest: Duration) -> anyhow::Result<Self> {
        Self::on(desk, rate, longest, SINK, "monitor")
    }

    /// Listens to one node: what it gives to whatever it is linked to.
    pub(super) fn on_node(desk: &Desk, rate: u32, longest: Duration, node: &str) -> anyhow::Result<Self> {
        Self::on(desk, rate, longest, node, "output")
    }

    fn on(desk: &Desk, rate: u32, longest: Duration, node: &str, ports: &str) -> anyhow::Result<Self> {
        let frames = longest.as_secs_f64() * f64::from(rate);
        let ear = Ear::new(desk.remote(), EAR, rate, frames as usize)?;
        desk.link(node, ports, EAR)?;
        Ok(Self(ear))
    }

    /// Everything that was heard.
    pub(super) fn finish(self) -> Recording {
        self.0.finish()
    }
}

/// Speaks into the microphone of a private desktop until it is dropped.
pub(super) struct Speaker {
    _mouth: Mouth,
}

impl Speaker {
    pub(super) fn say(desk: &Desk, rate: u32, frames: &[Frame]) -> anyhow::Result<Self> {
        // Until both channels are linked nothing is said that could be heard by half.
        let mut said = vec![[0, 0]; rate as usize / 2];
        said.extend(frames);
        let mouth = Mouth::new(desk.remote(), MOUTH, rate, said)?;
        desk.link(MOUTH, "output", SOURCE)?;
        Ok(Self { _mouth: mouth })
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
        let speaker = Speaker::say(&desk, 48_000, &said).unwrap();
        let ear = Listener::on(&desk, 48_000, Duration::from_secs(5), SOURCE, "capture").unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        drop(speaker);
        let heard = ear.finish();
        let report = compare(&heard.frames, &[said]).remove(0);
        // A busy machine may cost the speaker a cycle, which is no fault of the desk's.
        assert!(report.heard > 10_000 && report.corrupt == 0, "{report}");
    }
}
