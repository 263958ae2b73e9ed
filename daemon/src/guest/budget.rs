//! How often something may be done: so many times at once, and evenly ever after. Pure arithmetic.

use std::num::NonZeroU32;

use vsnd_pw_module::Nanos;

/// So many times in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    per: Nanos,
}

impl Rate {
    /// `count` times a second.
    pub const fn per_second(count: NonZeroU32) -> Self {
        Self { count, per: Nanos::from_millis(1_000) }
    }

    /// `count` times a minute.
    pub const fn per_minute(count: NonZeroU32) -> Self {
        Self { count, per: Nanos::from_millis(60_000) }
    }

    /// What `times` times take at this rate.
    fn cost(self, times: u32) -> Nanos {
        let cost = i128::from(times) * i128::from(self.per.0) / i128::from(self.count.get());
        Nanos(i64::try_from(cost).unwrap_or(i64::MAX))
    }
}

/// A token bucket that holds what its rate allows in one period. Who takes more than it holds is told to wait until the debt
/// is paid; what was taken counts all the same.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    /// When it is full again.
    full_at: Nanos,
}

impl Bucket {
    /// A full one.
    pub const fn new(rate: Rate) -> Self {
        Self { rate, full_at: Nanos(i64::MIN) }
    }

    /// Takes `times` at `now`. Returns the instant to wait for, if that was more than there was.
    pub fn take(&mut self, now: Nanos, times: u32) -> Option<Nanos> {
        let begins = self.full_at.0.max(now.0);
        self.full_at = Nanos(begins.saturating_add(self.rate.cost(times).0));
        let paid_at = Nanos(self.full_at.0.saturating_sub(self.rate.per.0));
        (paid_at > now).then_some(paid_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket(count: u32) -> Bucket {
        Bucket::new(Rate::per_second(NonZeroU32::new(count).unwrap()))
    }

    #[test]
    fn a_periods_worth_may_come_at_once_and_the_next_has_to_wait() {
        let mut bucket = bucket(10);
        let now = Nanos::from_millis(5_000);
        assert_eq!(bucket.take(now, 10), None);
        assert_eq!(bucket.take(now, 1), Some(now + Nanos::from_millis(100)));
        assert_eq!(bucket.take(now + Nanos::from_millis(100), 1), Some(now + Nanos::from_millis(200)));
        assert_eq!(bucket.take(now + Nanos::from_millis(300), 1), None, "what was spared is there again");
        assert_eq!(bucket.take(now + Nanos::from_millis(9_000), 10), None, "no more than full");
    }

    #[test]
    fn nothing_taken_costs_nothing_and_very_much_waits_long() {
        let mut bucket = bucket(1);
        assert_eq!(bucket.take(Nanos(0), 0), None);
        assert_eq!(
            bucket.take(Nanos(0), u32::MAX),
            Some(Nanos::from_millis(1_000 * (i64::from(u32::MAX) - 1)))
        );
        assert!(bucket.take(Nanos(i64::MAX), u32::MAX).is_none_or(|until| until.0 > 0), "and no overflow");
    }

    proptest! {
        /// However it is asked: who waits as told never gets more than two periods' worth in one period, and gets all of its rate.
        #[test]
        fn who_waits_as_told_gets_the_rate_and_no_more(
            count in 1u32..2_000, asks in proptest::collection::vec((1u32..64, 0i64..50_000_000), 1..300),
        ) {
            let mut bucket = bucket(count);
            let (mut now, mut taken) = (Nanos(0), 0u64);
            for (times, pause) in asks {
                now += Nanos(pause);
                taken += u64::from(times);
                if let Some(until) = bucket.take(now, times) {
                    prop_assert!(until > now);
                    now = until;
                }
                let most = f64::from(count) * (1.0 + now.0 as f64 / 1e9) + 1.0;
                prop_assert!(taken as f64 <= most, "{} of {} after {:?}", taken, most, now);
            }
        }

        #[test]
        fn who_keeps_to_the_rate_never_waits(count in 1u32..2_000, start in 0i64..i64::MAX / 2) {
            let mut bucket = bucket(count);
            let step = 1_000_000_000_i64.div_euclid(i64::from(count)) + 1;
            for turn in 0..3 * i64::from(count) {
                prop_assert_eq!(bucket.take(Nanos(start + turn * step), 1), None);
            }
        }
    }
}
