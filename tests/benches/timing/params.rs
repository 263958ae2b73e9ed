//! How long an answer from memory takes.

use std::time::Instant;

use serde::Serialize;
use vsnd_bridge::sndif::{FormatSet, HwParams, Interval, Limits};
use vsnd_pw_module::Frames;

use super::rig::Rig;

/// HW_PARAM_QUERY.
#[derive(Clone, Debug, Serialize)]
pub struct Queries {
    /// Narrowing what was asked, in microseconds.
    pub narrowing_us: f64,
    /// From the guest's request to its answer, in microseconds: two threads wake up on the way.
    pub round_trip_us: f64,
    pub round_trips: u64,
}

pub fn measure(rig: &Rig) -> anyhow::Result<Queries> {
    const COUNT: u32 = 20_000;
    let limits = Limits { formats: FormatSet::plain_samples(), ..Limits::default() };
    let all = Interval::new(Frames(1), Frames(1 << 20));
    let asked = HwParams {
        formats: FormatSet::plain_samples(),
        rates: Interval::new(1, 192_000),
        channels: Interval::new(1, 8),
        buffer: all,
        period: all,
    };
    let began = Instant::now();
    for _ in 0..COUNT {
        std::hint::black_box(limits.narrow(std::hint::black_box(&asked)));
    }
    let narrowing_us = began.elapsed().as_secs_f64() * 1e6 / f64::from(COUNT);
    let pcm = rig.card.open(0, vsnd_pw_module::Direction::Playback)?;
    let before = pcm.counters().requests;
    for _ in 0..50 {
        pcm.ranges()?;
    }
    let after = pcm.counters().requests;
    let round_trips = after.sent - before.sent;
    let waited = (after.waited - before.waited).0 as f64;
    Ok(Queries { narrowing_us, round_trip_us: waited / 1e3 / round_trips as f64, round_trips })
}
