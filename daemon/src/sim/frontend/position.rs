//! How the Linux driver turns positions into its pointer and into elapsed periods.

use vsnd_pw_module::{Frames, Octets};

/// Which guests: before or since the change of May 2026 to the driver's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Ids of events run on for the life of the channel.
    Until2026,
    /// Ids of events begin anew with every OPEN, and what lies in the page then is dropped.
    Since2026,
}

impl Kernel {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Until2026, Self::Since2026];
}

/// The width of a long in the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Word {
    /// i386, arm.
    Bits32,
    /// amd64, arm64.
    #[default]
    Bits64,
}

impl Word {
    /// Cuts a number to the word's width.
    fn cut(self, value: u64) -> u64 {
        match self {
            Self::Bits32 => value & u64::from(u32::MAX),
            Self::Bits64 => value,
        }
    }

    /// The greatest signed number.
    pub(super) fn signed_max(self) -> u64 {
        match self {
            Self::Bits32 => 0x7fff_ffff,
            Self::Bits64 => 0x7fff_ffff_ffff_ffff,
        }
    }
}

/// What positions are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// The period.
    pub period: Frames,
    /// The whole ring.
    pub buffer: Frames,
    /// Octets that one frame takes.
    pub frame_octets: u32,
}

/// The driver's own pointer. All numbers wrap as the guest's words do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    word: Word,
    /// The backend's position, as last told.
    backend: u64,
    /// The pointer: a place in the ring.
    pointer: u64,
    /// Frames since the last period elapsed; 32 bits in every guest.
    since_period: u32,
}

impl Position {
    /// At the beginning.
    pub fn new(word: Word) -> Self {
        Self { word, ..Self::default() }
    }

    /// Where the hardware is in the ring.
    pub fn pointer(&self) -> Frames {
        Frames(self.pointer)
    }

    fn frames(&self, octets: Octets, frame_octets: u32) -> u64 {
        // The driver counts in bits: a 32-bit guest wraps at 2^32 of them.
        let bits = self.word.cut(self.word.cut(octets.0).wrapping_mul(8));
        bits / (u64::from(frame_octets) * 8)
    }

    /// A CUR_POS arrives. Whether a period has elapsed: "more frames than a period", so not on the boundary itself.
    pub fn moved_to(&mut self, position: Octets, by: Measure) -> bool {
        let backend = self.frames(position, by.frame_octets);
        let delta = self.word.cut(backend.wrapping_sub(self.backend));
        self.backend = backend;
        self.pointer = self.word.cut(self.pointer.wrapping_add(delta)) % by.buffer.0;
        // Cut to 32 bits: the driver's count of played frames is an atomic_t.
        self.since_period = self.since_period.wrapping_add(delta as u32);
        let elapsed = u64::from(self.since_period) > by.period.0;
        if elapsed {
            self.since_period = (u64::from(self.since_period) % by.period.0) as u32;
        }
        elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn measure(buffer: u64) -> Measure {
        Measure { period: Frames(1024), buffer: Frames(buffer), frame_octets: 4 }
    }

    fn elapsed(positions: impl Iterator<Item = u64>) -> (usize, Position) {
        let mut position = Position::default();
        let count = positions.filter(|frames| position.moved_to(Octets(frames * 4), measure(4096))).count();
        (count, position)
    }

    fn pointer(position: &mut Position, frames: u64, buffer: u64) -> u64 {
        position.moved_to(Octets(frames * 4), measure(buffer));
        position.pointer().0
    }

    #[test]
    fn a_position_on_the_boundary_wakes_only_at_every_second_period() {
        assert_eq!(elapsed((1..=10).map(|n| n * 1024)).0, 5);
        assert_eq!(elapsed((1..=10).map(|n| n * 1024 + 1)).0, 10);
        assert_eq!(elapsed((1..=20).map(|n| n * 512)).0, 9);
    }

    #[test]
    fn the_last_period_of_a_sound_elapses_one_frame_past_its_end() {
        let (_, mut position) = elapsed((1..10).map(|n| n * 1024 + 1));
        assert!(!position.moved_to(Octets(10 * 1024 * 4), measure(4096)));
        assert!(position.moved_to(Octets((10 * 1024 + 1) * 4), measure(4096)));
    }

    #[test]
    fn after_a_stop_the_pointer_is_askew_unless_whole_buffers_are_told() {
        let mut position = Position::default();
        assert_eq!(pointer(&mut position, 5000, 4096), 904);
        let mut aligned = position;
        assert_eq!(pointer(&mut position, 5256, 4096), 1160, "the core begins again at 0 and believes 1160");
        assert_eq!(pointer(&mut aligned, 8192, 4096), 0);
        assert_eq!(pointer(&mut aligned, 8192 + 256, 4096), 256);
    }

    #[test]
    fn a_position_that_goes_back_is_right_only_in_rings_of_a_power_of_two() {
        for (buffer, back) in [(4096, 0), (17_640, 10_096), (6000, 3616)] {
            let mut position = Position::default();
            pointer(&mut position, 5000, buffer);
            pointer(&mut position, 23_000, buffer);
            assert_eq!(pointer(&mut position, 0, buffer), back);
        }
    }

    #[test]
    fn a_32_bit_guest_wraps_after_46_minutes() {
        // A ring of a power of two comes out right, another doesn't.
        for (buffer, pointer, expected) in [(16_384, 1, 1), (12_000, 11_297, 9729)] {
            let mut position = Position::new(Word::Bits32);
            let wrapped = (1..1_000_000u64).map(|n| n * 1024 + 1).find(|frames| {
                let before = position.backend;
                position.moved_to(Octets(frames * 4), measure(buffer));
                position.backend < before
            });
            let frames = wrapped.unwrap();
            assert_eq!(frames / 48_000, 2796, "seconds at 48 kHz");
            assert_eq!((position.pointer().0, frames % buffer), (pointer, expected));
        }
    }

    proptest! {
        /// Whatever the ring, a position that only grows by less than a ring is followed exactly.
        #[test]
        fn the_pointer_is_the_position_in_the_ring(buffer in 2u64..100_000, steps in proptest::collection::vec(0u64..5000, 1..200)) {
            let mut position = Position::default();
            let mut frames = 0;
            for step in steps {
                frames += step.min(buffer);
                prop_assert_eq!(pointer(&mut position, frames, buffer), frames % buffer);
            }
        }
    }
}
