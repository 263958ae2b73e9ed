//! A running stream through whatever may befall a host, in virtual time: other sinks, other servers, none, and sleep.

use proptest::prelude::*;

use super::*;

/// What a host goes through.
#[derive(Clone, Debug)]
enum Weather {
    /// A server's cycles, of so many frames of a graph at its own rate, every frame heard (or captured) so many frames of the
    /// stream later.
    Cycles { quantum: u64, graph: u32, latency: i64, millis: i64 },
    /// The server is gone or hangs.
    Silence { millis: i64 },
    /// The whole host sleeps, or gets no processor.
    Sleep { millis: i64 },
}

fn cycles() -> impl Strategy<Value = Weather> {
    let quantum = prop::sample::select(vec![64u64, 256, 1_024, 2_048]);
    let graph = prop::sample::select(vec![RATE, 44_100, 96_000]);
    (quantum, graph, 0i64..4_800, 500i64..1_500)
        .prop_map(|(quantum, graph, latency, millis)| Weather::Cycles { quantum, graph, latency, millis })
}

fn weather() -> impl Strategy<Value = Weather> {
    prop_oneof![
        3 => cycles(),
        1 => (1i64..2_000).prop_map(|millis| Weather::Silence { millis }),
        1 => prop_oneof![1i64..1_000, Just(3_600_000)].prop_map(|millis| Weather::Sleep { millis }),
    ]
}

/// How old the last position may be: told every 10 ms, and looked for a little later where it was not there.
const STALE: Nanos = Nanos::from_millis(13);
/// How long a silent server is waited for, at the most.
const MISSED: Nanos = Nanos::from_millis(103);

impl Bench {
    fn live(&mut self, weather: &Weather) {
        let (before, told) = (self.ring.cursor().position.0, self.last);
        match *weather {
            Weather::Cycles { quantum, graph, latency, millis } => {
                let end = self.now + Nanos::from_millis(millis);
                self.cycles_until(end, quantum, graph, latency);
                self.check_truth(end);
            }
            Weather::Silence { millis } => {
                self.pace(self.now + Nanos::from_millis(millis));
                // A microphone's distance to its sound stays when a clock takes its place.
                let lag = Frames(self.voice.gauges().ahead().min(0).unsigned_abs()).duration(RATE);
                let least = Nanos::from_millis(millis) - MISSED - STALE - lag;
                let at_least = told + least.frames(RATE).0;
                assert!(least.0 < 0 || self.last >= at_least, "{} of {at_least}: it stands still", self.last);
            }
            Weather::Sleep { millis } => {
                self.now += Nanos::from_millis(millis);
                self.due = self.due.max(self.now);
                self.pace(self.due + Nanos(1));
                let moved = self.ring.cursor().position.0 - before;
                assert!(moved < self.ring.buffer().0, "a jump of {moved} frames");
            }
        }
    }

    fn cycles_until(&mut self, end: Nanos, quantum: u64, graph: u32, latency: i64) {
        let (began, mut moved) = (self.now, 0);
        for cycle in 1.. {
            let at = began + Frames((cycle - 1) * quantum).duration(graph);
            if at >= end {
                break;
            }
            self.pace(at);
            // A resampler gives a frame more or less.
            let frames = cycle * quantum * u64::from(RATE) / u64::from(graph) - moved;
            moved += frames;
            let mut buffer = vec![0; frames as usize * 4];
            let first = match self.ring.direction() {
                Direction::Playback => self.ring.play(at, &mut buffer).unwrap() - latency,
                Direction::Capture => self.ring.capture(at, &buffer).unwrap() + latency,
            };
            let given = self.ring.cursor().position;
            self.ring.publish(Timing { at, heard: first, given, cycle: Frames(frames) });
        }
        self.pace(end);
    }

    /// The newest position is fresh, and was the sound's when it was told, by the distance that the stream has.
    fn check_truth(&self, now: Nanos) {
        assert!(self.told_at >= now - STALE, "nothing was told for {}", now - self.told_at);
        let timing = self.ring.timing().unwrap();
        let since = (self.told_at - timing.at).0 * i64::from(RATE) / 1_000_000_000;
        let sound = timing.heard + self.voice.gauges().ahead() + since;
        let error = self.last as i64 - sound.min(timing.given.0 as i64);
        // A graph of another rate ends its cycles between two frames.
        assert!((-3..=3).contains(&error), "{error} frames off the sound");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The guest writes nothing, so that the whole run is one underrun: it goes on until STOP. The position never goes back
    /// and never comes before what the server was given ([`Bench::take_events`]), runs on without a server, jumps by no
    /// ring's length, and is true again as soon as a server has played for a while.
    #[test]
    fn a_stream_comes_through_whatever_befalls_its_host(
        is_capture: bool, first in cycles(), rest in prop::collection::vec(weather(), 0..8),
    ) {
        let direction = if is_capture { Direction::Capture } else { Direction::Playback };
        let mut bench = Bench::new(direction, 480, 24_000);
        bench.voice.start(bench.now);
        bench.live(&first);
        for weather in &rest {
            bench.live(weather);
        }
        bench.voice.stop(false);
        bench.take_events();
        prop_assert_eq!((bench.last % 24_000, bench.ring.cursor().position.0), (0, bench.last));
    }
}
