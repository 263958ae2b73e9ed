//! Rings with a known sound in them, and what a server tells of their nodes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a part of tests

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vsnd_pw_module::{
    Client, Direction, Frames, NodeEvent, NodeSpec, NodeState, Octets, Pages, PcmRing, Role, SampleFormat,
    ServerEvent, ServerInfo, StreamFormat, UserVolume, VolumeEvent,
};

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a server tells.
pub struct Events(Receiver<ServerEvent>);

impl Events {
    /// The events, and what a server is to be started with.
    pub fn new() -> (impl Fn(ServerEvent) + Send + 'static, Self) {
        let (sender, events) = channel();
        (move |event| drop(sender.send(event)), Self(events))
    }

    /// Waits for an event that `wanted` takes.
    pub fn event<T>(&self, what: &str, mut wanted: impl FnMut(&ServerEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    if let Some(found) = wanted(&event) {
                        return found;
                    }
                    seen.push(event);
                }
                Err(_) => panic!("no {what} within {PATIENCE:?}; seen: {seen:?}"),
            }
        }
    }

    /// What was told and nobody waited for.
    pub fn rest(&self) -> Vec<ServerEvent> {
        self.0.try_iter().collect()
    }

    /// Waits until the server answered.
    pub fn connected(&self) -> ServerInfo {
        self.event("connection", |event| match event {
            ServerEvent::Connected(info) => Some(info.clone()),
            _ => None,
        })
    }

    /// Waits until the server went away.
    pub fn lost(&self) {
        self.event("end of the connection", |event| matches!(event, ServerEvent::Lost(_)).then_some(()));
    }

    /// Waits until the node `name` has a state that `wanted` takes.
    pub fn node<T>(&self, name: &str, mut wanted: impl FnMut(&NodeState) -> Option<T>) -> T {
        self.event("state of the node", |event| match event {
            ServerEvent::Node(NodeEvent { node, state, .. }) if node == name => wanted(state),
            _ => None,
        })
    }

    /// Waits until the user's volume of the node `name` is `wanted`.
    pub fn volume(&self, name: &str, wanted: &[f32], muted: bool) {
        let near = |volume: &UserVolume| {
            let channels = volume.channels.iter().zip(wanted);
            volume.channels.len() == wanted.len()
                && channels.into_iter().all(|(is, wanted)| (is - wanted).abs() < 1e-3)
        };
        self.event(&format!("volume {wanted:?}, muted {muted}"), |event| match event {
            ServerEvent::Volume(VolumeEvent { node, volume, .. }) if node == name => {
                (near(volume) && volume.muted == muted).then_some(())
            }
            _ => None,
        });
    }

    /// Waits until the node `name` runs; its number.
    pub fn running(&self, name: &str) -> u32 {
        self.node(name, |state| match state {
            NodeState::Running { id } => Some(*id),
            NodeState::Failed(text) => panic!("{name}: {text}"),
            _ => None,
        })
    }
}

/// Waits until `found` is.
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "not {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a guest plays in both channels where it is heard how loud it is.
pub const LEVEL: i16 = 16_000;

/// [`LEVEL`] in two channels times these factors, of a full scale of 1.
pub fn levels(factors: [f32; 2]) -> [f32; 2] {
    factors.map(|factor| factor * f32::from(LEVEL) / 32_768.0)
}

/// The graph ran without one of its nodes: the machine was too busy, and nothing can be said of what was heard.
#[derive(Debug)]
pub struct Busy(pub String);

/// Makes attempts until the machine kept pace with one.
pub fn keeping_pace(attempt: impl Fn() -> Result<(), Busy>) {
    let mut busy = Vec::new();
    for _ in 0..5 {
        match attempt() {
            Ok(()) => return,
            Err(Busy(text)) => busy.push(text),
        }
    }
    panic!("cycles were missed in every attempt, by the bridge or a machine too busy to tell: {busy:?}");
}

