use proptest::prelude::*;

use super::*;
use crate::xen::GrantRef;

/// All that a guest could ask for.
fn everything() -> HwParams {
    let frames = Interval::new(Frames(0), Frames(u32::MAX.into()));
    let numbers = Interval::new(0, u32::MAX);
    HwParams {
        formats: FormatSet::from_bits(u64::MAX),
        rates: numbers,
        channels: numbers,
        buffer: frames,
        period: frames,
    }
}

fn open(limits: &Limits) -> Open {
    Open {
        rate: 48_000,
        format: PcmFormat::S16Le.into(),
        channels: 2,
        buffer: Octets(limits.buffer.0),
        directory: GrantRef(8),
        period: Octets(4096),
    }
}

#[test]
fn what_linux_offers_without_configuration_is_what_remains_of_everything() {
    let left = Limits::default().narrow(&everything()).unwrap();
    assert_eq!(left.formats.to_string(), "u8,s16_le");
    assert_eq!(left.rates, Interval::new(5512, 48_000));
    assert_eq!(left.channels, Interval::new(1, 2));
    // Of u8 in one channel 65536 frames fit; of s16 in two 16 frames are 64 octets.
    assert_eq!(left.buffer, Interval::new(Frames(32), Frames(65_536)));
    assert_eq!(left.period, Interval::new(Frames(16), Frames(32_768)));
}

#[test]
fn a_format_once_chosen_narrows_the_frames() {
    let mut asked = everything();
    asked.formats = [PcmFormat::S16Le].into_iter().collect();
    asked.channels = Interval::new(2, 2);
    let left = Limits::default().narrow(&asked).unwrap();
    assert_eq!(left.buffer, Interval::new(Frames(32), Frames(16_384)));
    assert_eq!(left.period, Interval::new(Frames(16), Frames(8192)));
}

#[test]
fn a_long_buffer_narrows_formats_and_channels() {
    let mut asked = everything();
    asked.buffer.min = Frames(32_768);
    let left = Limits::default().narrow(&asked).unwrap();
    assert_eq!(left.channels, Interval::new(1, 2), "u8 in two channels fits");
    assert_eq!(left.formats.to_string(), "u8,s16_le", "s16 in one channel fits");
    asked.buffer.min = Frames(32_769);
    let left = Limits::default().narrow(&asked).unwrap();
    assert_eq!((left.formats.to_string(), left.channels), ("u8".into(), Interval::new(1, 1)));
    asked.buffer.min = Frames(65_537);
    assert_eq!(Limits::default().narrow(&asked), None);
}

#[test]
fn a_short_period_narrows_formats_and_channels() {
    let mut asked = everything();
    asked.period.max = Frames(16);
    let left = Limits::default().narrow(&asked).unwrap();
    assert_eq!((left.formats.to_string(), left.channels), ("s16_le".into(), Interval::new(2, 2)));
    asked.period.max = Frames(15);
    assert_eq!(Limits::default().narrow(&asked), None);
}

#[test]
fn listed_rates_are_offered_from_the_least_to_the_greatest_inside() {
    let limits = Limits { rates: Rates::Listed(vec![44_100, 8000, 96_000, 48_000]), ..Limits::default() };
    let mut asked = everything();
    asked.rates = Interval::new(40_000, 50_000);
    assert_eq!(limits.narrow(&asked).unwrap().rates, Interval::new(44_100, 48_000));
    asked.rates = Interval::new(9000, 44_099);
    assert_eq!(limits.narrow(&asked), None);
}

#[test]
fn what_the_server_cannot_carry_is_not_offered_and_not_admitted() {
    let bounds = Bounds { channels: 32, rate: 50_000, buffer: Nanos::from_millis(10) };
    let limits = Limits {
        channels: Interval::new(1, 64),
        rates: Rates::Listed(vec![8000, 44_100, 48_000, 96_000]),
        ..Limits::default()
    };
    let within = limits.within(bounds);
    let left = within.narrow(&everything()).unwrap();
    assert_eq!((left.channels, left.rates), (Interval::new(1, 32), Interval::new(8000, 48_000)));
    assert_eq!(left.buffer.min, Frames(80), "10 ms of the lowest rate");
    let mut asked = everything();
    asked.buffer.max = Frames(479);
    assert_eq!(within.narrow(&asked).unwrap().rates, Interval::new(8000, 44_100));
    let good = Open { buffer: Octets(480 * 4), period: Octets(240 * 4), ..open(&limits) };
    assert!(within.admit(&good).is_ok());
    let refusals = [
        (Open { channels: 33, ..good }, "33 channels are not 1 to 32"),
        (Open { rate: 96_000, ..good }, "rate 96000 is none of 8000,44100,48000"),
        (
            Open { buffer: Octets(479 * 4), ..good },
            "a buffer of 9 ms is shorter than the sound server's 10 ms",
        ),
    ];
    for (open, message) in refusals {
        assert_eq!(within.admit(&open).unwrap_err().to_string(), message);
    }
}

