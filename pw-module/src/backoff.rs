//! When to try again.

use crate::units::Nanos;

/// Waits between tries: each twice as long as the one before, within bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Nanos,
    longest: Nanos,
    next: Nanos,
    at: Option<Nanos>,
}

impl Backoff {
    pub(crate) const fn new(first: Nanos, longest: Nanos) -> Self {
        Self { first, longest, next: first, at: None }
    }

    /// A try failed at `now`.
    pub(crate) fn failed(&mut self, now: Nanos) {
        self.at = Some(now + self.next);
        self.next = (self.next + self.next).min(self.longest);
    }

    /// A try succeeded, or what made them fail is over.
    pub(crate) fn reset(&mut self) {
        (self.next, self.at) = (self.first, None);
    }

    /// Whether the next try may be made at `now`.
    pub(crate) fn is_over(&self, now: Nanos) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// When to make the next try; `None`: at once.
    pub(crate) fn at(&self) -> Option<Nanos> {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Nanos(100), Nanos(500));
        assert!(backoff.is_over(Nanos(0)), "the first try is made at once");
        for wait in [100, 200, 400, 500, 500] {
            backoff.failed(Nanos(7));
            assert_eq!(backoff.at(), Some(Nanos(7 + wait)));
            assert!(!backoff.is_over(Nanos(6 + wait)) && backoff.is_over(Nanos(7 + wait)));
        }
        backoff.reset();
        assert_eq!(backoff.at(), None);
        backoff.failed(Nanos(7));
        assert_eq!(backoff.at(), Some(Nanos(107)));
    }
}
