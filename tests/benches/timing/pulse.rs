//! The same against a real PulseAudio with a null sink, which renders in blocks of 10 ms.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use vsnd_bridge::sim::signal::{Frame, frames_of};
use vsnd_pw_module::monotonic_now;
use vsnd_tests::pulse::SINK;

use super::ear::{Cycle, HEAD};
use super::rig::RATE;

/// The frames of one block of the null sink.
const BLOCK: usize = 480;

/// Frames, and when they came.
type Piece = (i64, Vec<Frame>);

/// PulseAudio's own recorder on the sink's monitor, whose pieces are stamped as they come.
pub struct Ear {
    child: Child,
    pieces: Arc<Mutex<Vec<Piece>>>,
    thread: Option<JoinHandle<()>>,
}

impl Ear {
    pub fn listen(mut parec: Command) -> Result<Self> {
        parec.arg(format!("--device={SINK}.monitor"));
        parec.args(["--raw", "--format=s16le", "--rate=48000", "--channels=2", "--latency-msec=10"]);
        let mut child = parec.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("parec")?;
        let mut out = child.stdout.take().context("parec's output")?;
        let pieces = Arc::<Mutex<Vec<Piece>>>::default();
        let own = Arc::clone(&pieces);
        let thread = std::thread::spawn(move || {
            let mut rest = Vec::new();
            let mut piece = vec![0; 1 << 16];
            while let Ok(len @ 1..) = out.read(&mut piece) {
                let at = monotonic_now().0;
                rest.extend_from_slice(&piece[..len]);
                let whole = rest.len() / 4 * 4;
                let frames = frames_of(&rest[..whole]);
                rest.drain(..whole);
                own.lock().unwrap_or_else(PoisonError::into_inner).push((at, frames));
            }
        });
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { child, pieces, thread: Some(thread) })
    }

    /// Ends it. The sink renders a block when it begins to play it, so the first frame of a piece was played when it came,
    /// less the way to the recorder: the line below all pieces, on the sink's exact clock.
    pub fn finish(mut self) -> Vec<Cycle> {
        self.end();
        let pieces = std::mem::take(&mut *self.pieces.lock().unwrap_or_else(PoisonError::into_inner));
        let mut first = 0;
        let mut begins = Vec::new();
        for (at, frames) in &pieces {
            // The recorder gives the blocks whole, or pieces of several that were late.
            if frames.len() % BLOCK == 0 {
                begins.push(at - duration(first + frames.len() - BLOCK));
            }
            first += frames.len();
        }
        let origin = begins.into_iter().min().unwrap_or(0);
        let all: Vec<Frame> = pieces.into_iter().flat_map(|piece| piece.1).collect();
        let cycle = |(index, block): (usize, &[Frame])| {
            let mut head = [[0; 2]; HEAD];
            head.iter_mut().zip(block).for_each(|(head, frame)| *head = *frame);
            let ticks = index * BLOCK;
            Cycle {
                now: origin + duration(ticks),
                ticks: ticks as u64,
                frames: block.len() as u64,
                head,
                onset: None,
            }
        };
        all.chunks(BLOCK).enumerate().map(cycle).collect()
    }
}

impl Ear {
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.end();
    }
}

fn duration(frames: usize) -> i64 {
    frames as i64 * 1_000_000_000 / i64::from(RATE)
}