#[test]
fn formats_that_no_server_plays_are_not_offered_though_configured() {
    let formats = [PcmFormat::Mpeg, PcmFormat::S16Le].into_iter().collect();
    let limits = Limits { formats, ..Limits::default() };
    assert_eq!(limits.narrow(&everything()).unwrap().formats.to_string(), "s16_le");
    let refused = limits.admit(&Open { format: PcmFormat::Mpeg.into(), ..open(&limits) }).unwrap_err();
    assert_eq!(refused.to_string(), "format mpeg is none of s16_le");
}

#[test]
fn an_open_is_refused_by_name_of_what_is_wrong() {
    let limits = Limits::default();
    let good = open(&limits);
    assert_eq!(limits.admit(&good).unwrap().frame_octets(), 4);
    assert!(limits.admit(&Open { period: Octets(0), ..good }).is_ok());
    let refusals = [
        (Open { format: FormatCode(99), ..good }, "format unknown format 99 is none of u8,s16_le"),
        (Open { rate: 96_000, ..good }, "rate 96000 is none of 5512 to 48000"),
        (Open { rate: 0, ..good }, "rate 0 is none of 5512 to 48000"),
        (Open { channels: 3, ..good }, "3 channels are not 1 to 2"),
        (Open { channels: 0, ..good }, "0 channels are not 1 to 2"),
        (
            Open { buffer: Octets(65_540), ..good },
            "a buffer of 65540 octets is not one of whole frames (4 octets each) up to 65536 octets",
        ),
        (
            Open { period: Octets(60), ..good },
            "a period of 60 octets is not one of whole frames (4 octets each) from 64 octets up to the buffer's 65536 octets",
        ),
    ];
    for (open, message) in refusals {
        assert_eq!(limits.admit(&open).unwrap_err().to_string(), message);
    }
    for buffer in [0, 2, 65_535] {
        let refused = limits.admit(&Open { buffer: Octets(buffer), ..good });
        assert!(matches!(refused, Err(Refusal::Buffer(..))), "{buffer}");
    }
    for period in [1, 66, 65_540] {
        let refused = limits.admit(&Open { period: Octets(period), ..good });
        assert!(matches!(refused, Err(Refusal::Period(..))), "{period}");
    }
}

#[test]
fn a_long_list_of_rates_is_told_in_short() {
    let all = |count| Rates::Listed((1..=count).collect()).to_string();
    assert_eq!(all(12), "1,2,3,4,5,6,7,8,9,10,11,12");
    assert_eq!(all(700), "1,2,3,4,5,6,7,8,9,10,11,12 and 688 more");
}

fn limits() -> impl Strategy<Value = Limits> {
    let rates = prop_oneof![
        any::<[u16; 2]>().prop_map(|[a, b]| Rates::Any(Interval::new(a.min(b).into(), a.max(b).into()))),
        proptest::collection::vec(1u32..200_000, 1..6).prop_map(Rates::Listed),
    ];
    let (channels, shortest_buffer) = ((1u8..9, 0u8..9), shortest_buffer());
    (channels, rates, any::<u32>(), 64u64..1 << 24, shortest_buffer).prop_map(
        |((least, more), rates, formats, buffer, shortest_buffer)| Limits {
            channels: Interval::new(least, least + more),
            rates,
            formats: FormatSet::from_bits(formats.into()),
            buffer: Octets(buffer),
            shortest_buffer,
        },
    )
}

fn shortest_buffer() -> impl Strategy<Value = Nanos> {
    prop_oneof![Just(Nanos(0)), (0i64..400_000_000).prop_map(Nanos)]
}

fn frames() -> impl Strategy<Value = Interval<Frames>> {
    let count = || prop_oneof![0u64..100, 0u64..100_000, any::<u32>().prop_map(u64::from)];
    (count(), count()).prop_map(|(a, b)| Interval::new(Frames(a), Frames(b)))
}

fn asked() -> impl Strategy<Value = HwParams> {
    let channels = prop_oneof![(0u32..20, 0u32..20), any::<(u32, u32)>()];
    let rates = prop_oneof![(0u32..100_000, 0u32..200_000), any::<(u32, u32)>()];
    (any::<u64>(), rates, channels, frames(), frames()).prop_map(
        |(formats, rates, channels, buffer, period)| HwParams {
            formats: FormatSet::from_bits(formats),
            rates: Interval::new(rates.0, rates.1),
            channels: Interval::new(channels.0, channels.1),
            buffer,
            period,
        },
    )
}

/// What a guest that has decided opens.
#[derive(Clone, Copy, Debug)]
struct Choice {
    format: PcmFormat,
    rate: u32,
    channels: u8,
    buffer: u64,
    period: u64,
}

impl Choice {
    fn asked(self) -> HwParams {
        let one = |value: u32| Interval::new(value, value);
        let frames = |count: u64| Interval::new(Frames(count), Frames(count));
        HwParams {
            formats: [self.format].into_iter().collect(),
            rates: one(self.rate),
            channels: one(self.channels.into()),
            buffer: frames(self.buffer),
            period: frames(self.period),
        }
    }

