//! From a guest's WRITE to the sink, beside a native client of the same server that has a ring of the same length.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use vsnd_pw_module::Direction;

use super::native;
use super::rig::{GUEST, LEFT, NATIVE, Player, RATE, RIGHT, Rig, Written};
use super::stats::Spread;
use super::truth::Truth;

/// Both in the same run.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub quantum: u32,
    pub period_frames: u64,
    pub buffer_frames: u64,
    /// From the answered WRITE of a period to its first frame at the sink, in milliseconds.
    pub guest_ms: Spread,
    /// The same of an application that plays natively: see [`native`].
    pub native_ms: Spread,
    pub difference_ms: f64,
    pub difference_quanta: f64,
    pub ratio: f64,
}

/// Plays both side by side for `span`, from rings of `buffer` frames; the server's cycles have `quantum`.
pub fn measure(rig: &Rig, quantum: u32, period: u64, buffer: u64, span: Duration) -> Result<Latency> {
    let room = (span.as_secs() + 20) as usize * (RATE / quantum) as usize;
    let ear = rig.listen(room)?;
    let native = native::Player::start(rig, period, buffer)?;
    let player = Player::start(rig.open(Direction::Playback, RATE, period, buffer)?, period);
    std::thread::sleep(span + Duration::from_secs(1));
    let guests = player.finish()?;
    let natives = native.finish()?;
    let (cycles, sink) = ear.finish()?;
    let quantum = sink.map_or(quantum, |sink| sink.block);
    let guest = Truth::of(&cycles, &GUEST, LEFT, RATE, rig.monitor_delay());
    let native = Truth::of(&cycles, &NATIVE, RIGHT, RATE, rig.monitor_delay());
    // The first fill of a ring waits for its start.
    let latencies = |written: &[Written], truth: &Truth| {
        let settled = (2 * buffer / period) as usize;
        let late = |written: &Written| Some((truth.instant(written.frame)? - written.at) as f64 / 1e6);
        Spread::of(written.iter().skip(settled).filter_map(late))
    };
    let (guest_ms, native_ms) = (latencies(&guests, &guest), latencies(&natives, &native));
    if guest_ms.count == 0 || native_ms.count == 0 {
        bail!("guest and native client were not both heard: {guest_ms:?} {native_ms:?}");
    }
    let difference_ms = guest_ms.p50 - native_ms.p50;
    Ok(Latency {
        quantum,
        period_frames: period,
        buffer_frames: buffer,
        guest_ms,
        native_ms,
        difference_ms,
        difference_quanta: difference_ms / 1e3 * f64::from(RATE) / f64::from(quantum),
        ratio: guest_ms.p50 / native_ms.p50,
    })
}
