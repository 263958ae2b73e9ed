//! What the kernel of a guest noted of its sound driver (`guest/notes`), and whether it is what the driver makes of the positions that
//! it took.

use anyhow::{Result, ensure};
use vsnd_bridge::sim::frontend::{Measure, Position};
use vsnd_pw_module::{Frames, Octets};

/// Octets of a frame of 16-bit stereo, which is all that the lab plays.
const FRAME_OCTETS: u32 = 4;

/// One line of the notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    /// OPEN is sent with these sizes.
    Open(Measure),
    Close,
    Start,
    /// STOP, or PAUSE as the driver sends it when the guest is suspended.
    Stop,
    /// The driver takes a position.
    Position(Octets),
    /// The driver tells ALSA that a period has elapsed.
    Period,
    Rewind(Frames),
}

/// What a stream did from OPEN to CLOSE, or to the next OPEN without one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The period in frames.
    pub period: u64,
    /// The ring in frames.
    pub buffer: u64,
    /// Whether it was still open when another OPEN came.
    pub reopened: bool,
    /// From each START to its STOP.
    pub runs: Vec<Run>,
    /// Frames that applications took back.
    pub rewound: u64,
}

/// What a stream did from START to STOP.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Positions that the driver took.
    pub positions: u64,
    /// Frames that the last of them is from the start.
    pub frames: u64,
    /// Periods that the driver told ALSA of.
    pub elapsed: u64,
    /// Periods that ended unnoticed, because the next position came only after the end of another one.
    pub skipped: u64,
}

/// Reads the notes.
///
/// # Errors
/// A position went back, or the driver took a period for elapsed when its own arithmetic says it had not, or the other way
/// round.
pub fn read(text: &str) -> Result<Vec<Opened>> {
    let mut notes = text.lines().filter_map(parse).peekable();
    let mut opened: Vec<Opened> = Vec::new();
    let mut open: Option<Driver> = None;
    while let Some(note) = notes.next() {
        if let Note::Open(measure) = note {
            opened.extend(open.take().map(|driver| Opened { reopened: true, ..driver.opened }));
            open = Some(Driver::new(measure));
        }
        // the driver sends CLOSE for streams that it never opened, too
        let Some(driver) = &mut open else { continue };
        match note {
            Note::Open(_) => (),
            Note::Close => opened.extend(open.take().map(|driver| driver.opened)),
            Note::Start => driver.start(),
            Note::Stop => driver.running = false,
            Note::Rewind(frames) => driver.opened.rewound += frames.0,
            Note::Position(position) => {
                let elapsed = notes.next_if_eq(&Note::Period).is_some();
                driver.moved_to(position, elapsed)?;
            }
            Note::Period => anyhow::bail!("a period elapsed without a position"),
        }
    }
    opened.extend(open.map(|driver| driver.opened));
    ensure!(!opened.is_empty(), "the driver opened nothing");
    Ok(opened)
}

/// The driver, as far as the notes tell.
struct Driver {
    measure: Measure,
    position: Position,
    told: u64,
    /// Where the present run began.
    begun: u64,
    running: bool,
    opened: Opened,
}

impl Driver {
    fn new(measure: Measure) -> Self {
        let opened = Opened { period: measure.period.0, buffer: measure.buffer.0, ..Opened::default() };
        Self { measure, position: Position::default(), told: 0, begun: 0, running: false, opened }
    }

    fn start(&mut self) {
        self.running = true;
        self.begun = self.told;
        self.opened.runs.push(Run::default());
    }

    fn moved_to(&mut self, position: Octets, elapsed: bool) -> Result<()> {
        let frames = position.0 / u64::from(FRAME_OCTETS);
        ensure!(frames >= self.told, "the position went back from frame {} to {frames}", self.told);
        let expected = self.position.moved_to(position, self.measure);
        ensure!(
            elapsed == expected,
            "at frame {frames} of a stream with periods of {}: period elapsed: {elapsed}, by the driver's arithmetic: {expected}",
            self.measure.period.0
        );
        let before = std::mem::replace(&mut self.told, frames);
        let Some(run) = self.opened.runs.last_mut().filter(|_| self.running) else { return Ok(()) };
        // Periods end beyond their last frame.
        let ended = |at: u64| (at - self.begun).saturating_sub(1) / self.measure.period.0;
        run.positions += 1;
        run.frames = frames - self.begun;
        run.elapsed += u64::from(elapsed);
        run.skipped += (ended(frames) - ended(before)).saturating_sub(u64::from(elapsed));
        Ok(())
    }
}

fn parse(line: &str) -> Option<Note> {
    let number = |name: &str| {
        line.split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
    };
    let frames = |octets: u64| Frames(octets / u64::from(FRAME_OCTETS));
    let what = line.split_ascii_whitespace().find_map(|word| {
        word.strip_suffix(':').filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
    })?;
    Some(match what {
        "open" => {
            let (period, buffer) = (frames(number("period")?), frames(number("buffer")?));
            Note::Open(Measure { period, buffer, frame_octets: FRAME_OCTETS })
        }
        "close" => Note::Close,
        "trigger" if number("command")? == 1 => Note::Start,
        "trigger" => Note::Stop,
        "position" => Note::Position(Octets(number("octets")?)),
        "period" => Note::Period,
        "rewind" => Note::Rewind(Frames(number("frames")?)),
        _ => return None,
    })
}
