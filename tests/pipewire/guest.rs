//! A ring with a known sound in it, and the server it is shown on.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use vsnd_pw_module::pipewire::PipeWireServer;
use vsnd_pw_module::pipewire::private::{Options, PrivateServer};
use vsnd_pw_module::{
    Client, Direction, Frames, Node, NodeEvent, NodeSpec, NodeState, Octets, Pages, PcmRing, Role,
    SampleFormat, ServerEvent, SoundServer, StreamFormat,
};

pub const PATIENCE: Duration = Duration::from_secs(10);

/// A private server, and the bridge's side of it.
pub struct Desk {
    pub private: PrivateServer,
    pub server: PipeWireServer,
    events: Receiver<ServerEvent>,
}

impl Desk {
    pub fn new(options: Options) -> Self {
        let private = PrivateServer::start(options).unwrap();
        let (sender, events) = channel();
        let send = move |event| drop(sender.send(event));
        let server = PipeWireServer::start(send, Some(private.remote())).unwrap();
        Self { private, server, events }
    }

    /// Waits for an event that `wanted` takes.
    pub fn event<T>(&self, what: &str, mut wanted: impl FnMut(&ServerEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
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

    /// Waits until the node `name` runs; its number.
    pub fn running(&self, name: &str) -> u32 {
        self.event("running node", |event| match event {
            ServerEvent::Node(NodeEvent { node, state: NodeState::Running { id }, .. }) if node == name => {
                Some(*id)
            }
            ServerEvent::Node(NodeEvent { node, state: NodeState::Failed(text), .. }) if node == name => {
                panic!("{name}: {text}")
            }
            _ => None,
        })
    }

    pub fn open(&self, spec: &NodeSpec, ring: &Arc<PcmRing>) -> Box<dyn Node> {
        self.server.open(spec.clone(), Arc::clone(ring)).unwrap()
    }
}

/// What a guest named `domain` asks for.
pub fn spec(domain: &str, direction: Direction, format: StreamFormat) -> NodeSpec {
    let way = if direction == Direction::Playback { "play" } else { "rec" };
    NodeSpec {
        client: Client { name: domain.to_owned(), id: format!("id-of-{domain}"), domid: 7 },
        name: format!("vsnd.{domain}.0.0.{way}"),
        description: format!("{domain}: card 0"),
        media_name: "Speakers".to_owned(),
        restore_key: format!("key-of-{domain}-{way}"),
        role: Role::Stream,
        format,
        direction,
        period: Frames(480),
    }
}

pub fn format(sample: SampleFormat) -> StreamFormat {
    StreamFormat::new(sample, 2, 48_000).unwrap()
}

pub fn ring(direction: Direction, format: StreamFormat, buffer: u64) -> Arc<PcmRing> {
    let len = format.octets(Frames(buffer)).0.next_multiple_of(4096);
    Arc::new(PcmRing::new(direction, format, Frames(buffer), Pages::anonymous(len as usize).unwrap()))
}

/// Noise that names its place: sample `index` of a sound, as 24 bits of which the 8 lowest are zero for 16-bit formats.
/// Never zero, so that silence can't be taken for it.
pub fn noise(index: u64) -> i32 {
    let mut x = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let value = ((x >> 40) as i32) - 0x80_0000;
    if value >> 8 == 0 { 0x12_3400 } else { value }
}

/// The noise as octets of a format.
pub fn encode(sample: SampleFormat, value: i32) -> Vec<u8> {
    match sample {
        SampleFormat::S8 => vec![(value >> 16) as u8],
        SampleFormat::U8 => vec![((value >> 16) + 0x80) as u8],
        SampleFormat::S16Le => ((value >> 8) as i16).to_le_bytes().to_vec(),
        SampleFormat::S16Be => ((value >> 8) as i16).to_be_bytes().to_vec(),
        SampleFormat::S24In32Le => value.to_le_bytes().to_vec(),
        SampleFormat::S24In32Be => value.to_be_bytes().to_vec(),
        SampleFormat::S32Le => (value << 8).to_le_bytes().to_vec(),
        SampleFormat::S32Be => (value << 8).to_be_bytes().to_vec(),
        SampleFormat::F32Le => (value as f32 / 8_388_608.0).to_le_bytes().to_vec(),
        SampleFormat::F32Be => (value as f32 / 8_388_608.0).to_be_bytes().to_vec(),
        SampleFormat::F64Le => (f64::from(value) / 8_388_608.0).to_le_bytes().to_vec(),
        SampleFormat::F64Be => (f64::from(value) / 8_388_608.0).to_be_bytes().to_vec(),
        other => panic!("no way to write {other:?}"),
    }
}

/// The noise as a sink hears it.
pub fn heard(sample: SampleFormat, value: i32) -> f32 {
    let kept = match sample.octets() {
        1 => value & !0xffff,
        2 => value & !0xff,
        _ => value,
    };
    kept as f32 / 8_388_608.0
}

/// Puts frames `from..to` of the noise into the ring as a guest would: copy, then WRITE.
pub fn write(ring: &PcmRing, from: u64, to: u64) {
    let format = ring.format();
    let channels = u64::from(format.channels());
    let mut at = from;
    while at < to {
        let offset = at % ring.buffer().0;
        let end = to.min(at - offset + ring.buffer().0);
        let data: Vec<u8> =
            (at * channels..end * channels).flat_map(|index| encode(format.sample(), noise(index))).collect();
        ring.write(format.octets(Frames(offset)), &data).unwrap();
        ring.wrote(Frames(offset), Frames(end - at), ring.cursor().position);
        at = end;
    }
}

/// The samples of frames `from..to` of the noise as a sink hears them.
pub fn expected(format: StreamFormat, from: u64, to: u64) -> Vec<f32> {
    let channels = u64::from(format.channels());
    (from * channels..to * channels).map(|index| heard(format.sample(), noise(index))).collect()
}

/// Waits until the ring has been read or filled up to `position`.
pub fn passed(ring: &PcmRing, position: u64) {
    let deadline = Instant::now() + PATIENCE;
    while ring.cursor().position.0 < position {
        assert!(Instant::now() < deadline, "at {:?} after {PATIENCE:?}, not at {position}", ring.cursor());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[allow(dead_code)]
pub fn octets(format: StreamFormat, frames: u64) -> Octets {
    format.octets(Frames(frames))
}
