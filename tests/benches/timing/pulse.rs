//! The same against a real PulseAudio with a null sink.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, ensure};
use libpulse_binding::def::BufferAttr;
use libpulse_binding::error::PAErr;
use libpulse_binding::mainloop::standard::Mainloop;
use libpulse_binding::operation::{Operation, State as OperationState};
use libpulse_binding::sample::{Format, Spec};
use libpulse_binding::stream::{FlagSet, PeekResult, State, Stream};
use serde::Serialize;
use vsnd_bridge::sim::signal::{Frame, frames_of};
use vsnd_pw_module::monotonic_now;
use vsnd_tests::pulse::SINK;

use super::ear::{Cycle, HEAD};
use super::native::{connect, turn};
use super::rig::{RATE, take_processor};
use super::stats::{Spread, slope};

/// Pieces that come so soon after the one before, in nanoseconds, are the rest of its block.
const SAME_BLOCK: i64 = 1_000_000;
/// Frames in which at least one answer comes as quickly as it can.
const PART: usize = RATE as usize / 4;
/// How far before its time a block may seem to come, in microseconds: the server counts whole ones.
const GRAIN: f64 = 5.0;

/// What a recorder on the sink's monitor noted.
#[derive(Default)]
struct Notes {
    frames: Vec<Frame>,
    /// When each block came, and its first frame.
    blocks: Vec<(i64, usize)>,
    answers: Vec<Answer>,
}

/// What the server told when it was asked for the sink's clock.
#[derive(Clone, Copy)]
struct Answer {
    asked: i64,
    /// When the server had the answer.
    stamped: i64,
    /// The first frame that the sink had not been given yet.
    frame: usize,
    /// How long until the sink plays it, in nanoseconds.
    left: i64,
}

/// What the sink was given, and when by its own clock.
pub struct Heard {
    pub cycles: Vec<Cycle>,
    pub sink: Sink,
}

/// The sink as the recorder found it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sink {
    /// Frames that it renders at a time: the median.
    pub block: u32,
    /// How exactly its clock is known, in microseconds: from question to stamp, the median of the answers that are used.
    pub doubt_us: f64,
    /// How long after the sink began to play it a block came to the recorder, in microseconds: 99 of 100 came no sooner, and
    /// the median.
    pub soonest_us: f64,
    pub usual_us: f64,
    /// How much faster than its rate it plays, in parts of a million.
    pub fast_ppm: f64,
}

/// A recorder on the sink's monitor that asks for the sink's clock with every block.
pub struct Ear {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Notes>>,
}

impl Ear {
    /// On the server at this address; returns when the first block has come.
    pub fn listen(server: String) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let (came, comes) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || record(&server, &stopping, &came));
        // Where none comes `finish` says why.
        let _is_heard = comes.recv();
        Ok(Self { stop, thread })
    }

    /// Ends it.
    pub fn finish(self) -> Result<Heard> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the recorder panicked"))??.heard()
    }
}

impl Notes {
    fn heard(self) -> Result<Heard> {
        let clock = SinkClock::of(&self.answers);
        let begins = self.blocks.iter().map(|block| block.1);
        let ends = begins.clone().skip(1).chain([self.frames.len()]);
        let cycle = |(first, end): (usize, usize)| {
            let mut head = [[0; 2]; HEAD];
            head.iter_mut().zip(&self.frames[first..]).for_each(|(head, frame)| *head = *frame);
            let frames = (end - first) as u64;
            Cycle { now: clock.instant(first), ticks: first as u64, frames, head, onset: None }
        };
        let cycles: Vec<Cycle> = begins.zip(ends).map(cycle).collect();
        let mut ways: Vec<f64> =
            self.blocks.iter().map(|(at, first)| (at - clock.instant(*first)) as f64 / 1e3).collect();
        ways.sort_by(f64::total_cmp);
        let soonest_us = ways.get(ways.len() / 100).copied().context("no block was heard")?;
        // The sink renders a block when it begins to play it, so whatever the server told, this has to hold; except for the
        // rest of a block whose parts came far apart.
        ensure!(soonest_us >= -GRAIN, "a block came {} us before its time by the sink's clock", -soonest_us);
        let sink = Sink {
            block: Spread::of(cycles.iter().map(|cycle| cycle.frames as f64)).p50 as u32,
            doubt_us: Spread::of(clock.parts.iter().map(|part| part.doubt as f64 / 1e3)).p50,
            soonest_us,
            usual_us: ways[ways.len() / 2],
            fast_ppm: clock.fast_ppm(),
        };
        Ok(Heard { cycles, sink })
    }
}

/// When the sink plays which frame.
struct SinkClock {
    parts: Vec<Part>,
}

