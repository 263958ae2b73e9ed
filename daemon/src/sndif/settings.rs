//! Settings that a card hands down to its PCMs, and a PCM to its streams.
//!
//! "Every underlying layer in turn can re-define some or all of them. The rule is that the underlying layer must be a
//! subset of the upper layer range." No Linux guest enforces the rule: what stands lower simply holds, even if it is
//! wider. The bridge does the same, so that guest and bridge mean the same, and reports it as a [`Warning`]; what a host
//! allows at most is a matter of its own policy, not of these nodes.

use std::fmt;

use vsnd_pw_module::Octets;

use super::keys;
use super::node::{ConfigError, Problem, Quote, decimal, fault, number, text};
use super::{FormatSet, Interval, Limits, PcmFormat, Rates, SHORTEST_PERIOD};
use crate::xen::Nodes;

const CHANNELS: Interval<u32> = Interval::new(1, u8::MAX as u32);
/// Far beyond any sound card.
const RATE: Interval<u32> = Interval::new(1, 1_000_000);
/// Two of the shortest periods, to what fits in the field of an OPEN.
const BUFFER: Interval<u32> = Interval::new(2 * SHORTEST_PERIOD.0 as u32, u32::MAX);

/// Warnings of one card, which a guest could otherwise make any number of.
pub(super) const MOST_WARNINGS: usize = 20;

/// Something odd that doesn't keep a card from working, worth one line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The node's path.
    pub node: String,
    /// What is odd.
    pub oddity: Oddity,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.oddity)
    }
}

/// What is odd about a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Oddity {
    /// It allows what the level above doesn't.
    #[error(
        "allows {lower}, more than the {upper} of the level above; the lower level holds, as guests see it"
    )]
    Wider {
        /// What it allows.
        lower: String,
        /// What the level above allows.
        upper: String,
    },
    /// The protocol has no such format.
    #[error("names the unknown format {0}, which is left out")]
    UnknownFormat(Quote),
    /// A format that isn't plain samples.
    #[error("names the format {0}, which no sound server plays; it is left out")]
    NotPlayed(PcmFormat),
    /// xl's spelling of a float format.
    #[error("spells a format {0}, as xl does; Linux guests know it as {1} only and won't offer it")]
    Spelling(Quote, PcmFormat),
    /// A name longer than the protocol allows.
    #[error("holds a name longer than {0} octets, which is cut")]
    LongName(usize),
}

/// What the levels so far have set; the rest has its default.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    channels_min: Option<u8>,
    channels_max: Option<u8>,
    rates: Option<Vec<u32>>,
    formats: Option<FormatSet>,
    buffer: Option<Octets>,
}

impl Settings {
    /// These settings with what is set in the directory `level` in their place.
    pub(super) fn with_level(
        &self,
        nodes: &dyn Nodes,
        level: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let node = |key: &str| format!("{level}/{key}");
        let channels_min = channels(nodes, &node(keys::CHANNELS_MIN))?;
        let channels_max = channels(nodes, &node(keys::CHANNELS_MAX))?;
        let rates = rates(nodes, &node(keys::SAMPLE_RATES))?;
        let formats = formats(nodes, &node(keys::SAMPLE_FORMATS), warnings)?;
        let buffer = number(nodes, &node(keys::BUFFER_SIZE), BUFFER)?.map(|size| Octets(size.into()));

        let mut wider = |key, lower: String, upper: String| {
            warnings.push(Warning { node: node(key), oddity: Oddity::Wider { lower, upper } });
        };
        if let (Some(lower), Some(upper)) = (channels_min, self.channels_min)
            && lower < upper
        {
            wider(keys::CHANNELS_MIN, lower.to_string(), upper.to_string());
        }
        if let (Some(lower), Some(upper)) = (channels_max, self.channels_max)
            && lower > upper
        {
            wider(keys::CHANNELS_MAX, lower.to_string(), upper.to_string());
        }
        if let (Some(lower), Some(upper)) = (&rates, &self.rates)
            && lower.iter().any(|rate| !upper.contains(rate))
        {
            let list = |rates: &Vec<u32>| Rates::Listed(rates.clone()).to_string();
            wider(keys::SAMPLE_RATES, list(lower), list(upper));
        }
        if let (Some(lower), Some(upper)) = (formats, self.formats)
            && !lower.is_within(upper)
        {
            wider(keys::SAMPLE_FORMATS, lower.to_string(), upper.to_string());
        }
        if let (Some(lower), Some(upper)) = (buffer, self.buffer)
            && lower > upper
        {
            wider(keys::BUFFER_SIZE, lower.to_string(), upper.to_string());
        }
        Ok(Self {
            channels_min: channels_min.or(self.channels_min),
            channels_max: channels_max.or(self.channels_max),
            rates: rates.or_else(|| self.rates.clone()),
            formats: formats.or(self.formats),
            buffer: buffer.or(self.buffer),
        })
    }

