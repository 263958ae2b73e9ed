//! What a later process has to know of a stream to take it over: fourteen numbers in a page of its own, and the guest's
//! volume of each channel.
//!
//! The page is a file's in the runtime directory, mapped: what is stored there outlives the process however it ends, at the
//! price of a store to memory. Each number is one word, and each group of them is believed or not by a word that is stored
//! last and taken back first, so that a death at any instant leaves a record that is whole or says that there is none.
//!
//! All of it is checked like a guest's own words before it is used: by [`Record::left`], and then by whatever checks an OPEN.

use std::sync::atomic::{AtomicU64, Ordering};

use vsnd_pw_module::{Counters, Frames, Marks, Octets, OutOfRange, Pages};

use crate::mixer::{GuestChannel, Millibels};
use crate::sndif::{FormatCode, Open, Transport};
use crate::xen::GrantRef;

/// "vsndrec" and the layout's number: a bridge that lays its records out otherwise believes none of these.
const LAYOUT: u64 = u64::from_be_bytes(*b"vsndrec\x02");
/// Positions beyond this many frames, which take 46 years to come to, are no positions.
const FARTHEST: Frames = Frames(1 << 48);

/// The words of a record; the guest's volumes lie behind them, and the ring's marks at the end.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Word {
    /// [`LAYOUT`] once the incarnation is whole.
    Layout,
    Uuid,
    UuidLow,
    Ring,
    Events,
    /// 1 while the stream is open and the rest is whole.
    IsOpen,
    Shape,
    Buffer,
    Period,
    Directory,
}

const WORDS: usize = Word::Directory as usize + 1;
/// As many as a stream can have.
const CHANNELS: usize = 255;
/// In the word of a channel's volume: it is muted. The word's low half is the attenuation, so that zero is full volume.
const MUTED: u64 = 1 << 32;

/// Which life of which guest's stream a record speaks of. Domains' numbers, grants and ports are given out anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// The domain's UUID; 0 where it has none.
    pub uuid: u128,
    /// What its frontend published.
    pub transport: Transport,
}

impl Incarnation {
    fn words(&self) -> [(Word, u64); 4] {
        let Transport { ring, ring_port, events, events_port } = self.transport;
        [
            (Word::Uuid, (self.uuid >> 64) as u64),
            (Word::UuidLow, self.uuid as u64),
            (Word::Ring, pair(ring.0, ring_port.0)),
            (Word::Events, pair(events.0, events_port.0)),
        ]
    }
}

/// What a bridge left of a stream that was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The OPEN: unchecked.
    pub open: Open,
    /// The channel's count of events at the OPEN.
    pub opened_at: u32,
}

/// Why a record isn't believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disbelief {
    /// No bridge has written it, or one with another layout.
    #[error("there is no record of it")]
    NoRecord,
    /// It speaks of a stream that is no more.
    #[error("the record is of another domain or connection")]
    AnotherIncarnation,
    /// No bridge writes such.
    #[error("the record makes no sense")]
    Nonsense,
}

/// One stream's record.
#[derive(Default)]
pub struct Record {
    words: Counters<WORDS>,
    volumes: Counters<CHANNELS>,
    /// `None` where nothing outlives the process.
    pages: Option<Pages>,
}

impl Record {
    /// What a record needs of a page.
    pub const OCTETS: usize = Self::MARKS + Marks::OCTETS;
    const MARKS: usize = 8 * (WORDS + CHANNELS);

    /// The record at the beginning of `pages`, as it stands there.
    ///
    /// # Errors
    /// [`OutOfRange`] when the mapping is too short or not writable.
    pub fn of(pages: Pages) -> Result<Self, OutOfRange> {
        let (words, volumes) = (Counters::of(&pages, 0)?, Counters::of(&pages, 8 * WORDS)?);
        Marks::of(&pages, Self::MARKS)?;
        Ok(Self { words, volumes, pages: Some(pages) })
    }

    fn set(&self, word: Word, value: u64) {
        self.words[word as usize].store(value, Ordering::SeqCst);
    }

    fn get(&self, word: Word) -> u64 {
        self.words[word as usize].load(Ordering::SeqCst)
    }

    /// How far the stream's ring has come, as the record has it.
    pub fn marks(&self) -> Marks {
        self.pages.as_ref().and_then(|pages| Marks::of(pages, Self::MARKS).ok()).unwrap_or_default()
    }

