//! What the sink really played at an instant: the monitor's frames, found in the signal, on the driver's clock.

use vsnd_bridge::sim::signal::TestSignal;

use super::ear::Cycle;

/// Frames around the expected place in which a cycle's first frames are looked for.
const SEARCH: u64 = 48_000;

/// At this instant the sink plays this frame of the signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub at: i64,
    /// Until when this holds: the end of the cycle.
    pub until: i64,
    /// The frame that is played at `at`.
    pub frame: f64,
}

/// Where every frame of one signal went.
pub struct Truth {
    points: Vec<Point>,
    rate: f64,
    /// Places where the signal did not go on with the frame that was due.
    pub breaks: usize,
}

impl Truth {
    /// Finds the signal's frames in a monitor's cycles, by the channel on which it sounds. The monitor gives what the sink
    /// was given `delay` nanoseconds before.
    pub fn of(cycles: &[Cycle], signal: &TestSignal, channel: usize, rate: u32, delay: i64) -> Self {
        let rate = f64::from(rate);
        let mut points: Vec<Point> = Vec::new();
        let (mut expected, mut breaks) = (None::<u64>, 0);
        for cycle in cycles {
            let matches = |frame: u64| {
                let mut head = cycle.head.iter().zip(frame..);
                head.all(|(heard, index)| heard[channel] == signal.frame(index)[channel])
            };
            let silent = cycle.head.iter().all(|frame| frame[channel] == 0);
            let found = match expected {
                _ if silent => None,
                Some(frame) if matches(frame) => Some(frame),
                _ => {
                    let from = expected.unwrap_or(0).saturating_sub(SEARCH);
                    let found = (from..from + 3 * SEARCH).find(|frame| matches(*frame));
                    breaks += usize::from(expected.is_some() && found.is_some());
                    found
                }
            };
            if let Some(frame) = found {
                let at = cycle.now - delay;
                let until = at + (cycle.frames as f64 * 1e9 / rate) as i64;
                points.push(Point { at, until, frame: frame as f64 });
                expected = Some(frame + cycle.frames);
            }
        }
        Self { points, rate, breaks }
    }

    /// For a signal that is resampled on its way: its step out of silence tells where it began, and the graph's clock where
    /// it was from then on. `rate` is the signal's own.
    pub fn from_onset(cycles: &[Cycle], rate: f64, graph: u32, delay: i64) -> Self {
        let graph = f64::from(graph);
        let begins = cycles.iter().position(|cycle| cycle.onset.is_some()).unwrap_or(cycles.len());
        let began = cycles.get(begins).map_or(0.0, |cycle| cycle.ticks as f64 + cycle.onset.unwrap_or(0.0));
        // The step lies between the last frame of silence and the first of the signal.
        let frame = |ticks: u64| (ticks as f64 - began) * rate / graph - 0.5;
        let point = |cycle: &Cycle| {
            let at = cycle.now - delay;
            Point { at, until: at + (cycle.frames as f64 * 1e9 / graph) as i64, frame: frame(cycle.ticks) }
        };
        let points = cycles.iter().skip(begins + 1).map(point).collect();
        // Where a cycle was missed there is silence: what follows comes later than the step said.
        let silent = |cycle: &Cycle| cycle.head.iter().all(|frame| *frame == [0, 0]);
        let sounding = cycles.iter().skip(begins).map(|cycle| !silent(cycle)).collect::<Vec<_>>();
        let breaks = sounding.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        Self { points, rate, breaks }
    }

    /// The signal's frames a second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The position, in frames and parts of one, that the sink had reached at `at`; `None` where nothing is known.
    pub fn position(&self, at: i64) -> Option<f64> {
        let after = self.points.partition_point(|point| point.at <= at);
        let point = self.points.get(after.checked_sub(1)?)?;
        // A hole in the recording is none of the bridge's.
        (at <= point.until + 1_000_000).then(|| point.frame + (at - point.at) as f64 * self.rate / 1e9)
    }

    /// When the sink played `frame`.
    pub fn instant(&self, frame: u64) -> Option<i64> {
        let frame = frame as f64;
        let after = self.points.partition_point(|point| point.frame <= frame);
        let point = self.points.get(after.checked_sub(1)?)?;
        let at = point.at + ((frame - point.frame) * 1e9 / self.rate) as i64;
        (at <= point.until).then_some(at)
    }
}
