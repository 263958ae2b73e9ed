//! When to try again.

use crate::units::Nanos;

/// Waits between tries: each twice as long as the one before, within bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Nanos,
    longest: Nanos,
    next: Nanos,
}

impl Backoff {
    pub(crate) const fn new(first: Nanos, longest: Nanos) -> Self {
        Self { first, longest, next: first }
    }

    /// A try failed at `now`: when to make the next.
    pub(crate) fn failed(&mut self, now: Nanos) -> Nanos {
        let at = now + self.next;
        self.next = (self.next + self.next).min(self.longest);
        at
    }

    /// A try succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Nanos(100), Nanos(500));
        let waits: Vec<i64> = (0..5).map(|_| backoff.failed(Nanos(0)).0).collect();
        assert_eq!(waits, [100, 200, 400, 500, 500]);
        backoff.succeeded();
        assert_eq!(backoff.failed(Nanos(7)), Nanos(107));
    }
}
