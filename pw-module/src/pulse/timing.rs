//! From PulseAudio's reports to positions on CLOCK_MONOTONIC. Pure.
//!
//! A report is taken on the server's real-time thread and stamped, answered and read a little later, each on another
//! one; pipewire-pulse even moves its indices once a cycle only. All of these make a position look older than it is,
//! never newer. So of several reports the one that says most is the nearest to the truth.

use crate::units::Nanos;

/// Reports of one half of the window.
const HALF: u32 = 8;

/// A stream's position over time: the straight line at the stream's rate above its newest reports.
#[derive(Clone, Debug)]
pub(super) struct Line {
    rate: u32,
    /// When frame 0 left or entered the device, by the best report of this half of the window, and of the half before.
    halves: [Option<Nanos>; 2],
    /// Reports in the present half.
    count: u32,
    newest: Option<Nanos>,
}

impl Line {
    /// A line without reports, of a stream of `rate` frames a second.
    pub(super) fn new(rate: u32) -> Self {
        Self { rate: rate.max(1), halves: [None; 2], count: 0, newest: None }
    }

    /// Forgets everything: the stream stood still.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.rate);
    }

    /// The stream was at frame `position` at `at`.
    pub(super) fn report(&mut self, at: Nanos, position: i64) {
        let origin = Nanos(at.0.saturating_sub(self.duration(position)));
        if self.count == HALF {
            self.halves = [None, self.halves[0]];
            self.count = 0;
        }
        self.count += 1;
        self.halves[0] = Some(self.halves[0].map_or(origin, |best| best.min(origin)));
        self.newest = Some(at);
    }

    /// When the newest report was taken.
    pub(super) fn newest(&self) -> Option<Nanos> {
        self.newest
    }

    /// When frame 0 left or entered the device.
    fn origin(&self) -> Option<Nanos> {
        self.halves.into_iter().flatten().min()
    }

    /// The position at `at`, in frames; `None` before the first report.
    pub(super) fn position(&self, at: Nanos) -> Option<i64> {
        let passed = i128::from(at.0) - i128::from(self.origin()?.0);
        // To the nearest frame, so that what went in comes out.
        let frames = (passed * i128::from(self.rate) + 500_000_000).div_euclid(1_000_000_000);
        i64::try_from(frames).ok()
    }

    /// When the stream is at frame `position`; `None` before the first report.
    pub(super) fn when(&self, position: i64) -> Option<Nanos> {
        Some(Nanos(self.origin()?.0.saturating_add(self.duration(position))))
    }

    fn duration(&self, frames: i64) -> i64 {
        let nanos = i128::from(frames) * 1_000_000_000 / i128::from(self.rate);
        i64::try_from(nanos).unwrap_or(if frames < 0 { i64::MIN } else { i64::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(millis: i64) -> Nanos {
        Nanos::from_millis(millis)
    }

    #[test]
    fn before_the_first_report_nothing_is_known() {
        let mut line = Line::new(48_000);
        assert_eq!((line.position(ms(1)), line.newest()), (None, None));
        line.report(ms(10), 480);
        assert_eq!((line.position(ms(20)), line.when(480)), (Some(960), Some(ms(10))));
        line.reset();
        assert_eq!(line.position(ms(20)), None);
    }

    #[test]
    fn a_latency_that_grew_is_believed_within_the_window() {
        let mut line = Line::new(48_000);
        for n in 0..100 {
            line.report(ms(10 * n), 480 * n);
        }
        for n in 100..117 {
            line.report(ms(10 * n), 480 * n - 9_600);
        }
        assert_eq!(line.position(ms(1_160)), Some(480 * 116 - 9_600));
    }

    proptest! {
        /// Reports that are late by up to a cycle: the line is never ahead, and near once one was in time.
        #[test]
        fn late_reports_do_not_drag_the_line(late in proptest::collection::vec(0i64..20_000_000, 20..60)) {
            let mut line = Line::new(48_000);
            for (n, late) in (0i64..).zip(&late) {
                // What was true at 10 n ms is stamped later.
                line.report(ms(10 * n) + Nanos(*late), 480 * n);
                let position = line.position(ms(10 * n)).unwrap();
                prop_assert!(position <= 480 * n);
                let best = late.min(&20_000_000);
                prop_assert!(position >= 480 * n - 1 - (best * 48 / 1_000_000 + 1));
            }
        }
    }
}
