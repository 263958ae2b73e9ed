//! Bus states: the guest and the toolstack write them in any order, also between two steps of the bridge.

use arbitrary::{Arbitrary, Unstructured};
use vsnd_bridge::guest::{Bus, Facts, Step as Next};
use vsnd_bridge::sndif::BusState;
use vsnd_pw_module::Nanos;

/// Steps of one look, as [`Device::look`](vsnd_bridge::guest::Device::look) bounds them.
const MOST_OF_A_LOOK: usize = 8;

#[derive(Debug, Arbitrary)]
enum Step {
    /// The guest writes this state, or removes the node.
    Frontend(Option<u8>),
    /// The toolstack detaches, or makes the card anew.
    Online(bool),
    /// Somebody writes the backend's state.
    Backend(u8),
    /// Time passes.
    Later { millis: u16 },
    /// The bridge looks, and what it tries to connect can or can't be connected.
    Look { connects: bool, meanwhile: Option<u8> },
}

fn state(number: u8) -> BusState {
    BusState::ALL[usize::from(number) % BusState::ALL.len()]
}

pub fn run(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut bus = Bus::default();
    let mut facts = Facts {
        backend: BusState::Initialising,
        online: true,
        frontend: Some(BusState::Initialising),
        connected: false,
        now: Nanos::from_millis(1_000),
    };
    for step in crate::steps(input) {
        match step {
            Step::Frontend(number) => facts.frontend = number.map(state),
            Step::Online(online) => facts.online = online,
            Step::Backend(number) => facts.backend = state(number),
            Step::Later { millis } => facts.now += Nanos::from_millis(millis.into()),
            Step::Look { connects, meanwhile } => look(&mut bus, &mut facts, connects, meanwhile),
        }
    }
    Ok(())
}

fn look(bus: &mut Bus, facts: &mut Facts, connects: bool, meanwhile: Option<u8>) {
    for steps in 0.. {
        let next = bus.next(*facts);
        let before = *facts;
        match next {
            Next::Rest => return,
            Next::Wait(until) => {
                assert!(until > facts.now, "a wait that is over");
                assert!((until - facts.now) <= Nanos::from_millis(30_000), "a wait without end");
                return;
            }
            Next::Offer => {
                assert!(facts.online && !facts.connected);
                facts.backend = BusState::InitWait;
                bus.offered(facts.now);
            }
            Next::Connect => {
                assert!(facts.online && !facts.connected);
                let ready = matches!(facts.frontend, Some(BusState::Initialised | BusState::Connected));
                assert!(ready, "nothing is published yet");
                facts.connected = connects;
                if connects {
                    bus.connected();
                } else {
                    bus.failed(facts.now);
                    facts.backend = BusState::Closed;
                }
            }
            Next::TakeOver => {
                assert!(facts.online && !facts.connected);
                assert_eq!(facts.backend, BusState::Connected, "no bridge before was connected");
                facts.connected = connects;
                if connects {
                    bus.connected();
                } else {
                    bus.failed(facts.now);
                    facts.backend = BusState::Closed;
                }
            }
            Next::Release => {
                assert!(facts.connected);
                facts.connected = false;
            }
            Next::Forget => {
                assert_eq!(facts.backend, BusState::Initialising, "it is no new card");
                *bus = Bus::default();
                facts.connected = false;
                return;
            }
            Next::Write(state) => facts.backend = state,
        }
        assert_ne!(before, *facts, "a step that changes nothing");
        assert!(steps < MOST_OF_A_LOOK, "{next:?} after {steps} steps");
        if steps == 0
            && let Some(number) = meanwhile
        {
            facts.frontend = Some(state(number));
        }
    }
}
