//! How true the positions are that the guest is told, at every cycle of the graph and period of the guest.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use vsnd_bridge::sim::frontend::Seen;
use vsnd_pw_module::Direction;

use super::machine::Probe;
use super::pulse::Sink;
use super::rig::{GUEST, LEFT, Player, RATE, Rig};
use super::stats::{Spread, slope};
use super::truth::Truth;

/// A run that the machine disturbed is tried again so often.
const TRIES: usize = 9;

/// One cell of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    pub quantum: u32,
    pub rate: u32,
    pub period_ms: f64,
    pub buffer_frames: u64,
    pub seconds: f64,
    /// Positions taken by the guest's driver.
    pub events: usize,
    /// How far each was from what the sink played, in milliseconds.
    pub error_ms: Spread,
    /// By how much it was ahead, in frames: the clock cuts to whole frames, the truth does not.
    pub ahead_frames_max: f64,
    /// Positions ahead by more than the clock's own error.
    pub ahead: usize,
    /// Positions before the one before.
    pub backward: usize,
    /// How late a thread above all others woke meanwhile, in milliseconds.
    pub machine_ms: Spread,
    /// How stale the guest's pointer is at any instant, in milliseconds.
    pub pointer_ms: Spread,
    /// Events and wake-ups of the pacer, each second.
    pub events_s: f64,
    pub wakeups_s: f64,
    /// The guest's clock against the sink's, in parts of a million, and the standard error of that.
    pub drift_ppm: f64,
    pub drift_error_ppm: f64,
    /// Interruptions that the sink heard.
    pub breaks: usize,
    /// Times that the guest underran, or the sink's monitor broke off, before a run was whole.
    pub disturbed: usize,
    /// PulseAudio's sink meanwhile.
    pub sink: Option<Sink>,
}

/// The clock's own error in frames: it counts whole ones, and so does the server.
pub const OWN_ERROR: f64 = 2.0;

/// A run that is not tried again for an interruption.
const LONG: Duration = Duration::from_secs(60);

/// One error, for the plots.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Seconds since the first.
    pub at: f64,
    pub error_ms: f64,
}

/// In frames: 40 ms, in which a busy machine finds time for an application of the guest's.
const SHORTEST_RING: u64 = 1920;

/// What a guest should have as a ring for `period` at this `quantum`: eight periods, [`SHORTEST_RING`], and no less than two of the server's
/// cycles more than the two periods that it needs to be woken and to write.
pub fn ring(period: u64, quantum: u32) -> u64 {
    (8 * period).max(2 * period + 3 * u64::from(quantum)).max(SHORTEST_RING).next_multiple_of(period)
}

/// Plays for `span` from a ring of `buffer` frames, or of [`ring`]; the cell of it, and every error.
pub fn measure(
    rig: &Rig,
    quantum: u32,
    rate: u32,
    period_ms: f64,
    buffer: Option<u64>,
    span: Duration,
) -> Result<(Cell, Vec<Sample>)> {
    let period = (period_ms * f64::from(rate) / 1000.0).round() as u64;
    let buffer = buffer.unwrap_or_else(|| ring(period, quantum * rate / RATE + 1));
    let mut disturbed = 0;
    loop {
        match run(rig, quantum, rate, period_ms, buffer, span) {
            Ok(mut done) if done.1.len() > 10 => {
                done.0.disturbed = disturbed;
                return Ok(done);
            }
            Ok(_) if disturbed == TRIES => bail!("no position could be compared"),
            Err(error) if disturbed == TRIES => return Err(error),
            Ok(_) => disturbed += 1,
            Err(error) => {
                eprintln!("  again: {error:#}");
                disturbed += 1;
            }
        }
    }
}