    /// What the guest says of its channels, from the first one; of those that are not told it said nothing.
    pub fn set_guest(&self, channels: &[GuestChannel]) {
        let nothing = std::iter::repeat(GuestChannel::default());
        for (word, channel) in self.volumes.iter().zip(channels.iter().copied().chain(nothing)) {
            let attenuation = u64::from(channel.volume.get().unsigned_abs());
            word.store(attenuation | if channel.muted { MUTED } else { 0 }, Ordering::SeqCst);
        }
    }

    /// What the guest said of its channels, up to the last one of which it said anything.
    pub fn guest(&self) -> Vec<GuestChannel> {
        let channel = |word: &AtomicU64| {
            let word = word.load(Ordering::SeqCst);
            let volume = Millibels::nearest(0i32.saturating_sub_unsigned(word as u32));
            GuestChannel { volume, muted: word & MUTED != 0 }
        };
        let mut channels: Vec<_> = self.volumes.iter().map(channel).collect();
        let said = channels.iter().rposition(|channel| *channel != GuestChannel::default());
        channels.truncate(said.map_or(0, |last| last + 1));
        channels
    }

    /// A frontend was connected anew, and has nothing open yet.
    pub fn begin(&self, incarnation: &Incarnation) {
        self.forget();
        self.set_guest(&[]);
        for (word, value) in incarnation.words() {
            self.set(word, value);
        }
        self.set(Word::Layout, LAYOUT);
    }

    /// There is nothing to take over any more.
    pub fn forget(&self) {
        self.set(Word::Layout, 0);
        self.closed();
    }

    /// OPEN was accepted, when the channel's count of events was at `opened_at`. The ring's marks are set before.
    pub fn opened(&self, open: &Open, opened_at: u32) {
        self.set(Word::Shape, pair(open.rate, u32::from(open.format.0) << 8 | u32::from(open.channels)));
        self.set(Word::Buffer, open.buffer.0);
        self.set(Word::Period, open.period.0);
        self.set(Word::Directory, pair(open.directory.0, opened_at));
        self.set(Word::IsOpen, 1);
    }

    /// CLOSE.
    pub fn closed(&self) {
        self.set(Word::IsOpen, 0);
    }

    /// What was left of `incarnation`; `None` when it had nothing open.
    ///
    /// # Errors
    /// [`Disbelief`].
    pub fn left(&self, incarnation: &Incarnation) -> Result<Option<Left>, Disbelief> {
        if self.get(Word::Layout) != LAYOUT {
            return Err(Disbelief::NoRecord);
        }
        if incarnation.words().iter().any(|(word, value)| self.get(*word) != *value) {
            return Err(Disbelief::AnotherIncarnation);
        }
        match self.get(Word::IsOpen) {
            0 => return Ok(None),
            1 => (),
            _ => return Err(Disbelief::Nonsense),
        }
        let ((rate, shape), (directory, opened_at)) =
            (halves(self.get(Word::Shape)), halves(self.get(Word::Directory)));
        let [0, 0, format, channels] = shape.to_be_bytes() else { return Err(Disbelief::Nonsense) };
        let marks = self.marks();
        let position = marks.cursor().position;
        if position > FARTHEST || marks.written() > FARTHEST || marks.told() > position {
            return Err(Disbelief::Nonsense);
        }
        let (buffer, period) = (Octets(self.get(Word::Buffer)), Octets(self.get(Word::Period)));
        let directory = GrantRef(directory);
        let open = Open { rate, format: FormatCode(format), channels, buffer, directory, period };
        Ok(Some(Left { open, opened_at }))
    }
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::xen::RemotePort;

    const INCARNATION: Incarnation = Incarnation {
        uuid: 0xab8a_8e6e_3d4c_4d6f_9f6e_2f9c_8b1d_7a55,
        transport: Transport {
            ring: GrantRef(8),
            ring_port: RemotePort(3),
            events: GrantRef(9),
            events_port: RemotePort(4),
        },
    };
    const OPEN: Open = Open {
        rate: 48_000,
        format: FormatCode(2),
        channels: 2,
        buffer: Octets(19_200),
        directory: GrantRef(u32::MAX),
        period: Octets(1_920),
    };

    fn page() -> Pages {
        Pages::anonymous(4096).unwrap()
    }

