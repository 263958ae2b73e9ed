//! XenStore: all nodes of a card's configuration are the guest's to write, and what they allow is then asked for.

use arbitrary::{Arbitrary, Unstructured};
use vsnd_bridge::guest::names::{Domain, Place};
use vsnd_bridge::sndif::{
    CardConfig, FormatCode, FormatSet, HwParams, Interval, Limits, MOST_PCMS, MOST_STREAMS, Open, PcmFormat,
    SHORTEST_PERIOD, Transport, check_version, keys,
};
use vsnd_bridge::xen::{DomId, GrantRef};
use vsnd_pw_module::{Direction, Frames, Octets};

use super::nodes::Edit;
use crate::xen::Tree;

const FRONTEND: &str = "/local/domain/7/device/vsnd/0";

/// What a message may be long at most, in octets.
const LONGEST_MESSAGE: usize = 512;

/// What is asked of each stream.
#[derive(Debug, Arbitrary)]
struct Asked {
    rate: u32,
    format: u8,
    channels: u8,
    buffer: u32,
    period: u32,
    formats: u64,
    ranges: [u32; 6],
}

fn honest() -> Tree {
    let nodes = [
        ("/sample-rates", "44100,48000"),
        ("/sample-formats", "s16_le,s32_le"),
        ("/buffer-size", "65536"),
        ("/0/name", "Main"),
        ("/0/0/type", "p"),
        ("/0/1/type", "c"),
        ("/0/0/ring-ref", "8"),
        ("/0/0/event-channel", "1"),
        ("/0/0/evt-ring-ref", "9"),
        ("/0/0/evt-event-channel", "2"),
    ];
    Tree(nodes.iter().map(|(node, value)| (format!("{FRONTEND}{node}"), value.as_bytes().to_vec())).collect())
}

pub fn run(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let asked: Asked = input.arbitrary()?;
    let mut tree = honest();
    for edit in crate::steps::<Edit>(input) {
        for (node, value) in edit.nodes(FRONTEND) {
            match value {
                Some(value) => tree.0.insert(node, value),
                None => tree.0.remove(&node),
            };
        }
    }
    message(check_version(&tree, FRONTEND));
    message(Transport::read(&tree, &keys::stream_directory(FRONTEND, 0, 0)));
    let Some((card, warnings)) = message(CardConfig::read(&tree, FRONTEND)) else { return Ok(()) };
    for warning in &warnings {
        is_plain(&warning.to_string());
    }
    assert!(warnings.len() <= 20);
    assert!((1..=usize::from(MOST_PCMS)).contains(&card.pcms.len()));
    let domain = Domain { id: DomId(7), name: Some("work".into()), uuid: None };
    for pcm in &card.pcms {
        let place = Place { card: 0, pcm: pcm.index.into(), stream: 0 };
        let names = domain.node(place, Direction::Playback, pcm.name.as_deref());
        assert!(names.description.starts_with("work: ") && names.media_name.chars().count() <= 64);
        is_plain(&names.description);
        assert!(pcm.streams.len() <= usize::from(MOST_STREAMS));
        for stream in &pcm.streams {
            ask(&stream.limits, &asked);
        }
    }
    Ok(())
}

fn message<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| is_plain(&error.to_string())).ok()
}

/// What the log gets of a guest is one short line.
fn is_plain(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.len() <= LONGEST_MESSAGE, "{} octets: {text}", text.len());
}

/// Opens and queries a stream of these limits.
fn ask(limits: &Limits, asked: &Asked) {
    let open = Open {
        rate: asked.rate,
        format: FormatCode(asked.format),
        channels: asked.channels,
        buffer: Octets(asked.buffer.into()),
        directory: GrantRef(1),
        period: Octets(asked.period.into()),
    };
    // A guess may hit by the stream's own values, too.
    let Interval { min, max } = limits.channels;
    let within = |number: u32, most: u64| u64::from(number) % (most + 1);
    for open in [
        open,
        Open {
            rate: if limits.rates.contains(48_000) { 48_000 } else { asked.rate },
            format: FormatCode(2),
            channels: min + asked.channels % (max - min + 1),
            buffer: Octets(within(asked.buffer, limits.buffer.0)),
            period: Octets(within(asked.period, limits.buffer.0)),
            ..open
        },
    ] {
        match limits.admit(&open) {
            Ok(format) => {
                assert!(limits.channels.contains(open.channels) && limits.rates.contains(open.rate));
                assert!(
                    PcmFormat::from_code(open.format.0).is_some_and(|code| limits.formats.contains(code))
                );
                let whole = |octets: Octets| octets.0.is_multiple_of(format.frame_octets().into());
                assert!(open.buffer > Octets(0) && open.buffer <= limits.buffer && whole(open.buffer));
                let fits = (SHORTEST_PERIOD..=open.buffer).contains(&open.period) && whole(open.period);
                assert!(open.period == Octets(0) || fits);
            }
            Err(refusal) => is_plain(&refusal.to_string()),
        }
    }
    let [rate, rates, channel, channels, buffer, period] = asked.ranges;
    let frames = |from: u32, to: u32| Interval::new(Frames(from.into()), Frames(to.into()));
    let query = HwParams {
        formats: FormatSet::from_bits(asked.formats),
        rates: Interval::new(rate, rates),
        channels: Interval::new(channel, channels),
        buffer: frames(buffer, asked.buffer),
        period: frames(period, asked.period),
    };
    if let Some(left) = limits.narrow(&query) {
        assert!(query.rates.min <= left.rates.min && left.rates.max <= query.rates.max);
        assert!(query.channels.min <= left.channels.min && left.channels.max <= query.channels.max);
        assert!(query.buffer.min <= left.buffer.min && left.buffer.max <= query.buffer.max);
        assert!(query.period.min <= left.period.min && left.period.max <= query.period.max);
        assert!(left.formats.is_within(query.formats) && left.formats.is_within(limits.formats));
        assert_eq!(limits.narrow(&left), Some(left), "what is left stays left");
    }
}