/// The best answer of a part.
struct Part {
    frame: usize,
    /// When frame 0 would have been played, at exactly the sink's rate.
    origin: i64,
    doubt: i64,
}

impl SinkClock {
    /// The server reads the sink's clock between question and stamp, so the quickest of several answers is the best. Each part has
    /// its own, because the sink does not keep its rate exactly.
    fn of(answers: &[Answer]) -> Self {
        let part = |answer: &Answer| Part {
            frame: answer.frame,
            origin: answer.stamped + answer.left - duration(answer.frame),
            doubt: answer.stamped - answer.asked,
        };
        let parts = answers.chunk_by(|a, b| a.frame / PART == b.frame / PART);
        let best = |answers: &[Answer]| answers.iter().map(part).min_by_key(|part| part.doubt);
        Self { parts: parts.filter_map(best).collect() }
    }

    fn instant(&self, frame: usize) -> i64 {
        let after = self.parts.partition_point(|part| part.frame <= frame);
        let before = after.checked_sub(1).and_then(|before| self.parts.get(before));
        let origin = match (before, self.parts.get(after)) {
            (Some(before), Some(after)) => {
                let passed = (frame - before.frame) as f64 / (after.frame - before.frame) as f64;
                before.origin + ((after.origin - before.origin) as f64 * passed) as i64
            }
            (Some(part), None) | (None, Some(part)) => part.origin,
            (None, None) => 0,
        };
        origin + duration(frame)
    }

    fn fast_ppm(&self) -> f64 {
        let point = |part: &Part| (part.frame as f64 / f64::from(RATE), part.origin as f64 / 1e9);
        -slope(&self.parts.iter().map(point).collect::<Vec<_>>()).0 * 1e6
    }
}

fn record(server: &str, stopping: &AtomicBool, came: &mpsc::SyncSender<()>) -> Result<Notes> {
    take_processor();
    let mut mainloop = Mainloop::new().context("a loop")?;
    let mut context = connect(&mut mainloop, server, "ear")?;
    let failed = |error: PAErr| anyhow!("ear: {error}");
    let spec = Spec { format: Format::S16le, channels: 2, rate: RATE };
    let mut stream = Stream::new(&mut context, "ear", &spec, None).context("a stream")?;
    // Pieces as large as the sink's blocks, whatever these are; it asks for no latency, which would change them.
    let any = u32::MAX;
    let attributes =
        BufferAttr { maxlength: any, tlength: any, prebuf: any, minreq: any, fragsize: 4 * RATE };
    let monitor = format!("{SINK}.monitor");
    stream.connect_record(Some(&monitor), Some(&attributes), FlagSet::NOFLAGS).map_err(failed)?;
    let mut notes = Notes::default();
    let mut question = None::<Question>;
    let mut newest = 0;
    while !stopping.load(Ordering::Relaxed) {
        turn(&mut mainloop)?;
        let now = monotonic_now().0;
        if stream.get_state() != State::Ready {
            continue;
        }
        if let Some(question) = question.take_if(|question| question.is_answered()) {
            notes.answers.extend(question.answer(&mut stream));
        }
        while stream.readable_size().is_some_and(|readable| readable > 0) {
            match stream.peek().map_err(failed)? {
                PeekResult::Data(octets) => {
                    if now - newest > SAME_BLOCK {
                        notes.blocks.push((now, notes.frames.len()));
                    }
                    newest = now;
                    notes.frames.extend(frames_of(octets));
                    let _is_awaited = came.try_send(());
                }
                PeekResult::Hole(octets) => notes.frames.extend(vec![[0; 2]; octets / 4]),
                PeekResult::Empty => break,
            }
            stream.discard().map_err(failed)?;
        }
        if question.is_none() && newest == now {
            question = Some(Question::ask(&mut stream));
        }
    }
    Ok(notes)
}

/// A question for the sink's clock, on its way.
struct Question {
    asked: i64,
    operation: Operation<dyn FnMut(bool)>,
}

impl Question {
    fn ask(stream: &mut Stream) -> Self {
        Self { asked: monotonic_now().0, operation: stream.update_timing_info(None) }
    }

    fn is_answered(&self) -> bool {
        self.operation.get_state() != OperationState::Running
    }

    fn answer(self, stream: &mut Stream) -> Option<Answer> {
        let info = stream.get_timing_info()?;
        let stamped = monotonic_now().0 - info.timestamp.age().0 as i64 * 1_000;
        // With frames on their way inside the server its count is not the sink's.
        (info.source_usec.0 == 0).then(|| Answer {
            asked: self.asked,
            stamped,
            frame: (info.write_index / 4) as usize,
            left: info.sink_usec.0 as i64 * 1_000,
        })
    }
}

fn duration(frames: usize) -> i64 {
    frames as i64 * 1_000_000_000 / i64::from(RATE)
}
