//! The servers that rings are shown on.

use std::ops::Deref;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use vsnd_pw_module::pipewire::private::{Options, PrivateServer};
use vsnd_pw_module::pulse::PulseServer;
use vsnd_pw_module::{Direction, Frames, Node, NodeSpec, PcmRing, SampleFormat, SoundServer, StreamFormat};
use vsnd_tests::pipewire::{Endpoint, Sound};
use vsnd_tests::pulse::{PrivatePulse, Recorder, SINK};
use vsnd_tests::rings::{Busy, Events};

pub use vsnd_tests::rings::{
    PATIENCE, contents, eventually, expected, keeping_pace, octets, passed, put, ring, stereo, write,
};

/// Every sample format that there is.
pub const CARRIED: [SampleFormat; 20] = [
    SampleFormat::U8,
    SampleFormat::S16Le,
    SampleFormat::S16Be,
    SampleFormat::S24In32Le,
    SampleFormat::S24In32Be,
    SampleFormat::S32Le,
    SampleFormat::S32Be,
    SampleFormat::F32Le,
    SampleFormat::F32Be,
    SampleFormat::MuLaw,
    SampleFormat::ALaw,
    // carried as others
    SampleFormat::S8,
    SampleFormat::U16Le,
    SampleFormat::U16Be,
    SampleFormat::U24In32Le,
    SampleFormat::U24In32Be,
    SampleFormat::U32Le,
    SampleFormat::U32Be,
    SampleFormat::F64Le,
    SampleFormat::F64Be,
];

/// What speaks PulseAudio's protocol.
pub enum Private {
    Pulse(PrivatePulse),
    PipeWire(Box<PrivateServer>),
}

/// A private server, and the bridge's side of it.
pub struct Desk {
    /// Before the server: what it still plays is heard.
    pub server: PulseServer,
    pub private: Private,
    events: Events,
}

impl Desk {
    /// A real PulseAudio.
    pub fn pulse() -> Self {
        Self::on(Private::Pulse(PrivatePulse::start().unwrap()))
    }

    /// pipewire-pulse, with cycles long enough for a busy machine to keep pace.
    pub fn pipewire() -> Self {
        let options = Options { min_quantum: 1024, pulse: true, ..Options::default() };
        Self::on(Private::PipeWire(Box::new(PrivateServer::start(options).unwrap())))
    }

    /// Both, one after the other.
    pub fn both() -> impl Iterator<Item = Self> {
        [Self::pulse as fn() -> Self, Self::pipewire].into_iter().map(|start| start())
    }

    pub fn on(private: Private) -> Self {
        let address = match &private {
            Private::Pulse(pulse) => pulse.server(),
            Private::PipeWire(pipewire) => pipewire.pulse_server(),
        };
        let (send, events) = Events::new();
        let server = PulseServer::start(send, Some(address)).unwrap();
        let desk = Self { server, private, events };
        let info = desk.connected();
        assert_eq!(info.name, "PulseAudio");
        assert_eq!(info.version.contains("PipeWire"), !desk.is_pulse(), "{info:?}");
        desk
    }

    pub fn is_pulse(&self) -> bool {
        matches!(self.private, Private::Pulse(_))
    }

    pub fn open(&self, spec: &NodeSpec, ring: &Arc<PcmRing>) -> Box<dyn Node> {
        self.server.open(spec.clone(), Arc::clone(ring)).unwrap()
    }

    /// A command that finds this server and nothing else.
    pub fn command(&self, program: &str) -> Command {
        match &self.private {
            Private::Pulse(pulse) => pulse.command(program),
            Private::PipeWire(pipewire) => {
                let mut command = pipewire.command(program);
                command.env("PULSE_SERVER", pipewire.pulse_server());
                command
            }
        }
    }

    /// What a tool prints about this server.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).env("LC_ALL", "C").output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Listens to a sink.
    pub fn record(&self, sink: &str, channels: u8) -> Ear {
        match &self.private {
            Private::Pulse(pulse) => {
                Ear::Parec(Recorder::start(pulse.command("parec"), sink, channels).unwrap())
            }
            Private::PipeWire(pipewire) => {
                let remote = pipewire.remote();
                Ear::Endpoint(Endpoint::record_sink(&remote, sink, u32::from(channels), 48_000).unwrap())
            }
        }
    }

    /// Listens to the default sink.
    pub fn ear(&self) -> Ear {
        self.record(SINK, 2)
    }
}

impl Deref for Desk {
    type Target = Events;

    fn deref(&self) -> &Events {
        &self.events
    }
}

/// A recorder.
pub enum Ear {
    Parec(Recorder),
    Endpoint(Endpoint),
}

impl Ear {
    pub fn wait<T>(&self, what: &str, seen: impl FnMut(&Sound) -> Option<T>) -> T {
        match self {
            Self::Parec(recorder) => recorder.wait(PATIENCE, what, seen).unwrap(),
            Self::Endpoint(endpoint) => endpoint.wait(PATIENCE, what, seen).unwrap(),
        }
    }

    /// Waits until so many sounds were heard to their end.
    pub fn heard(&self, sounds: usize) {
        self.wait("the whole sound", |sound| (sound.ended >= sounds).then_some(()));
    }

    pub fn finish(self) -> Sound {
        match self {
            Self::Parec(recorder) => recorder.finish(),
            Self::Endpoint(endpoint) => endpoint.finish(),
        }
    }
}

/// Nothing can be said of what was heard if the recorder or the bridge couldn't keep pace.
pub fn kept_pace(sound: &Sound, rings: &[&PcmRing]) -> Result<(), Busy> {
    if !sound.gaps.is_empty() {
        return Err(Busy(format!("the recorder missed {:?}", sound.gaps)));
    }
    match rings.iter().map(|ring| ring.missed_cycles()).sum::<u64>() {
        0 => Ok(()),
        missed => Err(Busy(format!("the bridge was late {missed} times"))),
    }
}

/// What a guest named `domain` asks for: the longest latency there is, so that a busy machine keeps pace.
pub fn spec(domain: &str, direction: Direction, format: StreamFormat) -> NodeSpec {
    let period = Frames(u64::from(format.rate() / 20));
    NodeSpec { period, ..vsnd_tests::rings::spec(domain, direction, format) }
}

/// Fails unless the sound is what was heard, whole and once. pipewire-pulse doesn't tell of the cycles that it missed
/// itself, so a difference there only asks for another attempt.
pub fn judge(desk: &Desk, heard: &[f32], sound: &[f32], what: &str) -> Result<(), Busy> {
    if heard == sound {
        return Ok(());
    }
    if !desk.is_pulse() {
        return Err(Busy(format!("{what}: {} samples heard of {}", heard.len(), sound.len())));
    }
    let wrong = heard.iter().zip(sound).position(|(heard, sound)| heard != sound);
    let how = match wrong {
        _ if sound.ends_with(heard) => "only the end was heard".to_owned(),
        None => "only the beginning was heard, or more than was played".to_owned(),
        Some(at) => {
            let around = at..(at + 6).min(heard.len()).min(sound.len());
            format!("from sample {at}: {:?} instead of {:?}", &heard[around.clone()], &sound[around])
        }
    };
    panic!("{what}: {how}; {} samples heard, {} played", heard.len(), sound.len());
}

/// A ring for `seconds` of stereo in 16 bits.
pub fn simple_ring(direction: Direction, frames: u64) -> (StreamFormat, Arc<PcmRing>) {
    let format = stereo(SampleFormat::S16Le);
    (format, ring(direction, format, frames))
}

pub fn sleep(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}
