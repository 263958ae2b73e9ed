//! A range of values with both ends inside.

use std::fmt;

/// From `min` to `max`, both inside. One that a guest sent may be empty, with `min` above `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval<T> {
    /// The least value.
    pub min: T,
    /// The greatest value.
    pub max: T,
}

impl<T: Ord + Copy> Interval<T> {
    /// From `min` to `max`, both inside.
    pub const fn new(min: T, max: T) -> Self {
        Self { min, max }
    }

    /// Whether no value lies inside.
    pub fn is_empty(self) -> bool {
        self.min > self.max
    }

    /// Whether `value` lies inside.
    pub fn contains(self, value: T) -> bool {
        self.min <= value && value <= self.max
    }

    /// The values inside both; `None` when there are none.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let both = Self { min: self.min.max(other.min), max: self.max.min(other.max) };
        if both.is_empty() { None } else { Some(both) }
    }
}

impl<T: fmt::Display> fmt::Display for Interval<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_intersection_holds_what_both_hold(a in any::<[u8; 2]>(), b in any::<[u8; 2]>(), value: u8) {
            let (a, b) = (Interval::new(a[0], a[1]), Interval::new(b[0], b[1]));
            let both = a.contains(value) && b.contains(value);
            prop_assert_eq!(a.intersection(b).is_some_and(|inside| inside.contains(value)), both);
            if let Some(inside) = a.intersection(b) {
                prop_assert!(!inside.is_empty());
            }
        }
    }
}