/// What a guest named `domain` asks for.
pub fn spec(domain: &str, direction: Direction, format: StreamFormat) -> NodeSpec {
    let (way, media_name) = match direction {
        Direction::Playback => ("play", "Speakers"),
        Direction::Capture => ("rec", "Headset microphone"),
    };
    NodeSpec {
        client: Client { name: domain.to_owned(), id: format!("id-of-{domain}"), domid: 7 },
        name: format!("vsnd.{domain}.0.0.{way}"),
        description: format!("{domain}: card 0"),
        media_name: media_name.to_owned(),
        restore_key: format!("key-of-{domain}-{way}"),
        role: Role::Stream,
        format,
        direction,
        period: Frames(480),
        target: None,
    }
}

/// Two channels at 48000 frames a second.
pub fn stereo(sample: SampleFormat) -> StreamFormat {
    StreamFormat::new(sample, 2, 48_000).unwrap()
}

/// A ring of `buffer` frames at rest, with nothing in it.
pub fn ring(direction: Direction, format: StreamFormat, buffer: u64) -> Arc<PcmRing> {
    let len = format.octets(Frames(buffer)).0.next_multiple_of(4096);
    Arc::new(PcmRing::new(direction, format, Frames(buffer), Pages::anonymous(len as usize).unwrap()))
}

/// Noise that names its place: sample `index` of a sound in 24 bits. Never so quiet that silence could be taken for it.
pub fn noise(index: u64) -> i32 {
    let mut x = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let value = ((x >> 40) as i32) - 0x80_0000;
    if value.abs() < 0x2_0000 { 0x12_3456 } else { value }
}

/// A sample of 24 bits as octets of a format.
fn encode(out: &mut Vec<u8>, sample: SampleFormat, value: i32) {
    let float = value as f32 / 8_388_608.0;
    match sample {
        SampleFormat::S8 => out.push((value >> 16) as u8),
        SampleFormat::U8 => out.push(((value >> 16) + 0x80) as u8),
        SampleFormat::S16Le => out.extend(((value >> 8) as i16).to_le_bytes()),
        SampleFormat::S16Be => out.extend(((value >> 8) as i16).to_be_bytes()),
        SampleFormat::S24In32Le => out.extend(value.to_le_bytes()),
        SampleFormat::S24In32Be => out.extend(value.to_be_bytes()),
        SampleFormat::S32Le => out.extend((value << 8).to_le_bytes()),
        SampleFormat::S32Be => out.extend((value << 8).to_be_bytes()),
        SampleFormat::F32Le => out.extend(float.to_le_bytes()),
        SampleFormat::F32Be => out.extend(float.to_be_bytes()),
        SampleFormat::F64Le => out.extend(f64::from(float).to_le_bytes()),
        SampleFormat::MuLaw | SampleFormat::ALaw => out.push(loud(value)),
        SampleFormat::F64Be => out.extend(f64::from(float).to_be_bytes()),
        SampleFormat::U16Le => out.extend((((value >> 8) + 0x8000) as u16).to_le_bytes()),
        SampleFormat::U16Be => out.extend((((value >> 8) + 0x8000) as u16).to_be_bytes()),
        SampleFormat::U24In32Le => out.extend((value + 0x80_0000).to_le_bytes()),
        SampleFormat::U24In32Be => out.extend((value + 0x80_0000).to_be_bytes()),
        SampleFormat::U32Le => out.extend((((value + 0x80_0000) as u32) << 8).to_le_bytes()),
        SampleFormat::U32Be => out.extend((((value + 0x80_0000) as u32) << 8).to_be_bytes()),
    }
}

/// A sample of 24 bits that went through a format, as a sink hears it.
pub fn heard(sample: SampleFormat, value: i32) -> f32 {
    let kept = match sample {
        SampleFormat::MuLaw => return f32::from(mu_law(loud(value))) / 32_768.0,
        SampleFormat::ALaw => return f32::from(a_law(loud(value))) / 32_768.0,
        _ => match sample.octets() {
            1 => value & !0xffff,
            2 => value & !0xff,
            _ => value,
        },
    };
    kept as f32 / 8_388_608.0
}