    fn frame(self) -> u64 {
        sample_octets(self.format).unwrap_or(1) * u64::from(self.channels)
    }

    fn open(self) -> Open {
        Open {
            rate: self.rate,
            format: self.format.into(),
            channels: self.channels,
            buffer: Octets(self.buffer * self.frame()),
            directory: GrantRef(1),
            period: Octets(self.period * self.frame()),
        }
    }

    fn is_inside(self, asked: &HwParams) -> bool {
        asked.formats.contains(self.format)
            && asked.rates.contains(self.rate)
            && asked.channels.contains(self.channels.into())
            && asked.buffer.contains(Frames(self.buffer))
            && asked.period.contains(Frames(self.period))
    }
}

/// Choices on and around the edges of their limits.
fn choices() -> impl Strategy<Value = (Limits, Choice)> {
    let format = proptest::sample::select(PcmFormat::ALL.to_vec());
    let choice = (format, 1u32..70_000, 0u8..10, 1u64..3000, 0u64..20, 0u64..2);
    let choice = choice.prop_map(|(format, rate, channels, period, periods, odd)| Choice {
        format,
        rate,
        channels,
        period: period / 7,
        buffer: period / 7 * periods + odd,
    });
    let around = |value: u64, slack: [u64; 2]| [value.saturating_sub(slack[0]), value + slack[1]];
    (choice, limits(), proptest::array::uniform5(0u64..3), 0u64..10).prop_map(
        move |(choice, other, slack, which)| {
            let [fewest, most] = around(choice.channels.into(), [slack[0], slack[1]]);
            let limits = Limits {
                channels: Interval::new(fewest.max(1) as u8, most.max(1) as u8),
                rates: if which == 0 {
                    other.rates
                } else {
                    Rates::Listed(vec![choice.rate, choice.rate + 500])
                },
                formats: match which {
                    1 => other.formats,
                    _ => other.formats.iter().chain([choice.format]).collect(),
                },
                buffer: Octets((choice.buffer * choice.frame() + slack[2]).saturating_sub(slack[3] / 2)),
                shortest_buffer: match which {
                    2 => other.shortest_buffer,
                    3..6 => Nanos(
                        Frames(choice.buffer).duration(choice.rate).0 + slack[4] as i64 * 20_000 - 20_000,
                    ),
                    _ => Nanos(0),
                },
            };
            (limits, choice)
        },
    )
}

proptest! {
    #[test]
    fn an_answer_is_a_subset_of_question_and_limits(limits in limits(), asked in asked()) {
        let Some(left) = limits.narrow(&asked) else { return Ok(()) };
        prop_assert!(left.formats.is_within(asked.formats) && left.formats.is_within(limits.formats));
        prop_assert!(!left.formats.is_empty());
        prop_assert!(left.rates.intersection(asked.rates) == Some(left.rates) && left.channels.intersection(asked.channels) == Some(left.channels));
        prop_assert!(left.buffer.intersection(asked.buffer) == Some(left.buffer) && left.period.intersection(asked.period) == Some(left.period));
        prop_assert!(!left.rates.is_empty() && !left.channels.is_empty());
        prop_assert!(!left.buffer.is_empty() && !left.period.is_empty());
        prop_assert!(left.channels.max <= limits.channels.max.into());
        prop_assert!(left.period.min.0 >= 1 && left.buffer.min.0 >= 2 * left.period.min.0);
        prop_assert_eq!(limits.narrow(&left), Some(left), "an answer asked again is its own answer");
    }

    #[test]
    fn what_is_offered_at_last_is_admitted_and_nothing_else((limits, choice) in choices()) {
        let offered = limits.narrow(&choice.asked());
        let admitted = limits.admit(&choice.open());
        let right = admitted.is_ok() && choice.period > 0 && choice.buffer >= 2 * choice.period;
        prop_assert_eq!(offered.is_some(), right, "{:?} {:?}", offered, admitted);
    }

    #[test]
    fn no_choice_that_could_be_opened_is_left_out_on_the_way(
        (limits, choice) in choices(),
        other in asked(),
        slack in any::<[u16; 8]>(),
    ) {
        if limits.narrow(&choice.asked()).is_none() {
            return Ok(());
        }
        let around = |value: u32, [less, more]: [u16; 2]| {
            Interval::new(value.saturating_sub(less.into()), value.saturating_add(more.into()))
        };
        let frames = |value: u64, slack| {
            let range = around(value as u32, slack);
            Interval::new(Frames(range.min.into()), Frames(range.max.into()))
        };
        let asked = HwParams {
            formats: FormatSet::from_bits(other.formats.bits() | 1 << choice.format.code()),
            rates: around(choice.rate, [slack[0], slack[1]]),
            channels: around(choice.channels.into(), [slack[2] % 8, slack[3]]),
            buffer: frames(choice.buffer, [slack[4], slack[5]]),
            period: frames(choice.period, [slack[6], slack[7]]),
        };
        let left = limits.narrow(&asked);
        prop_assert!(left.is_some_and(|left| choice.is_inside(&left)), "{asked:?} {left:?}");
    }
}
