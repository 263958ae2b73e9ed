//! From a guest's WRITE to the sink, beside a native client of the same server that has a ring of the same length.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use vsnd_bridge::sim::signal::Frame;
use vsnd_pw_module::pipewire::private::SINK;
use vsnd_pw_module::{Direction, monotonic_now};

use super::ear::Client;
use super::position::ring;
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
    /// The same of an application that puts periods into a ring which a native client's callback empties.
    pub native_ms: Spread,
    pub difference_ms: f64,
    pub difference_quanta: f64,
    pub ratio: f64,
}

#[derive(Default)]
struct Fifo {
    frames: Mutex<VecDeque<Frame>>,
    taken: Condvar,
}

/// Plays both side by side for `span`.
pub fn measure(rig: &Rig, quantum: u32, period: u64, span: Duration) -> Result<Latency> {
    let buffer = ring(period, quantum);
    let room = (span.as_secs() + 20) as usize * (RATE / quantum) as usize;
    let ear = Client::listen(&rig.remote()?, SINK, RATE, room)?;
    let fifo = Arc::new(Fifo::default());
    let stop = Arc::new(AtomicBool::new(false));
    let (own, stopping) = (Arc::clone(&fifo), Arc::clone(&stop));
    let application = std::thread::spawn(move || {
        let (mut next, mut written) = (0, Vec::new());
        while !stopping.load(Ordering::Relaxed) {
            let mut frames = own.frames.lock().unwrap_or_else(PoisonError::into_inner);
            if frames.len() as u64 + period > buffer {
                let waited = own.taken.wait_timeout(frames, Duration::from_millis(100));
                drop(waited.unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            frames.extend((next..next + period).map(|index| NATIVE.frame(index)));
            written.push(Written { at: monotonic_now().0, frame: next });
            next += period;
        }
        written
    });
    let emptied = Arc::clone(&fifo);
    let source = Box::new(move |out: &mut [Frame]| {
        let mut frames = emptied.frames.lock().unwrap_or_else(PoisonError::into_inner);
        for cell in out.iter_mut() {
            *cell = frames.pop_front().unwrap_or([0, 0]);
        }
        drop(frames);
        emptied.taken.notify_all();
    });
    let native = Client::play(&rig.remote()?, SINK, RATE, room, source)?;
    let player = Player::start(rig.open(Direction::Playback, RATE, period, buffer)?, period);
    std::thread::sleep(span + Duration::from_secs(1));
    let guests = player.finish()?;
    stop.store(true, Ordering::Relaxed);
    let natives = application.join().unwrap_or_default();
    drop(native);
    let cycles = ear.finish();
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
