//! What the guest plays comes back to its own microphone: does it find the echo where the positions say?

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use vsnd_bridge::sim::frontend::Seen;
use vsnd_bridge::sim::signal::Frame;
use vsnd_pw_module::Direction;

use super::rig::{GUEST, Player, RATE, Recorder, Rig};
use super::stats::{Spread, slope};

/// All restarts.
#[derive(Clone, Debug, Serialize)]
pub struct LoopBack {
    pub quantum: u32,
    pub period_frames: u64,
    /// The round trip by the positions, less the true one, in milliseconds. By the positions: by how many frames the signal
    /// lies later in the recording than in what was played, less the distance of the captured from the played position at
    /// one instant. One value for each restart: the median of all captured positions.
    pub error_ms: Vec<f64>,
    /// The same of every single captured position.
    pub single_ms: Spread,
}

/// Restarts both streams `restarts` times.
pub fn measure(
    rig: &Rig,
    quantum: u32,
    period: u64,
    buffer: u64,
    restarts: usize,
    span: Duration,
) -> Result<LoopBack> {
    let (mut error_ms, mut single) = (Vec::new(), Vec::new());
    let mut tries = 0;
    while error_ms.len() < restarts {
        match restart(rig, period, buffer, span) {
            Ok(errors) => {
                let mut sorted = errors.clone();
                sorted.sort_by(f64::total_cmp);
                error_ms.push(sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN));
                single.extend(errors.into_iter().map(f64::abs));
            }
            Err(error) if tries < restarts => {
                eprintln!("  again: {error:#}");
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(LoopBack { quantum, period_frames: period, error_ms, single_ms: Spread::of(single) })
}

/// The error of the round trip by each captured position, in milliseconds.
fn restart(rig: &Rig, period: u64, buffer: u64, span: Duration) -> Result<Vec<f64>> {
    let recording = rig.open(Direction::Capture, RATE, period, buffer)?;
    recording.watch_positions();
    let recorder = Recorder::start(recording, period);
    rig.loop_back()?;
    std::thread::sleep(Duration::from_millis(200));
    let playing = rig.open(Direction::Playback, RATE, period, buffer)?;
    playing.watch_positions();
    let player = Player::start(playing, period);
    std::thread::sleep(span + Duration::from_millis(500));
    let captured = recorder.pcm.watch_positions();
    let played = player.pcm.watch_positions();
    let heard = recorder.finish();
    player.finish()?;
    let distance = echo(&heard?).context("the guest did not hear itself")? as f64;
    let trip = rig.monitor_delay() as f64 * f64::from(RATE) / 1e9;
    // What was played at the instants of captured positions: on the line through the last of the played ones.
    let from = played.first().map_or(0, |seen| seen.at.0) + 400_000_000;
    let points: Vec<(f64, f64)> =
        played.iter().filter(|seen| seen.at.0 > from).map(|seen| point(seen, from)).collect();
    let (rate, _) = slope(&points);
    let count = points.len() as f64;
    let mean = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / count, y + p.1 / count));
    let inside = captured
        .iter()
        .filter(|seen| seen.at.0 > from && seen.at <= played.last().map_or(seen.at, |last| last.at));
    let error = |seen: &Seen| {
        let (at, captured) = point(seen, from);
        let played = mean.1 + rate * (at - mean.0);
        (captured - played + trip - distance) / f64::from(RATE) * 1e3
    };
    Ok(inside.map(error).collect())
}

/// Seconds and frames.
fn point(seen: &Seen, from: i64) -> (f64, f64) {
    ((seen.at.0 - from) as f64 / 1e9, seen.position.0 as f64 / 4.0)
}

/// How many frames later in the recording the signal lies than it was played: by comparison of the frames themselves.
fn echo(heard: &[Frame]) -> Option<i64> {
    let begins = heard.iter().position(|frame| frame[0] != 0)?;
    // Its middle, where both run evenly.
    let at = begins + (heard.len() - begins) / 2;
    let window = heard.get(at..at + 16)?;
    let matches =
        |from: &u64| window.iter().zip(*from..).all(|(frame, index)| frame[0] == GUEST.frame(index)[0]);
    let found = (0..heard.len() as u64).find(matches)?;
    Some(at as i64 - found as i64)
}
