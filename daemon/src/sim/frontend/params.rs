//! Hardware parameters: what a stream of the card can have, and how the driver asks the backend about it.

use vsnd_pw_module::{Frames, StreamFormat};

use super::core::PcmError;
use crate::sndif::{FormatSet, HwParams as Ranges, Interval, PcmFormat};

/// What an application asks of hw_params.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HwParams {
    /// Frames a second.
    pub rate: u32,
    /// The sample format.
    pub format: PcmFormat,
    /// Channels of a frame.
    pub channels: u8,
    /// The period.
    pub period: Frames,
    /// The whole ring.
    pub buffer: Frames,
}

impl HwParams {
    /// 16 bits, two channels, 48 kHz: with this period and ring.
    pub const fn cd(period: u64, buffer: u64) -> Self {
        Self {
            rate: 48_000,
            format: PcmFormat::S16Le,
            channels: 2,
            period: Frames(period),
            buffer: Frames(buffer),
        }
    }

    /// The shape of the frames; `None` for formats that aren't plain samples.
    pub fn stream_format(&self) -> Option<StreamFormat> {
        StreamFormat::new(self.format.sample_format()?, self.channels, self.rate)
    }

    fn ranges(&self) -> Ranges {
        Ranges {
            formats: FormatSet::from_iter([self.format]),
            rates: Interval::new(self.rate, self.rate),
            channels: Interval::new(self.channels.into(), self.channels.into()),
            buffer: Interval::new(self.buffer, self.buffer),
            period: Interval::new(self.period, self.period),
        }
    }
}

/// What the driver lets a stream have, from the card's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Formats.
    pub formats: FormatSet,
    /// The rates listed; empty: any from the least to the greatest.
    pub rates: Vec<u32>,
    /// The least and the greatest rate, in frames a second.
    pub rate_range: Interval<u32>,
    /// Channels.
    pub channels: Interval<u32>,
    /// The longest ring, in octets.
    pub buffer_octets: u32,
}

/// The shortest period, in octets.
const PERIOD_OCTETS: u64 = 64;
/// The fewest periods in a ring.
const PERIODS: u64 = 2;

impl Default for Capabilities {
    /// The driver's own, where the configuration says nothing.
    fn default() -> Self {
        Self {
            formats: FormatSet::from_iter([PcmFormat::U8, PcmFormat::S16Le]),
            rates: Vec::new(),
            rate_range: Interval::new(5512, 48_000),
            channels: Interval::new(1, 2),
            buffer_octets: 65_536,
        }
    }
}

/// The five rules that the driver installs, each a query of its own.
const RULES: [fn(&mut Ranges, &Ranges) -> Option<()>; 5] = [
    |ranges, answer| {
        ranges.formats = ranges.formats.intersection(answer.formats);
        (!ranges.formats.is_empty()).then_some(())
    },
    |ranges, answer| {
        ranges.rates = ranges.rates.intersection(answer.rates)?;
        Some(())
    },
    |ranges, answer| {
        ranges.channels = ranges.channels.intersection(answer.channels)?;
        Some(())
    },
    |ranges, answer| {
        ranges.buffer = ranges.buffer.intersection(answer.buffer)?;
        Some(())
    },
    |ranges, answer| {
        ranges.period = ranges.period.intersection(answer.period)?;
        Some(())
    },
];

impl Capabilities {
    /// Everything that a stream could have.
    pub fn ranges(&self) -> Ranges {
        let all = Interval::new(Frames(1), Frames(u64::from(self.buffer_octets)));
        Ranges {
            formats: self.formats,
            rates: self.rate_range,
            channels: self.channels,
            buffer: all,
            period: all,
        }
    }

