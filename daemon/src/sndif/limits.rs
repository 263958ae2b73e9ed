//! What one stream may be opened with: as configured, as asked in HW_PARAM_QUERY, as checked at OPEN.

use std::fmt;

use vsnd_pw_module::{Bounds, Frames, Nanos, Octets, StreamFormat};

use super::{Errno, FormatCode, FormatSet, HwParams, Interval, Open, PcmFormat};

/// The shortest distance between events that a guest may ask for: 64 octets, and the period that the Linux driver
/// offers at least.
pub const SHORTEST_PERIOD: Octets = Octets(64);

/// Periods that a buffer holds at least.
const LEAST_PERIODS: u64 = 2;

/// Rates that a message names: a guest may have listed a thousand, and the log gets a line for each refusal.
const MOST_SHOWN: usize = 12;

/// Rates in frames a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rates {
    /// Any rate from one to another, which is so where no rates are configured.
    Any(Interval<u32>),
    /// These.
    Listed(Vec<u32>),
}

impl Rates {
    /// Whether a rate is among them.
    pub fn contains(&self, rate: u32) -> bool {
        match self {
            Self::Any(range) => range.contains(rate),
            Self::Listed(rates) => rates.contains(&rate),
        }
    }

    /// Those of at most `most` frames a second.
    fn up_to(&self, most: u32) -> Self {
        match self {
            Self::Any(range) => Self::Any(Interval::new(range.min, range.max.min(most))),
            Self::Listed(rates) => Self::Listed(rates.iter().copied().filter(|rate| *rate <= most).collect()),
        }
    }

    /// The least range that holds all of them which lie in `range`; `None` when none does.
    fn within(&self, range: Interval<u32>) -> Option<Interval<u32>> {
        match self {
            Self::Any(all) => all.intersection(range),
            Self::Listed(rates) => {
                let inside = || rates.iter().copied().filter(|rate| range.contains(*rate));
                Some(Interval::new(inside().min()?, inside().max()?))
            }
        }
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(range) => write!(f, "{range}"),
            Self::Listed(rates) => {
                let shown: Vec<_> = rates.iter().take(MOST_SHOWN).map(u32::to_string).collect();
                f.write_str(&shown.join(","))?;
                match rates.len().saturating_sub(MOST_SHOWN) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

/// What one stream may be opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Channels of a frame, at least one.
    pub channels: Interval<u8>,
    /// Frames a second.
    pub rates: Rates,
    /// Formats. Those that aren't plain samples are never offered nor admitted.
    pub formats: FormatSet,
    /// The greatest buffer.
    pub buffer: Octets,
    /// The shortest buffer, in time: what the sound server takes at once has to be in it.
    pub shortest_buffer: Nanos,
}

impl Default for Limits {
    /// What the Linux driver offers its applications where nothing is configured.
    fn default() -> Self {
        Self {
            channels: Interval::new(1, 2),
            rates: Rates::Any(Interval::new(5512, 48_000)),
            formats: [PcmFormat::U8, PcmFormat::S16Le].into_iter().collect(),
            buffer: Octets(64 * 1024),
            shortest_buffer: Nanos(0),
        }
    }
}

/// Why an OPEN is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a format of this stream.
    #[error("format {0} is none of {1}")]
    Format(FormatCode, FormatSet),
    /// Not a rate of this stream.
    #[error("rate {0} is none of {1}")]
    Rate(u32, Rates),
    /// Not a count of channels of this stream.
    #[error("{0} channels are not {1}")]
    Channels(u8, Interval<u8>),
    /// The buffer is empty, ends inside a frame, or is too long.
    #[error("a buffer of {0} is not one of whole frames ({1} each) up to {2}")]
    Buffer(Octets, Octets, Octets),
    /// The buffer is too short for the sound server.
    #[error("a buffer of {0} ms is shorter than the sound server's {1} ms")]
    ShortBuffer(u64, u64),
    /// The period ends inside a frame, is too short, or longer than the buffer.
    #[error(
        "a period of {0} is not one of whole frames ({1} each) from {SHORTEST_PERIOD} up to the buffer's {2}"
    )]
    Period(Octets, Octets, Octets),
}

impl Refusal {
    /// What the guest is told.
    pub const fn errno(&self) -> Errno {
        Errno::Invalid
    }
}

/// The greatest rate at which `frames` frames last for `shortest`, to the whole frame.
fn fastest(shortest: Nanos, frames: Frames) -> u32 {
    let beyond = (u128::from(frames.0) + 1) * 1_000_000_000;
    let rate = beyond.div_ceil(u128::from(shortest.0.max(1).unsigned_abs())) - 1;
    u32::try_from(rate).unwrap_or(u32::MAX)
}

