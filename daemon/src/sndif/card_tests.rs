use proptest::prelude::*;
use vsnd_pw_module::Octets;

use super::super::testing::TestNodes;
use super::super::{FormatSet, Interval, PcmFormat, Rates};
use super::*;

/// The example of the protocol's header.
const EXAMPLE: &[(&str, &str)] = &[
    ("/f/backend-id", "0"),
    ("/f/backend", "/local/domain/0/backend/vsnd/1/0"),
    ("/f/state", "4"),
    ("/f/short-name", "Card short name"),
    ("/f/long-name", "Card long name"),
    ("/f/sample-rates", "8000,32000,44100,48000,96000"),
    ("/f/sample-formats", "s8,u8,s16_le,s16_be"),
    ("/f/buffer-size", "262144"),
    ("/f/0/name", "General analog"),
    ("/f/0/channels-max", "5"),
    ("/f/0/0/type", "p"),
    ("/f/0/0/sample-formats", "s8,u8"),
    ("/f/0/0/unique-id", "0"),
    ("/f/0/0/ring-ref", "386"),
    ("/f/0/1/type", "c"),
    ("/f/0/1/channels-max", "2"),
    ("/f/0/1/unique-id", "1"),
    ("/f/1/name", "HDMI-0"),
    ("/f/1/sample-rates", "8000,32000,44100"),
    ("/f/1/0/type", "c"),
    ("/f/1/0/unique-id", "2"),
];

fn example_with(changes: &[(&str, &str)]) -> TestNodes {
    let mut nodes = TestNodes::of(EXAMPLE);
    for (node, value) in changes {
        nodes.set(node, value.as_bytes());
    }
    nodes
}

fn refusal(changes: &[(&str, &str)]) -> String {
    CardConfig::read(&example_with(changes), "/f").unwrap_err().to_string()
}

fn warnings(changes: &[(&str, &str)]) -> Vec<String> {
    let (_, warnings) = CardConfig::read(&example_with(changes), "/f").unwrap();
    warnings.iter().map(Warning::to_string).collect()
}

fn formats(formats: &[PcmFormat]) -> FormatSet {
    formats.iter().copied().collect()
}

#[test]
fn the_example_of_the_header_is_read_with_what_each_level_hands_down() {
    let (card, warnings) = CardConfig::read(&example_with(&[]), "/f").unwrap();
    assert_eq!(warnings, []);
    let card_limits = Limits {
        channels: Interval::new(1, 2),
        rates: Rates::Listed(vec![8000, 32_000, 44_100, 48_000, 96_000]),
        formats: formats(&[PcmFormat::S8, PcmFormat::U8, PcmFormat::S16Le, PcmFormat::S16Be]),
        buffer: Octets(262_144),
        ..Limits::default()
    };
    let stream = |index, direction, limits| Stream { index, direction, limits };
    let playback = Limits {
        channels: Interval::new(1, 5),
        formats: formats(&[PcmFormat::S8, PcmFormat::U8]),
        ..card_limits.clone()
    };
    let hdmi = Limits { rates: Rates::Listed(vec![8000, 32_000, 44_100]), ..card_limits.clone() };
    let expected = [
        Pcm {
            index: 0,
            name: Some("General analog".into()),
            streams: vec![
                stream(0, Direction::Playback, playback),
                stream(1, Direction::Capture, card_limits),
            ],
        },
        Pcm { index: 1, name: Some("HDMI-0".into()), streams: vec![stream(0, Direction::Capture, hdmi)] },
    ];
    assert_eq!(card.pcms, expected);
}

#[test]
fn a_bare_card_has_the_defaults_of_linux() {
    let (card, warnings) = CardConfig::read(&TestNodes::of(&[("/f/0/0/type", "p")]), "/f").unwrap();
    assert_eq!(warnings, []);
    assert_eq!(card.pcms[0].name, None);
    assert_eq!(card.pcms[0].streams[0].limits, Limits::default());
}

