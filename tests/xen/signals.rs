//! What is played in the lab.

use vsnd_bridge::sim::signal::{Channels, Frame, TestSignal};

/// Frames per second of every signal. A guest may play one at another rate: then it is only longer.
pub const RATE: u64 = 48_000;

/// A signal, by its name in the lab.
pub struct Signal {
    pub name: String,
    signal: TestSignal,
    frames: u64,
    /// Frames of silence before and after it.
    silence: [u64; 2],
}

impl Signal {
    fn new(name: impl Into<String>, signal: TestSignal, frames: u64) -> Self {
        Self { name: name.into(), signal, frames, silence: [0, 0] }
    }

    /// Which channels it has.
    pub fn channels(&self) -> Channels {
        self.signal.channels()
    }

    /// Its frames.
    pub fn all(&self) -> Vec<Frame> {
        self.signal.frames(self.frames)
    }

    /// What is played: its frames between silence.
    pub fn file(&self) -> Vec<Frame> {
        let [before, after] = self.silence.map(|frames| std::iter::repeat_n([0, 0], frames as usize));
        before.chain(self.all()).chain(after).collect()
    }
}

/// The signals that guests play.
pub fn of_guests() -> Vec<Signal> {
    let plays = (1..=5).map(|n| Signal::new(format!("play-{n}"), TestSignal::new(n), 4 * RATE));
    let others = [
        Signal::new("left", TestSignal::new(6).on(Channels::Left), 4 * RATE),
        Signal::new("right", TestSignal::new(7).on(Channels::Right), 4 * RATE),
        Signal::new("long", TestSignal::new(8), 12 * RATE),
    ];
    // of lengths that are no whole number of anything
    let odd =
        (1..=8).map(|n| Signal::new(format!("odd-{n}"), TestSignal::new(10 + n), 65_003 + u64::from(n)));
    let short =
        (1..=20).map(|n| Signal::new(format!("short-{n}"), TestSignal::new(20 + n), 14_400 + u64::from(n)));
    plays.chain(others).chain(odd).chain(short).collect()
}

/// The signals that guests with sound servers of their own play. The silence before them is for both servers to come up, the one
/// behind them because a player of PipeWire drops its last cycle.
pub fn of_servers() -> Vec<Signal> {
    let signal = |name: &str, seed, channels| {
        let signal = Signal::new(name, TestSignal::new(seed).on(channels), 60 * RATE);
        Signal { silence: [3 * RATE, RATE], ..signal }
    };
    vec![signal("pulse", 41, Channels::Left), signal("pipewire", 42, Channels::Right)]
}

/// The signal of that name.
pub fn of_guest(name: &str) -> Vec<Frame> {
    of_guests().iter().find(|signal| signal.name == name).map(Signal::all).unwrap_or_default()
}

/// What the microphone hears.
pub fn microphone() -> Signal {
    Signal::new("mic", TestSignal::new(9), 60 * RATE)
}
