//! When a node is called at every cycle, when it rests, and when it goes.

use crate::units::Nanos;

/// How long an opened node runs on silence while its stream hasn't started: links come up meanwhile, so that the first
/// frame is heard at once.
const AWAIT_START: Nanos = Nanos::from_millis(2_000);
/// How long a stopped node runs on before it rests: a guest's underrun is a stop and a start in quick succession.
const LINGER: Nanos = Nanos::from_millis(500);
/// The longest time that a leaving node takes to play its tail; Bluetooth's 300 ms fit many times.
const LONGEST_TAIL: Nanos = Nanos::from_millis(3_000);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The node may rest.
    Rest,
    /// The node may go.
    Go,
}

/// The activity of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Activity {
    active: bool,
    rest_at: Option<Nanos>,
    go_at: Option<Nanos>,
}

impl Activity {
    /// A node opened at `now`.
    pub(crate) fn opened(now: Nanos) -> Self {
        Self { active: true, rest_at: Some(now + AWAIT_START), go_at: None }
    }

    /// Whether the server is to call the node at every cycle.
    pub(crate) fn active(&self) -> bool {
        self.active
    }

    /// The stream starts.
    pub(crate) fn start(&mut self) {
        self.active = true;
        self.rest_at = None;
    }

    /// The stream stopped at `now`; what it gave is heard within `tail`.
    pub(crate) fn stop(&mut self, now: Nanos, tail: Nanos) {
        self.rest_at = Some(now + tail.min(LONGEST_TAIL) + LINGER);
    }

    /// The handle was dropped at `now`; what was given is heard within `tail`.
    pub(crate) fn release(&mut self, now: Nanos, tail: Nanos) {
        self.go_at.get_or_insert(now + tail.min(LONGEST_TAIL));
    }

    /// Whether the handle is gone.
    pub(crate) fn released(&self) -> bool {
        self.go_at.is_some()
    }

    /// When something is due next.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.go_at.or(self.rest_at.filter(|_| self.active))
    }

    /// What is due at `now`, once.
    pub(crate) fn due(&mut self, now: Nanos) -> Option<Due> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        if self.released() {
            return Some(Due::Go);
        }
        self.active = false;
        self.rest_at = None;
        Some(Due::Rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: i64) -> Nanos {
        Nanos::from_millis(millis)
    }

    #[test]
    fn an_opened_node_waits_for_its_start_and_rests() {
        let mut activity = Activity::opened(ms(0));
        assert_eq!((activity.active(), activity.deadline()), (true, Some(ms(2_000))));
        assert_eq!(activity.due(ms(1_999)), None);
        assert_eq!(activity.due(ms(2_000)), Some(Due::Rest));
        assert_eq!((activity.active(), activity.deadline()), (false, None));
        activity.start();
        assert_eq!((activity.active(), activity.deadline()), (true, None));
    }

    #[test]
    fn a_quick_restart_never_rests() {
        let mut activity = Activity::opened(ms(0));
        activity.start();
        activity.stop(ms(5_000), ms(20));
        assert_eq!(activity.due(ms(5_519)), None);
        activity.start();
        assert_eq!(activity.due(ms(9_000)), None);
        activity.stop(ms(9_000), ms(20));
        assert_eq!(activity.due(ms(9_520)), Some(Due::Rest));
    }

    #[test]
    fn a_node_goes_when_its_tail_is_heard() {
        let mut activity = Activity::opened(ms(0));
        activity.start();
        activity.release(ms(100), ms(50));
        activity.release(ms(140), ms(50));
        assert_eq!(activity.due(ms(149)), None);
        assert_eq!(activity.due(ms(150)), Some(Due::Go));
        assert!(activity.released());
    }
}