#[test]
fn a_lower_level_that_is_wider_holds_and_is_reported() {
    let changes = [
        ("/f/channels-min", "2"),
        ("/f/channels-max", "4"),
        ("/f/1/channels-min", "1"),
        ("/f/1/0/buffer-size", "524288"),
        ("/f/1/0/sample-rates", "8000,192000"),
        ("/f/1/0/sample-formats", "S16_LE,s32_le"),
    ];
    let (card, _) = CardConfig::read(&example_with(&changes), "/f").unwrap();
    let limits = &card.pcms[1].streams[0].limits;
    assert_eq!(limits.channels, Interval::new(1, 4));
    assert_eq!(limits.buffer, Octets(524_288));
    assert_eq!(limits.rates, Rates::Listed(vec![8000, 192_000]));
    assert_eq!(limits.formats, formats(&[PcmFormat::S16Le, PcmFormat::S32Le]));
    let rest = "of the level above; the lower level holds, as guests see it";
    let expected = [
        format!("/f/0/channels-max: allows 5, more than the 4 {rest}"),
        format!("/f/1/channels-min: allows 1, more than the 2 {rest}"),
        format!("/f/1/0/sample-rates: allows 8000,192000, more than the 8000,32000,44100 {rest}"),
        format!("/f/1/0/sample-formats: allows s16_le,s32_le, more than the s8,u8,s16_le,s16_be {rest}"),
        format!("/f/1/0/buffer-size: allows 524288 octets, more than the 262144 octets {rest}"),
    ];
    assert_eq!(warnings(&changes), expected);
}

#[test]
fn formats_that_guests_cannot_use_are_reported_and_left_out() {
    let listed = "f32_le,float_be,mpeg,s17_le,s17_le,S16_LE";
    let (card, _) = CardConfig::read(&example_with(&[("/f/1/sample-formats", listed)]), "/f").unwrap();
    let expected = formats(&[PcmFormat::F32Le, PcmFormat::F32Be, PcmFormat::S16Le]);
    assert_eq!(card.pcms[1].streams[0].limits.formats, expected);
    let warned = warnings(&[("/f/1/sample-formats", listed)]);
    let expected = [
        "spells a format \"f32_le\", as xl does; Linux guests know it as float_le only and won't offer it",
        "names the format mpeg, which no sound server plays; it is left out",
        "names the unknown format \"s17_le\", which is left out",
    ];
    let expected = expected.map(|text| format!("/f/1/sample-formats: {text}"));
    assert_eq!(warned[..3], expected, "and then that it is wider than the card's");
}

#[test]
fn values_that_cannot_be_are_refused_with_node_and_remedy() {
    let refusals = [
        ("/f/0/0/type", "x", "holds \"x\"; it should hold \"p\" for playback or \"c\" for capture"),
        ("/f/channels-max", "0", "holds \"0\"; it should hold a decimal number from 1 to 255"),
        ("/f/0/channels-min", "1 ", "holds \"1 \"; it should hold a decimal number from 1 to 255"),
        ("/f/sample-rates", "", "holds \"\"; it should hold a decimal number from 1 to 1000000"),
        (
            "/f/sample-rates",
            "8000, 9000",
            "holds \" 9000\"; it should hold a decimal number from 1 to 1000000",
        ),
        ("/f/sample-rates", "0", "holds \"0\"; it should hold a decimal number from 1 to 1000000"),
        (
            "/f/0/1/sample-formats",
            "mpeg,x",
            "holds \"mpeg,x\", no format that can be played; \"s16_le,s32_le\" would be two",
        ),
        ("/f/buffer-size", "127", "holds \"127\"; it should hold a decimal number from 128 to 4294967295"),
        (
            "/f/buffer-size",
            "99999999999",
            "holds \"99999999999\"; it should hold a decimal number from 128 to 4294967295",
        ),
    ];
    for (node, value, message) in refusals {
        assert_eq!(refusal(&[(node, value)]), format!("{node}: {message}"));
    }
    let crossed =
        "/f/0/1: allows 3 to 2 channels; channels-min must not be above channels-max (1 and 2 where not set)";
    assert_eq!(refusal(&[("/f/channels-min", "3")]), crossed);
}

