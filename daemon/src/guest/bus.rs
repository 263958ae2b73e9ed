//! What to do at each turn of the two ends' bus states. Pure: facts in, a step out.
//!
//! The toolstack creates both ends at Initialising. We go to InitWait; the frontend reads its configuration, publishes its
//! rings and goes to Initialised; we bind them and go to Connected, and so does the frontend.

use vsnd_pw_module::Nanos;

use crate::sndif::BusState;

/// How long InitWait is held: the toolstack waits to read exactly this state, and would miss it if a running guest's
/// frontend answered at once and we went on.
const HOLD_INIT_WAIT: Nanos = Nanos::from_millis(200);
/// A card that is taken over may have to wait for the kernel to take the bridge before apart: first for so long, then
/// twice as long each time.
const FIRST_TAKE_OVER_BACK_OFF: Nanos = Nanos::from_millis(2);
/// A device that keeps failing or reconnecting is tried again after this time, twice as long after each further failure.
const FIRST_BACK_OFF: Nanos = Nanos::from_millis(250);
/// The longest time between two tries.
const LONGEST_BACK_OFF: Nanos = Nanos::from_millis(30_000);

/// What is known of a device when it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The backend's state as XenStore has it: ours, unless the toolstack wrote it.
    pub backend: BusState,
    /// The toolstack's word that the device is to stay.
    pub online: bool,
    /// The frontend's state; `None` when its node is gone.
    pub frontend: Option<BusState>,
    /// Whether its rings are mapped and served.
    pub connected: bool,
    /// The instant.
    pub now: Nanos,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before something changes.
    Rest,
    /// Look again at this instant.
    Wait(Nanos),
    /// Take the configuration (once), publish `versions`, write InitWait.
    Offer,
    /// Map, bind and serve, then look again.
    Connect,
    /// Map, bind and serve what a bridge before has connected, from where it left. No state changes: Linux would take its card
    /// away from the application that plays.
    TakeOver,
    /// Unmap and unbind, then look again.
    Release,
    /// Write this state.
    Write(BusState),
}

/// A device's memory between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bus {
    /// When InitWait was written.
    offered: Option<Nanos>,
    /// Failures in a row, and when the next try is due.
    failures: u32,
    not_before: Nanos,
}

impl Bus {
    /// InitWait was written at `now`.
    pub fn offered(&mut self, now: Nanos) {
        self.offered = Some(now);
    }

    /// The device was connected.
    pub fn connected(&mut self) {
        self.failures = 0;
    }

    /// Connecting failed at `now`.
    pub fn failed(&mut self, now: Nanos) {
        self.back_off(now, FIRST_BACK_OFF);
    }

    /// Taking over failed at `now`, because another still has what the guest offers.
    pub fn not_yet_free(&mut self, now: Nanos) {
        self.back_off(now, FIRST_TAKE_OVER_BACK_OFF);
    }

    fn back_off(&mut self, now: Nanos, first: Nanos) {
        let back_off = first.0.saturating_mul(1 << self.failures.min(16)).min(LONGEST_BACK_OFF.0);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + Nanos(back_off);
    }