/// Octets of one sample.
fn sample_octets(format: PcmFormat) -> Option<u64> {
    format.sample_format().map(|sample| sample.octets().into())
}

impl Limits {
    /// These limits as far as a sound server can carry them.
    #[must_use]
    pub fn within(&self, bounds: Bounds) -> Self {
        Self {
            channels: Interval::new(self.channels.min, self.channels.max.min(bounds.channels)),
            rates: self.rates.up_to(bounds.rate),
            shortest_buffer: self.shortest_buffer.max(bounds.buffer),
            ..*self
        }
    }

    /// Checks an OPEN, and says what shape the stream has then. A period of zero (no events) is allowed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self, open: &Open) -> Result<StreamFormat, Refusal> {
        let known = open.format.known().filter(|format| self.formats.contains(*format));
        let sample = known.and_then(PcmFormat::sample_format);
        let sample = sample.ok_or(Refusal::Format(open.format, self.offered_formats()))?;
        if !self.channels.contains(open.channels) {
            return Err(Refusal::Channels(open.channels, self.channels));
        }
        if !self.rates.contains(open.rate) {
            return Err(Refusal::Rate(open.rate, self.rates.clone()));
        }
        let format = StreamFormat::new(sample, open.channels, open.rate);
        let format = format.ok_or(Refusal::Channels(open.channels, self.channels))?;
        let frame = Octets(format.frame_octets().into());
        let whole = |octets: Octets| format.frames(octets).is_some();
        if open.buffer == Octets(0) || open.buffer > self.buffer || !whole(open.buffer) {
            return Err(Refusal::Buffer(open.buffer, frame, self.buffer));
        }
        let frames = format.frames(open.buffer).unwrap_or_default();
        if frames < self.shortest_buffer.frames(open.rate) {
            let [has, needs] = [frames.duration(open.rate), self.shortest_buffer].map(Nanos::millis);
            return Err(Refusal::ShortBuffer(has, needs));
        }
        let fits = open.period >= SHORTEST_PERIOD && open.period <= open.buffer && whole(open.period);
        if open.period != Octets(0) && !fits {
            return Err(Refusal::Period(open.period, frame, open.buffer));
        }
        Ok(format)
    }

    fn offered_formats(&self) -> FormatSet {
        self.formats.intersection(FormatSet::plain_samples())
    }

    /// Answers HW_PARAM_QUERY: the subset of what was asked for that could be opened. Each range is as narrow as the
    /// others make it, but no combination that could be opened is left out. `None` when nothing is left.
    pub fn narrow(&self, asked: &HwParams) -> Option<HwParams> {
        let channels = Interval::new(self.channels.min.into(), self.channels.max.into());
        let mut left = HwParams {
            formats: asked.formats.intersection(self.offered_formats()),
            rates: self.rates.within(asked.rates)?,
            channels: asked.channels.intersection(channels)?,
            ..*asked
        };
        loop {
            let before = left;
            left = self.narrow_once(left)?;
            if left == before {
                return Some(left);
            }
        }
    }

    /// One round of what each parameter says of the others.
    fn narrow_once(&self, left: HwParams) -> Option<HwParams> {
        let sizes = || left.formats.iter().filter_map(sample_octets);
        let [least, most] = [u64::from(left.channels.min), u64::from(left.channels.max)];
        let [smallest, largest] = [sizes().min()?, sizes().max()?];

        // What frames of the possible sizes say of buffer and period, and these of each other.
        let longest = Frames(self.buffer.0 / (smallest * least).max(1));
        let shortest = Frames(SHORTEST_PERIOD.0.div_ceil((largest * most).max(1)));
        let period =
            left.period.intersection(Interval::new(shortest, Frames(left.buffer.max.0 / LEAST_PERIODS)))?;
        let two_periods = Frames(period.min.0 * LEAST_PERIODS);
        let least_buffer = two_periods.max(self.shortest_buffer.frames(left.rates.min));
        let buffer = left.buffer.intersection(Interval::new(least_buffer, longest))?;
        let slow = Interval::new(left.rates.min, fastest(self.shortest_buffer, buffer.max));
        let rates = self.rates.within(left.rates.intersection(slow)?)?;

        // What buffer and period say of the size of a frame.
        let fits = |size: u64| {
            size * least * buffer.min.0 <= self.buffer.0 && size * most * period.max.0 >= SHORTEST_PERIOD.0
        };
        let formats = left.formats.iter().filter(|format| sample_octets(*format).is_some_and(fits)).collect();
        let fewest = SHORTEST_PERIOD.0.div_ceil((largest * period.max.0).max(1));
        let many = self.buffer.0 / (smallest * buffer.min.0).max(1);
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let channels = left.channels.intersection(Interval::new(narrow(fewest), narrow(many)))?;
        Some(HwParams { formats, channels, buffer, period, rates })
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