/// A code of A-law or mu-law in their upper segments.
fn loud(value: i32) -> u8 {
    (value >> 16) as u8 & 0xbf
}

/// G.711, from its tables.
fn mu_law(octet: u8) -> i16 {
    let octet = !octet;
    let segment = (octet & 0x70) >> 4;
    let magnitude = ((i16::from(octet & 0xf) << 3) + 0x84) << segment;
    if octet & 0x80 != 0 { 0x84 - magnitude } else { magnitude - 0x84 }
}

/// G.711, from its tables.
fn a_law(octet: u8) -> i16 {
    let octet = octet ^ 0x55;
    let segment = (octet & 0x70) >> 4;
    let base = i16::from(octet & 0xf) << 4;
    let magnitude = match segment {
        0 => base + 8,
        _ => (base + 0x108) << (segment - 1),
    };
    if octet & 0x80 != 0 { magnitude } else { -magnitude }
}

/// Puts the noise of frames `from..to` into the ring as a guest would: copy, then WRITE. Position `from` of the run lies
/// at ring offset `from` modulo the buffer.
pub fn write(ring: &PcmRing, from: u64, to: u64) {
    let buffer = ring.buffer().0;
    let mut at = from;
    while at < to {
        let offset = at % buffer;
        let end = to.min(at - offset + buffer);
        put(ring, offset, at, end - at);
        at = end;
    }
}

/// Puts the `frames` frames of the noise from `first` into the ring at `offset`.
pub fn put(ring: &PcmRing, offset: u64, first: u64, frames: u64) {
    let format = ring.format();
    ring.write(format.octets(Frames(offset)), &octets(format, first, first + frames)).unwrap();
    ring.wrote(Frames(offset), Frames(frames), ring.cursor().position);
}

/// Frames `from..to` of the noise as they lie in a ring.
pub fn octets(format: StreamFormat, from: u64, to: u64) -> Vec<u8> {
    let channels = u64::from(format.channels());
    let mut data = Vec::new();
    for index in from * channels..to * channels {
        encode(&mut data, format.sample(), noise(index));
    }
    data
}

/// The samples of frames `from..to` of the noise as a sink hears them.
pub fn expected(format: StreamFormat, from: u64, to: u64) -> Vec<f32> {
    let channels = u64::from(format.channels());
    (from * channels..to * channels).map(|index| heard(format.sample(), noise(index))).collect()
}

/// Waits until the ring has been read or filled up to `position`.
pub fn passed(ring: &PcmRing, position: u64) {
    eventually("at the position", || (ring.cursor().position.0 >= position).then_some(()));
}

/// Reads the whole ring.
pub fn contents(ring: &PcmRing) -> Vec<u8> {
    let mut all = vec![0; ring.format().octets(ring.buffer()).0 as usize];
    ring.read(Octets(0), &mut all).unwrap();
    all
}

/// A guest that keeps its ring full of noise from frame 0 on, until it is dropped.
pub struct Feeder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feeder {
    /// Fills the ring and goes on.
    pub fn new(ring: &Arc<PcmRing>) -> Self {
        Self::with(ring, write)
    }

    /// Fills a ring of 16-bit samples with one `sample`, and goes on.
    pub fn steady(ring: &Arc<PcmRing>, sample: i16) -> Self {
        let octets = ring.format().octets(ring.buffer()).0 as usize;
        ring.write(Octets(0), &sample.to_le_bytes().repeat(octets / 2)).unwrap();
        Self::with(ring, |ring, from, to| {
            let offset = Frames(from % ring.buffer().0);
            ring.wrote(offset, Frames(to - from), ring.cursor().position);
        })
    }

    fn with(ring: &Arc<PcmRing>, write: fn(&PcmRing, u64, u64)) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, ring) = (Arc::clone(&stop), Arc::clone(ring));
        let mut written = ring.buffer().0;
        write(&ring, 0, written);
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                let end = ring.cursor().position.0 + ring.buffer().0;
                write(&ring, written, end);
                written = written.max(end);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}