    #[test]
    fn what_was_open_is_found_by_the_next_process_and_what_was_closed_is_not() {
        let page = page();
        let record = Record::of(page.share()).unwrap();
        let next = || Record::of(page.share()).unwrap().left(&INCARNATION);
        assert_eq!(next(), Err(Disbelief::NoRecord));
        record.begin(&INCARNATION);
        assert_eq!(next(), Ok(None));
        record.opened(&OPEN, 7);
        assert_eq!(next(), Ok(Some(Left { open: OPEN, opened_at: 7 })));
        record.closed();
        assert_eq!(next(), Ok(None));
        record.opened(&OPEN, 8);
        record.forget();
        assert_eq!(next(), Err(Disbelief::NoRecord));
    }

    #[test]
    fn what_a_guest_said_of_its_channels_is_found_by_the_next_process() {
        let page = page();
        let next = || Record::of(page.share()).unwrap().guest();
        let record = Record::of(page.share()).unwrap();
        record.begin(&INCARNATION);
        assert_eq!(next(), []);
        let quiet = GuestChannel { volume: Millibels::nearest(-6_021), muted: false };
        let muted = GuestChannel { volume: Millibels::SILENCE, muted: true };
        record.set_guest(&[quiet, GuestChannel::default(), muted, GuestChannel::default()]);
        assert_eq!(next(), [quiet, GuestChannel::default(), muted]);
        record.closed();
        assert_eq!(next().len(), 3);
        record.begin(&INCARNATION);
        assert_eq!(next(), [], "a guest that connects anew sets anew");
    }

    #[test]
    fn a_record_of_another_incarnation_is_not_believed() {
        let record = Record::of(page()).unwrap();
        record.begin(&INCARNATION);
        record.opened(&OPEN, 0);
        let Transport { ring, ring_port, events, events_port } = INCARNATION.transport;
        let others = [
            Incarnation { uuid: INCARNATION.uuid ^ 1 << 64, ..INCARNATION },
            Incarnation { uuid: INCARNATION.uuid ^ 1, ..INCARNATION },
            Incarnation {
                transport: Transport { ring: GrantRef(ring.0 + 1), ..INCARNATION.transport },
                ..INCARNATION
            },
            Incarnation {
                transport: Transport { ring_port: RemotePort(ring_port.0 + 1), ..INCARNATION.transport },
                ..INCARNATION
            },
            Incarnation {
                transport: Transport { events: GrantRef(events.0 + 1), ..INCARNATION.transport },
                ..INCARNATION
            },
            Incarnation {
                transport: Transport { events_port: RemotePort(events_port.0 + 1), ..INCARNATION.transport },
                ..INCARNATION
            },
        ];
        for other in others {
            assert_eq!(record.left(&other), Err(Disbelief::AnotherIncarnation), "{other:?}");
        }
    }

    #[test]
    fn a_death_between_any_two_words_leaves_a_whole_record_or_none() {
        // The words in the order in which they are stored: whatever was there before, a prefix of them is never believed
        // for more than what came before.
        let page = page();
        let record = Record::of(page.share()).unwrap();
        record.begin(&INCARNATION);
        record.opened(&OPEN, 1);
        record.closed();
        for (word, value) in [(Word::Shape, 0), (Word::Buffer, 1), (Word::Period, 2), (Word::Directory, 3)] {
            record.set(word, value);
            assert_eq!(record.left(&INCARNATION), Ok(None));
        }
        record.forget();
        for (word, value) in INCARNATION.words() {
            record.set(word, value);
            assert_eq!(record.left(&INCARNATION), Err(Disbelief::NoRecord));
        }
    }

    proptest! {
        #[test]
        fn no_content_of_a_file_is_more_than_disbelieved(words in proptest::collection::vec(prop_oneof![Just(0), Just(1), any::<u64>()], Record::OCTETS / 8), own: bool) {
            let page = page();
            for (index, word) in words.iter().enumerate() {
                page.write(8 * index, &word.to_ne_bytes()).unwrap();
            }
            let record = Record::of(page).unwrap();
            if own {
                record.set(Word::Layout, LAYOUT);
                INCARNATION.words().iter().for_each(|(word, value)| record.set(*word, *value));
            }
            if let Ok(Some(_)) = record.left(&INCARNATION) {
                let marks = record.marks();
                prop_assert!(marks.cursor().position <= FARTHEST && marks.told() <= marks.cursor().position);
            }
            prop_assert!(record.guest().iter().all(|channel| channel.volume <= Millibels::FULL));
        }
    }
}