    /// What a stream of the directory `stream` may be opened with.
    pub(super) fn limits(&self, stream: &str) -> Result<Limits, ConfigError> {
        let default = Limits::default();
        let channels = Interval::new(
            self.channels_min.unwrap_or(default.channels.min),
            self.channels_max.unwrap_or(default.channels.max),
        );
        if channels.is_empty() {
            return Err(fault(stream, Problem::Channels(channels)));
        }
        Ok(Limits {
            channels,
            rates: self.rates.clone().map_or(default.rates, Rates::Listed),
            formats: self.formats.unwrap_or(default.formats),
            buffer: self.buffer.unwrap_or(default.buffer),
            ..default
        })
    }
}

fn channels(nodes: &dyn Nodes, node: &str) -> Result<Option<u8>, ConfigError> {
    Ok(number(nodes, node, CHANNELS)?.and_then(|count| u8::try_from(count).ok()))
}

/// "Sample rates are expressed as a list of decimal values without any ordering requirement."
fn rates(nodes: &dyn Nodes, node: &str) -> Result<Option<Vec<u32>>, ConfigError> {
    let Some(text) = text(nodes, node)? else { return Ok(None) };
    let rate = |item| {
        decimal(item, RATE)
            .ok_or_else(|| fault(node, Problem::Number { found: Quote::new(item), range: RATE }))
    };
    let mut rates = text.split(keys::LIST_SEPARATOR).map(rate).collect::<Result<Vec<_>, _>>()?;
    rates.sort_unstable();
    rates.dedup();
    Ok(Some(rates))
}

/// Names that the protocol doesn't have are left out, as Linux does; there must remain one.
fn formats(
    nodes: &dyn Nodes,
    node: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Option<FormatSet>, ConfigError> {
    let Some(text) = text(nodes, node)? else { return Ok(None) };
    let mut formats = Vec::new();
    // A list that repeats itself warns once of each name.
    let mut oddities = Vec::new();
    for item in text.split(keys::LIST_SEPARATOR) {
        let format = PcmFormat::from_name(item);
        let oddity = match format {
            None => Some(Oddity::UnknownFormat(Quote::new(item))),
            Some(format) if format.sample_format().is_none() => Some(Oddity::NotPlayed(format)),
            Some(format) if !item.eq_ignore_ascii_case(format.name()) => {
                Some(Oddity::Spelling(Quote::new(item), format))
            }
            Some(_) => None,
        };
        formats.extend(format);
        oddities.extend(oddity.filter(|new| oddities.len() < MOST_WARNINGS && !oddities.contains(new)));
    }
    let formats = formats.into_iter().collect::<FormatSet>().intersection(FormatSet::plain_samples());
    if formats.is_empty() {
        return Err(fault(node, Problem::Formats(Quote::new(&text))));
    }
    warnings.extend(oddities.into_iter().map(|oddity| Warning { node: node.into(), oddity }));
    Ok(Some(formats))
}
