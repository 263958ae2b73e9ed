//! When a server is looked for, and when the thread that serves it ends.

use crate::backoff::Backoff;
use crate::units::Nanos;

/// How often a server that isn't there is looked for: it is to be found within a second of its return.
const RECONNECT: Backoff = Backoff::new(Nanos::from_millis(100), Nanos::from_millis(500));
/// How long the last tails may take once the server object is dropped.
const FAREWELL: Nanos = Nanos::from_millis(3_500);

/// The search for one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    wanted: bool,
    backoff: Backoff,
    quit_at: Option<Nanos>,
}

impl Search {
    /// The server is looked for from the beginning.
    pub(crate) fn new() -> Self {
        Self { wanted: true, backoff: RECONNECT, quit_at: None }
    }

    /// Looks for the server, or does so no more.
    pub(crate) fn seek(&mut self, wanted: bool) {
        self.wanted = wanted;
        self.backoff.reset();
    }

    /// A try failed at `now`, or the server went away.
    pub(crate) fn failed(&mut self, now: Nanos) {
        self.backoff.failed(now);
    }

    /// The server answered.
    pub(crate) fn found(&mut self) {
        self.backoff.reset();
    }

    /// The server object was dropped at `now`.
    pub(crate) fn quit(&mut self, now: Nanos) {
        self.quit_at = Some(now + FAREWELL);
    }

    /// Whether to try at `now`, where no connection is there or on its way.
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        self.wanted && self.quit_at.is_none() && self.backoff.is_over(now)
    }

    /// Whether the thread ends at `now`: after the last tail, when it is `idle`, or after [`FAREWELL`].
    pub(crate) fn has_ended(&self, now: Nanos, idle: bool) -> bool {
        self.quit_at.is_some_and(|at| idle || at <= now)
    }

    /// When something is due next; `connected`: a connection is there or on its way, so that no try is.
    pub(crate) fn deadline(&self, connected: bool) -> Option<Nanos> {
        self.quit_at.or_else(|| self.backoff.at().filter(|_| self.wanted && !connected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: i64) -> Nanos {
        Nanos::from_millis(millis)
    }

    #[test]
    fn a_server_is_tried_at_once_and_then_within_a_second() {
        let mut search = Search::new();
        assert!(search.is_due(ms(0)));
        for now in [0, 100, 300, 700] {
            assert!(search.is_due(ms(now)));
            search.failed(ms(now));
        }
        assert_eq!((search.deadline(false), search.deadline(true)), (Some(ms(1_200)), None));
        assert!(!search.is_due(ms(1_199)) && search.is_due(ms(1_200)));
        search.found();
        search.failed(ms(2_000));
        assert_eq!(search.deadline(false), Some(ms(2_100)));
    }

    #[test]
    fn a_server_that_nobody_wants_is_not_tried_until_somebody_does() {
        let mut search = Search::new();
        search.failed(ms(0));
        search.seek(false);
        search.failed(ms(0));
        assert!(!search.is_due(ms(1_000)));
        assert_eq!(search.deadline(false), None);
        search.seek(true);
        assert!(search.is_due(ms(0)), "without waiting for the next try");
    }

    #[test]
    fn who_leaves_tries_nothing_and_ends_with_the_last_tail() {
        let mut search = Search::new();
        assert!(!search.has_ended(ms(0), true), "nobody told it to");
        search.failed(ms(0));
        search.quit(ms(50));
        assert!(!search.is_due(ms(1_000)));
        assert_eq!(search.deadline(false), Some(ms(3_550)));
        assert!(search.has_ended(ms(60), true) && !search.has_ended(ms(3_549), false));
        assert!(search.has_ended(ms(3_550), false));
    }
}
