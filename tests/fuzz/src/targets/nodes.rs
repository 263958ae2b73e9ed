//! What a guest makes of its card's XenStore directory: values that are odd, huge or no text, nodes gone and nodes too many.

use arbitrary::Arbitrary;
use vsnd_bridge::sndif::keys;

const LEVELS: [&str; 12] =
    ["", "/0", "/0/0", "/0/1", "/1", "/1/0", "/31/0", "/32", "/0/8", "/00", "/4294967296", "/-1/0"];

const KEYS: [&str; 19] = [
    keys::CHANNELS_MIN,
    keys::CHANNELS_MAX,
    keys::SAMPLE_RATES,
    keys::SAMPLE_FORMATS,
    keys::BUFFER_SIZE,
    keys::TYPE,
    "unique-id",
    keys::NAME,
    "short-name",
    "long-name",
    keys::RING_REF,
    keys::EVENT_CHANNEL,
    keys::EVT_RING_REF,
    keys::EVT_EVENT_CHANNEL,
    keys::VERSION,
    keys::STATE,
    keys::BACKEND,
    "2",
    "x",
];

const VALUES: [&[u8]; 20] = [
    b"",
    b"p",
    b"c",
    b"0",
    b"1",
    b"2",
    b"8",
    b"255",
    b"256",
    b"128",
    b"65536",
    b"4294967295",
    b"4294967296",
    b"44100,48000",
    b"48000,,1",
    b"s16_le,s32_le,F32_LE,gsm,x",
    b"s24_3le",
    b"\xff\xfe",
    b"\x1b]0;owned\x07\r\n",
    "\u{202e}\u{2028}\u{feff}é".as_bytes(),
];

/// What a guest writes to a node.
#[derive(Debug, Arbitrary)]
pub enum Value {
    Known(u8),
    Number(u32),
    Raw([u8; 8]),
    /// Up to a page and more of the same.
    Long {
        octets: [u8; 3],
        times: u16,
    },
    /// A list of numbers or names, as long as a value can be.
    List {
        first: u16,
        items: u16,
    },
}

impl Value {
    fn octets(&self) -> Vec<u8> {
        match self {
            Self::Known(which) => VALUES[usize::from(*which) % VALUES.len()].to_vec(),
            Self::Number(number) => number.to_string().into_bytes(),
            Self::Raw(octets) => octets.to_vec(),
            Self::Long { octets, times } => octets.repeat(usize::from(times % 1400)),
            Self::List { first, items } => {
                let items = (0..items % 700).map(|item| first.wrapping_add(item).to_string());
                items.collect::<Vec<_>>().join(",").into_bytes()
            }
        }
    }
}

/// What a guest does to its nodes.
#[derive(Debug, Arbitrary)]
pub enum Edit {
    Write {
        level: u8,
        key: u8,
        value: Value,
    },
    Remove {
        level: u8,
        key: u8,
    },
    /// Sub-directories.
    Children {
        level: u8,
        count: u8,
    },
}

impl Edit {
    /// The nodes of the card at `frontend` that change, with their new values; `None` for a node that goes.
    pub fn nodes(&self, frontend: &str) -> Vec<(String, Option<Vec<u8>>)> {
        let level = |level: u8| LEVELS[usize::from(level) % LEVELS.len()];
        let node = |at, key: u8| format!("{frontend}{}/{}", level(at), KEYS[usize::from(key) % KEYS.len()]);
        match self {
            Self::Write { level, key, value } => vec![(node(*level, *key), Some(value.octets()))],
            Self::Remove { level, key } => vec![(node(*level, *key), None)],
            Self::Children { level: at, count } => (0..count % 64)
                .map(|child| (format!("{frontend}{}/{child}/x", level(*at)), Some(Vec::new())))
                .collect(),
        }
    }
}
