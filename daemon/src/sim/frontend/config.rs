//! How the driver reads its card from XenStore.

use vsnd_pw_module::Direction;

use super::params::Capabilities;
use crate::sndif::{FormatSet, Interval, PcmFormat};
use crate::xen::Nodes;

/// PCM devices that a card may have in Linux.
const PCMS: usize = 32;
/// Streams that the driver takes of one PCM.
const STREAMS: usize = 8;

/// The rates that the driver knows; 88200 is not among them.
const RATES: [u32; 12] =
    [5512, 8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 64_000, 96_000, 176_400, 192_000];

/// One stream of the card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// The PCM device that it belongs to.
    pub pcm: usize,
    /// Its number in the PCM, of both directions together.
    pub stream: usize,
    /// Playback or capture.
    pub direction: Direction,
    /// What it can have.
    pub capabilities: Capabilities,
}

impl StreamConfig {
    /// Its directory below the card's.
    pub fn path(&self) -> String {
        format!("{}/{}", self.pcm, self.stream)
    }
}

/// A configuration without which there is no card at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream {0} has no known type")]
pub struct BadConfig(String);

/// Reads the streams of the card at `card`.
pub(super) fn read(nodes: &dyn Nodes, card: &str) -> Result<Vec<StreamConfig>, BadConfig> {
    let exists = |path: &str| nodes.read(path).is_ok();
    let top = inherit(nodes, card, &Capabilities::default());
    let mut streams = Vec::new();
    for pcm in (0..PCMS).take_while(|pcm| exists(&format!("{card}/{pcm}"))) {
        let path = format!("{card}/{pcm}");
        let middle = inherit(nodes, &path, &top);
        for stream in (0..STREAMS).take_while(|stream| exists(&format!("{path}/{stream}"))) {
            let path = format!("{path}/{stream}");
            let direction = match text(nodes, &path, "type").as_deref() {
                Some("p" | "P") => Direction::Playback,
                Some("c" | "C") => Direction::Capture,
                _ => return Err(BadConfig(path)),
            };
            let capabilities = inherit(nodes, &path, &middle);
            streams.push(StreamConfig { pcm, stream, direction, capabilities });
        }
    }
    Ok(streams)
}

fn text(nodes: &dyn Nodes, directory: &str, key: &str) -> Option<String> {
    String::from_utf8(nodes.read(&format!("{directory}/{key}")).ok()?).ok()
}

/// What `above` says, as far as `directory` doesn't override it. Whether it is a subset nobody checks.
fn inherit(nodes: &dyn Nodes, directory: &str, above: &Capabilities) -> Capabilities {
    let number = |key| text(nodes, directory, key)?.parse::<u32>().ok();
    let list = |key| text(nodes, directory, key).unwrap_or_default();
    let mut own = above.clone();
    let rates = list("sample-rates");
    let known = |item: &str| RATES.into_iter().find(|rate| rate.to_string() == item);
    let rates: Vec<u32> = rates.split(',').filter_map(known).collect();
    if let (Some(least), Some(greatest)) = (rates.iter().min(), rates.iter().max()) {
        own.rate_range = Interval::new(*least, *greatest);
        own.rates = rates;
    }
    let formats = list("sample-formats");
    let known =
        |item: &str| PcmFormat::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(item));
    let formats: FormatSet = formats.split(',').filter_map(known).collect();
    if !formats.is_empty() {
        own.formats = formats;
    }
    own.channels.min = number("channels-min").unwrap_or(own.channels.min);
    own.channels.max = number("channels-max").unwrap_or(own.channels.max);
    own.buffer_octets = number("buffer-size").unwrap_or(own.buffer_octets);
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Card, Hypervisor};
    use crate::xen::DomId;

    fn streams(card: &[&str]) -> Result<Vec<StreamConfig>, BadConfig> {
        let xen = Hypervisor::new();
        let guest = xen.create_domain("g", "u").unwrap();
        let attached = xen.announce_card(&guest, DomId(0), &Card::parse(card).unwrap()).unwrap();
        read(&**guest.store(), &attached.frontend())
    }

    #[test]
    fn lower_levels_override_upper_ones() {
        let streams = streams(&[
            "CARD, sample-rates=44100;48000, sample-formats=s16_le;f32_le;S24_LE, buffer-size=131072",
            "PCM, channels-max=8",
            "STREAM, type=p",
            "STREAM, type=c, sample-rates=88200;96000, channels-min=2",
            "PCM",
            "STREAM, type=p",
        ]);
        let streams = streams.unwrap();
        assert_eq!(streams.iter().map(StreamConfig::path).collect::<Vec<_>>(), ["0/0", "0/1", "1/0"]);
        let first = &streams[0].capabilities;
        assert_eq!((first.rates.as_slice(), first.channels), (&[44_100, 48_000][..], Interval::new(1, 8)));
        assert_eq!(
            first.formats,
            FormatSet::from_iter([PcmFormat::S16Le, PcmFormat::S24Le]),
            "xl's floats are unknown"
        );
        let second = &streams[1].capabilities;
        assert_eq!((second.rates.as_slice(), second.channels), (&[96_000][..], Interval::new(2, 8)));
        assert_eq!(streams[2].capabilities.channels, Interval::new(1, 2));
        assert_eq!(streams[2].capabilities.buffer_octets, 131_072);
    }

    #[test]
    fn no_settings_mean_the_drivers_own() {
        let streams = streams(&["CARD", "PCM", "STREAM, type=c"]).unwrap();
        assert_eq!(streams[0].capabilities, Capabilities::default());
    }
}