fn run(
    rig: &Rig,
    quantum: u32,
    rate: u32,
    period_ms: f64,
    buffer: u64,
    span: Duration,
) -> Result<(Cell, Vec<Sample>)> {
    let period = (period_ms * f64::from(rate) / 1000.0).round() as u64;
    let room = (span.as_secs() + 20) as usize * (RATE / quantum) as usize;
    let ear = rig.listen(room)?;
    let pcm = rig.open(Direction::Playback, rate, period, buffer)?;
    pcm.watch_positions();
    let player = Player::start(pcm, period);
    // The lead-in, and the resampler's filling.
    std::thread::sleep(Duration::from_millis(500));
    let probe = Probe::start();
    let wakeups = rig.pacer.wakeups();
    let began = std::time::Instant::now();
    std::thread::sleep(span);
    let wakeups_s = (rig.pacer.wakeups() - wakeups) as f64 / began.elapsed().as_secs_f64();
    let machine_ms = probe.finish();
    let seen = player.pcm.watch_positions();
    player.finish()?;
    let (cycles, sink) = ear.finish()?;
    let quantum = sink.map_or(quantum, |sink| sink.block);
    let from = seen.first().map_or(0, |seen| seen.at.0) + 500_000_000;
    let seen: Vec<Seen> = seen.into_iter().filter(|seen| seen.at.0 >= from).collect();
    let delay = rig.monitor_delay();
    let truth = if rate == RATE {
        Truth::of(&cycles, &GUEST, LEFT, RATE, delay)
    } else {
        // Through a resampler no frame arrives as it was.
        Truth::from_onset(&cycles, f64::from(rate), RATE, delay)
    };
    // PulseAudio is not in real time throughout, and in a long run any machine is busy once: the position goes on through
    // an interruption, so it can be compared all the same.
    if truth.breaks > 0 && rig.pulse().is_none() && span < LONG {
        bail!("the sink heard the signal broken {} times", truth.breaks);
    }
    let (mut cell, samples) = compare(&seen, &truth);
    cell = Cell { quantum, rate, period_ms, buffer_frames: buffer, wakeups_s, machine_ms, sink, ..cell };
    Ok((cell, samples))
}

fn compare(seen: &[Seen], truth: &Truth) -> (Cell, Vec<Sample>) {
    let octets = 4.0;
    let rate = truth.rate();
    let mut samples = Vec::with_capacity(seen.len());
    let mut errors = Vec::with_capacity(seen.len());
    let (mut ahead_most, mut ahead) = (f64::MIN, 0);
    let mut against = Vec::new();
    for seen in seen {
        let Some(played) = truth.position(seen.at.0) else { continue };
        let told = seen.position.0 as f64 / octets;
        let error = told - played;
        ahead_most = ahead_most.max(error);
        ahead += usize::from(error > OWN_ERROR);
        errors.push(error / rate * 1e3);
        against.push((played / rate, told / rate));
        samples.push(Sample { at: played / rate, error_ms: error / rate * 1e3 });
    }
    let backward = seen.windows(2).filter(|pair| pair[1].position < pair[0].position).count();
    let seconds = match (seen.first(), seen.last()) {
        (Some(first), Some(last)) => (last.at - first.at).0 as f64 / 1e9,
        _ => 0.0,
    };
    let (slope, slope_error) = slope(&against);
    let cell = Cell {
        quantum: 0,
        rate: 0,
        period_ms: 0.0,
        buffer_frames: 0,
        seconds,
        events: seen.len(),
        error_ms: Spread::of(errors.iter().map(|error| error.abs())),
        ahead_frames_max: ahead_most,
        ahead,
        backward,
        machine_ms: Spread::default(),
        pointer_ms: Spread::of(staleness(seen, truth)),
        events_s: seen.len() as f64 / seconds,
        wakeups_s: 0.0,
        drift_ppm: (slope - 1.0) * 1e6,
        drift_error_ppm: slope_error * 1e6,
        breaks: truth.breaks,
        disturbed: 0,
        sink: None,
    };
    (cell, samples)
}

/// How far the last position is from the truth at evenly spread instants, in milliseconds.
fn staleness(seen: &[Seen], truth: &Truth) -> Vec<f64> {
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else { return Vec::new() };
    let mut all = Vec::new();
    let mut at = first.at.0;
    while at < last.at.0 {
        let index = seen.partition_point(|seen| seen.at.0 <= at);
        if let (Some(played), Some(told)) = (truth.position(at), seen.get(index.wrapping_sub(1))) {
            all.push((told.position.0 as f64 / 4.0 - played).abs() / truth.rate() * 1e3);
        }
        at += 137_000;
    }
    all
}