    /// The next step for a device of which `facts` are known.
    pub fn next(&self, facts: Facts) -> Step {
        use BusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown};
        // The toolstack takes the device away: online=0 and Closing, and it waits for Closed.
        if !facts.online || facts.backend == Closing {
            return match (facts.backend, facts.connected) {
                // Linux ignores our Closing and lets go at Closed only, so Closed comes first.
                (Closed, true) if facts.frontend != Some(Connected) => Step::Release,
                (Closed, _) => Step::Rest,
                _ => Step::Write(Closed),
            };
        }
        match facts.frontend {
            None => {
                if facts.connected {
                    Step::Release
                } else {
                    Step::Rest
                }
            }
            Some(Initialised | Connected) if facts.connected => match facts.backend {
                InitWait => Step::Write(Connected),
                _ => Step::Rest,
            },
            Some(_) if facts.connected => Step::Release,
            Some(Initialised | Connected) => self.connect_when_due(facts),
            // A frontend that unloads waits for InitWait for a second and no longer; others want to see Closed before.
            Some(Closing | Closed) if facts.backend == Connected => Step::Write(Closed),
            Some(_) if facts.backend != InitWait => self.offer_when_due(facts),
            Some(Initialising | InitWait | Unknown) | Some(_) => Step::Rest,
        }
    }

    fn offer_when_due(&self, facts: Facts) -> Step {
        if facts.now < self.not_before { Step::Wait(self.not_before) } else { Step::Offer }
    }

    fn connect_when_due(&self, facts: Facts) -> Step {
        use BusState::{Closed, Connected, InitWait, Initialising, Unknown};
        let held_until = self.offered.map_or(facts.now, |offered| offered + HOLD_INIT_WAIT);
        match facts.backend {
            // Refused: the frontend leaves Initialised when it sees Closed, and is offered a new try then.
            Closed if self.failures > 0 => Step::Rest,
            // The bridge was started again: the frontend still publishes its rings.
            Connected if facts.now < self.not_before => Step::Wait(self.not_before),
            Connected => Step::TakeOver,
            InitWait if facts.now >= held_until => Step::Connect,
            InitWait => Step::Wait(held_until),
            Unknown | Initialising | Closed => self.offer_when_due(facts),
            _ => Step::Rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising};

    fn facts(backend: BusState, frontend: BusState) -> Facts {
        Facts {
            backend,
            online: true,
            frontend: Some(frontend),
            connected: false,
            now: Nanos::from_millis(1_000),
        }
    }

    #[test]
    fn a_new_device_is_offered_held_and_connected() {
        let mut bus = Bus::default();
        assert_eq!(bus.next(facts(Initialising, Initialising)), Step::Offer);
        bus.offered(Nanos::from_millis(900));
        assert_eq!(bus.next(facts(InitWait, Initialising)), Step::Rest);
        assert_eq!(bus.next(facts(InitWait, Initialised)), Step::Wait(Nanos::from_millis(1_100)));
        let later = Facts { now: Nanos::from_millis(1_100), ..facts(InitWait, Initialised) };
        assert_eq!(bus.next(later), Step::Connect);
        assert_eq!(bus.next(Facts { connected: true, ..later }), Step::Write(Connected));
        assert_eq!(bus.next(Facts { connected: true, ..facts(Connected, Connected) }), Step::Rest);
    }

    #[test]
    fn detaching_answers_closed_and_releases_when_the_guest_lets_go() {
        let bus = Bus::default();
        let detached = Facts { online: false, connected: true, ..facts(Closing, Connected) };
        assert_eq!(bus.next(detached), Step::Write(Closed));
        assert_eq!(
            bus.next(Facts { backend: Closed, ..detached }),
            Step::Rest,
            "its last requests are still answered"
        );
        let gone = Facts { backend: Closed, frontend: Some(Initialising), ..detached };
        assert_eq!(bus.next(gone), Step::Release);
        assert_eq!(bus.next(Facts { connected: false, ..gone }), Step::Rest);
    }

    #[test]
    fn an_unloading_driver_sees_closed_and_then_init_wait() {
        let bus = Bus::default();
        let unloading = facts(Connected, Closing);
        assert_eq!(bus.next(Facts { connected: true, ..unloading }), Step::Release);
        assert_eq!(bus.next(unloading), Step::Write(Closed));
        assert_eq!(bus.next(facts(Closed, Closing)), Step::Offer);
        assert_eq!(bus.next(facts(InitWait, Closing)), Step::Rest);
        assert_eq!(bus.next(facts(InitWait, Closed)), Step::Rest);
    }

    #[test]
    fn a_guest_that_reboots_in_place_starts_over() {
        let bus = Bus::default();
        let restarted = Facts { connected: true, ..facts(Connected, Initialising) };
        assert_eq!(bus.next(restarted), Step::Release);
        assert_eq!(bus.next(Facts { connected: false, ..restarted }), Step::Offer);
    }

    #[test]
    fn a_failing_device_is_tried_ever_less_often() {
        let mut bus = Bus::default();
        bus.failed(Nanos(0));
        assert_eq!(bus.next(Facts { now: Nanos(0), ..facts(Closed, Initialised) }), Step::Rest, "refused");
        let again = Facts { now: Nanos(0), ..facts(Closed, Initialising) };
        assert_eq!(bus.next(again), Step::Wait(Nanos::from_millis(250)));
        bus.failed(Nanos(0));
        assert_eq!(bus.next(again), Step::Wait(Nanos::from_millis(500)));
        for _ in 0..40 {
            bus.failed(Nanos(0));
        }
        assert_eq!(bus.next(again), Step::Wait(Nanos::from_millis(30_000)));
    }

    #[test]
    fn a_started_bridge_takes_over_what_is_connected() {
        let mut bus = Bus::default();
        let left = facts(Connected, Connected);
        assert_eq!(bus.next(left), Step::TakeOver);
        bus.not_yet_free(left.now);
        assert_eq!(bus.next(left), Step::Wait(Nanos::from_millis(1_002)));
        assert_eq!(bus.next(Facts { now: Nanos::from_millis(1_002), ..left }), Step::TakeOver);
        assert_eq!(
            bus.next(facts(Connected, Initialised)),
            Step::Wait(Nanos::from_millis(1_002)),
            "unanswered yet"
        );
    }
}