    /// The sound core's own rules: sizes in octets, at least two periods in a ring.
    fn narrow(&self, ranges: &mut Ranges) -> Option<()> {
        let sizes = || ranges.formats.iter().filter_map(|format| Some(format.sample_format()?.octets()));
        let least = u64::from(sizes().min()? * ranges.channels.min);
        let most = u64::from(sizes().max()? * ranges.channels.max);
        let longest = Frames(u64::from(self.buffer_octets) / least);
        let shortest = Frames(PERIOD_OCTETS.div_ceil(most));
        ranges.period = ranges.period.intersection(Interval::new(shortest, longest))?;
        let buffers = Interval::new(Frames(ranges.period.min.0 * PERIODS), longest);
        ranges.buffer = ranges.buffer.intersection(buffers)?;
        let periods = Interval::new(Frames(1), Frames(ranges.buffer.max.0 / PERIODS));
        ranges.period = ranges.period.intersection(periods)?;
        if !self.rates.is_empty() {
            let listed = || self.rates.iter().copied().filter(|rate| ranges.rates.contains(*rate));
            ranges.rates = Interval::new(listed().min()?, listed().max()?);
        }
        Some(())
    }

    /// Narrows `ranges` until nothing changes any more, asking the backend once for each rule of each pass.
    ///
    /// # Errors
    /// [`PcmError::Invalid`] when nothing is left; what `query` says.
    pub(super) fn refine(
        &self,
        ranges: &mut Ranges,
        query: &dyn Fn(Ranges) -> Result<Ranges, PcmError>,
    ) -> Result<(), PcmError> {
        loop {
            let before = *ranges;
            self.narrow(ranges).ok_or(PcmError::Invalid)?;
            for rule in RULES {
                let answer = query(*ranges)?;
                rule(ranges, &answer).ok_or(PcmError::Invalid)?;
            }
            if *ranges == before {
                return Ok(());
            }
        }
    }

    /// Whether `params` can be had.
    ///
    /// # Errors
    /// As [`refine`](Self::refine).
    pub(super) fn check(
        &self,
        params: &HwParams,
        query: &dyn Fn(Ranges) -> Result<Ranges, PcmError>,
    ) -> Result<(), PcmError> {
        let (mut ranges, asked) = (self.ranges(), params.ranges());
        for rule in RULES {
            rule(&mut ranges, &asked).ok_or(PcmError::Invalid)?;
        }
        self.refine(&mut ranges, query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn all_is_asked_in_passes_until_nothing_changes() {
        let capabilities = Capabilities::default();
        let queries = Cell::new(0);
        let backend = |mut ranges: Ranges| {
            queries.set(queries.get() + 1);
            ranges.rates.min = ranges.rates.min.max(44_100);
            ranges.buffer.min = ranges.buffer.min.max(Frames(2048));
            Ok(ranges)
        };
        let mut ranges = capabilities.ranges();
        capabilities.refine(&mut ranges, &backend).unwrap();
        assert_eq!(ranges.rates, Interval::new(44_100, 48_000));
        assert_eq!(ranges.buffer, Interval::new(Frames(2048), Frames(65_536)));
        assert_eq!(ranges.period, Interval::new(Frames(16), Frames(32_768)));
        assert!(queries.get() >= 10 && queries.get() % 5 == 0, "{}", queries.get());
        assert_eq!(capabilities.check(&HwParams::cd(1024, 4096), &backend), Ok(()));
        assert_eq!(capabilities.check(&HwParams::cd(512, 1024), &backend), Err(PcmError::Invalid));
        assert_eq!(capabilities.check(&HwParams::cd(3000, 4096), &backend), Err(PcmError::Invalid));
        let rate = HwParams { rate: 22_050, ..HwParams::cd(1024, 4096) };
        assert_eq!(capabilities.check(&rate, &backend), Err(PcmError::Invalid));
    }

    #[test]
    fn rates_between_the_listed_ones_can_t_be_had() {
        let capabilities = Capabilities {
            rates: vec![44_100, 48_000],
            rate_range: Interval::new(44_100, 48_000),
            ..Capabilities::default()
        };
        let echo = |ranges: Ranges| Ok(ranges);
        let rate = |rate| HwParams { rate, ..HwParams::cd(1024, 4096) };
        assert_eq!(capabilities.check(&rate(48_000), &echo), Ok(()));
        assert_eq!(capabilities.check(&rate(46_000), &echo), Err(PcmError::Invalid));
    }
}
