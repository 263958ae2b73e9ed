//! From PulseAudio's reports to positions on CLOCK_MONOTONIC. Pure.
//!
//! A report is taken on the server's real-time thread and stamped, answered and read a little later, each on another
//! one; pipewire-pulse even moves its indices once a cycle only. All of these make a position look older than it is,
//! never newer. So of several reports the one that says most is the nearest to the truth.

use crate::units::Nanos;

/// Reports of one half of the window.
const HALF: u32 = 8;

/// When frame 0 left or entered the device, and when it would have come here, by the soonest reports and blocks.
#[derive(Clone, Copy, Debug, Default)]
struct Soonest {
    device: Option<Nanos>,
    here: Option<Nanos>,
}

/// A stream's position over time: the straight line at the stream's rate above its newest reports, and beside it the line
/// through the recorded blocks that came soonest.
///
/// Both forget at the same reports. Where a stream stood still for a moment, because it was moved or the machine was busy,
/// one of them would otherwise be ahead of the other for a while, and with it the distance to the microphone.
#[derive(Clone, Debug)]
pub(super) struct Line {
    rate: u32,
    /// Of this half of the window, and of the half before.
    halves: [Soonest; 2],
    /// Reports in the present half.
    count: u32,
}

impl Line {
    /// A line without reports, of a stream of `rate` frames a second.
    pub(super) fn new(rate: u32) -> Self {
        Self { rate: rate.max(1), halves: [Soonest::default(); 2], count: 0 }
    }

    /// Forgets everything: the stream stood still.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.rate);
    }

    /// Frame `position` leaves or enters the device at `at`.
    pub(super) fn report(&mut self, at: Nanos, position: i64) {
        let origin = self.origin(at, position);
        if self.count == HALF {
            self.halves = [Soonest::default(), self.halves[0]];
            self.count = 0;
        }
        self.count += 1;
        let soonest = &mut self.halves[0].device;
        *soonest = Some(soonest.map_or(origin, |best| best.min(origin)));
    }

    /// The recorded frames up to `position` came here at `at`.
    pub(super) fn came(&mut self, at: Nanos, position: i64) {
        let origin = self.origin(at, position);
        let soonest = &mut self.halves[0].here;
        *soonest = Some(soonest.map_or(origin, |best| best.min(origin)));
    }

    /// The last frame that the device has reached at `at`, and when it did; `None` before the first report.
    pub(super) fn reached(&self, at: Nanos) -> Option<(i64, Nanos)> {
        let passed = i128::from(at.0) - i128::from(self.device()?.0);
        let frames = (passed * i128::from(self.rate)).div_euclid(1_000_000_000);
        let position = i64::try_from(frames).ok()?;
        Some((position, self.when(position)?))
    }

    /// When the device is at frame `position`; `None` before the first report.
    pub(super) fn when(&self, position: i64) -> Option<Nanos> {
        Some(Nanos(self.device()?.0.saturating_add(self.duration(position))))
    }

    /// When the recorded frames up to `position` come here at the soonest; `None` before the first ones.
    pub(super) fn soonest(&self, position: i64) -> Option<Nanos> {
        let origin = self.halves.iter().filter_map(|half| half.here).min()?;
        Some(Nanos(origin.0.saturating_add(self.duration(position))))
    }

    fn device(&self) -> Option<Nanos> {
        self.halves.iter().filter_map(|half| half.device).min()
    }

    fn origin(&self, at: Nanos, position: i64) -> Nanos {
        Nanos(at.0.saturating_sub(self.duration(position)))
    }

    /// Rounded up, so that a frame is reached when it begins.
    fn duration(&self, frames: i64) -> i64 {
        let nanos = -(i128::from(frames) * -1_000_000_000).div_euclid(i128::from(self.rate));
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
        assert_eq!((line.reached(ms(1)), line.soonest(0)), (None, None));
        line.report(ms(10), 480);
        assert_eq!((line.reached(ms(20)), line.when(480)), (Some((960, ms(20))), Some(ms(10))));
        line.reset();
        assert_eq!(line.reached(ms(20)), None);
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
        assert_eq!(line.reached(ms(1_160)), Some((480 * 116 - 9_600, ms(1_160))));
    }

    proptest! {
        /// Reports that are late by up to a cycle: the line is never ahead, and near once one was in time.
        #[test]
        fn late_reports_do_not_drag_the_line(late in proptest::collection::vec(0i64..20_000_000, 20..60)) {
            let mut line = Line::new(48_000);
            for (n, late) in (0i64..).zip(&late) {
                // What was true at 10 n ms is stamped later.
                line.report(ms(10 * n) + Nanos(*late), 480 * n);
                let (position, at) = line.reached(ms(10 * n)).unwrap();
                prop_assert!(position <= 480 * n && at <= ms(10 * n));
                let best = late.min(&20_000_000);
                prop_assert!(position >= 480 * n - 1 - (best * 48 / 1_000_000 + 1));
            }
        }

        #[test]
        fn a_frame_is_reached_when_it_begins(rate in 1u32..400_000, start: i32, frame: i32) {
            let (start, frame) = (Nanos(start.into()), frame.into());
            let mut line = Line::new(rate);
            line.report(start, 0);
            let begins = line.when(frame).unwrap();
            prop_assert_eq!(line.reached(begins), Some((frame, begins)));
            prop_assert!(line.reached(begins - Nanos(1)).unwrap().0 < frame);
        }
    }
}
