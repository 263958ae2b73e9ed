//! Sounds whose every frame is known, and guests that play them.

use vsnd_bridge::sim::frontend::{HwParams, PcmHandle};
use vsnd_pw_module::Direction;

use super::machine::{Machine, Running, Tape};

/// Frames that count themselves, from 1: silence is no frame of it.
pub fn counting(frames: std::ops::Range<u32>) -> Vec<u8> {
    frames.flat_map(|frame| (frame + 1).to_le_bytes()).collect()
}

pub fn numbers(octets: &[u8]) -> Vec<u32> {
    octets.chunks_exact(4).map(|frame| u32::from_le_bytes(frame.try_into().unwrap())).collect()
}

pub fn open(guest: &Running, direction: Direction, period: u64, buffer: u64) -> PcmHandle {
    let pcm = guest.card.open(0, direction).unwrap();
    pcm.hw_params(HwParams::cd(period, buffer)).unwrap();
    pcm
}

pub fn write_all(pcm: &PcmHandle, mut data: &[u8]) {
    while !data.is_empty() {
        let written = pcm.write(data).unwrap();
        data = &data[written.0 as usize * 4..];
    }
}

pub fn check_clean(guest: &Running, machine: &Machine) {
    assert_eq!(guest.card.harm(), []);
    assert_eq!(machine.xen.deferred_grants(guest.domain.id()), 0, "memory was given up while mapped");
}

/// The frames that were heard, without silence.
pub fn heard(tape: &Tape) -> Vec<u32> {
    let mut heard = numbers(&tape.heard());
    heard.retain(|number| *number != 0);
    heard
}

/// The guest's application went on as if nothing had been.
pub fn assert_unnoticed(pcm: &PcmHandle) {
    let counters = pcm.counters();
    assert_eq!((counters.core.xruns, counters.core.unexpected), (0, 0), "{counters:?}");
    assert_eq!((counters.requests.unanswered, counters.requests.refused), (0, 0), "{counters:?}");
}