#[test]
fn a_card_of_the_wrong_shape_is_refused() {
    let mut nodes = example_with(&[]);
    nodes.unset("/f/0/1/type");
    let error = CardConfig::read(&nodes, "/f").unwrap_err();
    let message = "/f/0/1/type: is missing; it should hold \"p\" for playback or \"c\" for capture";
    assert_eq!(error.to_string(), message);
    let message = "/f: has PCMs up to 3 but none of index 2; they must be numbered from 0 without a gap";
    assert_eq!(refusal(&[("/f/3/name", "")]), message);
    let error = CardConfig::read(&TestNodes::of(&[("/f/state", "1")]), "/f").unwrap_err();
    assert_eq!(error.problem, Problem::NoPcm);
    let many: Vec<_> = (0..33).map(|index| format!("/f/{index}/0/type")).collect();
    let many: Vec<_> = many.iter().map(|node| (node.as_str(), "p")).collect();
    assert_eq!(refusal(&many), "/f: has 33 PCMs; at most 32 can be");
    let many: Vec<_> = (0..9).map(|index| format!("/f/0/{index}/type")).collect();
    let many: Vec<_> = many.iter().map(|node| (node.as_str(), "p")).collect();
    assert_eq!(refusal(&many), "/f/0: has 9 streams; at most 8 can be");
}

#[test]
fn names_are_made_fit_to_be_shown() {
    let long = "é".repeat(60);
    let name = |name: &str| {
        let (card, _) = CardConfig::read(&example_with(&[("/f/0/name", name)]), "/f").unwrap();
        card.pcms[0].name.clone()
    };
    assert_eq!(name("\u{1b}[31ma\0b").as_deref(), Some("[31mab"));
    assert_eq!(name(" \n "), None);
    assert_eq!(name(&long).map(|name| name.len()), Some(80));
    let warned = "/f/0/name: holds a name longer than 80 octets, which is cut";
    assert_eq!(warnings(&[("/f/0/name", &long)]), [warned]);
}

#[test]
fn a_name_that_is_for_the_guest_alone_costs_no_card_its_sound() {
    let mut nodes = example_with(&[]);
    for name in ["short-name", "long-name", "0/0/unique-id"] {
        nodes.set(&format!("/f/{name}"), &[0xff; 3000]);
    }
    let (card, warnings) = CardConfig::read(&nodes, "/f").unwrap();
    assert_eq!((card.pcms.len(), warnings.len()), (2, 0));
}

#[test]
fn a_guest_of_many_oddities_gets_few_lines() {
    let list = (0..500).map(|n| format!("x{n}")).collect::<Vec<_>>().join(",") + ",u8";
    assert_eq!(warnings(&[("/f/sample-formats", &list)]).len(), MOST_WARNINGS);
}

proptest! {
    #[test]
    fn no_tree_of_nodes_harms_the_reader(
        values in proptest::collection::vec(
            (
                "(/f)(/[0-3a]){0,2}",
                proptest::sample::select(vec![
                    "type", "name", "short-name", "unique-id", "channels-min", "channels-max", "sample-rates",
                    "sample-formats", "buffer-size", "0", "1",
                ]),
                prop_oneof![
                    "p|c|[0-9]{1,3}|[0-9]{1,12}|([0-9]{1,6},){0,3}[0-9]{1,6}|(s16_le|u8|mpeg|float_le|x)(,s8|,gsm){0,2}"
                        .prop_map(String::into_bytes),
                    proptest::collection::vec(any::<u8>(), 0..20),
                ],
            ),
            0..30,
        )
    ) {
        let mut nodes = TestNodes::of(&[("/f/0/0/type", "p")]);
        for (directory, key, value) in values {
            nodes.set(&format!("{directory}/{key}"), &value);
        }
        if let Ok((card, _)) = CardConfig::read(&nodes, "/f") {
            prop_assert!(!card.pcms.is_empty());
            for stream in card.pcms.iter().flat_map(|pcm| &pcm.streams) {
                prop_assert!(!stream.limits.channels.is_empty() && stream.limits.channels.min > 0);
                prop_assert!(!stream.limits.formats.is_empty());
                prop_assert!(stream.limits.formats.is_within(FormatSet::plain_samples()));
            }
        }
    }
}
