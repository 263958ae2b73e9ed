//! Units that must not be mixed up: octets of a ring, frames of a stream, nanoseconds of CLOCK_MONOTONIC.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty), $suffix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.wrapping_add(other.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0.wrapping_sub(other.0))
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", self.0, $suffix)
            }
        }
    };
}

unit!(
    /// A count of frames (one sample of every channel), or a position counted in them.
    Frames(u64), "frames"
);
unit!(
    /// A count of octets, or an offset or position counted in them.
    Octets(u64), "octets"
);
unit!(
    /// A duration, or an instant of CLOCK_MONOTONIC, in nanoseconds.
    Nanos(i64), "ns"
);

impl Frames {
    /// The time that so many frames last at `rate` frames a second.
    pub fn duration(self, rate: u32) -> Nanos {
        let nanos = u128::from(self.0) * 1_000_000_000 / u128::from(rate.max(1));
        Nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// This position rounded up to a whole multiple of `unit` (which must not be zero).
    pub fn round_up_to(self, unit: Frames) -> Frames {
        Frames(self.0.div_ceil(unit.0.max(1)) * unit.0.max(1))
    }
}

impl Nanos {
    /// Whole frames that pass in this time at `rate` frames a second; none for a negative time.
    pub fn frames(self, rate: u32) -> Frames {
        let nanos = u128::from(self.0.max(0).unsigned_abs());
        Frames(u64::try_from(nanos * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX))
    }

    /// Whole milliseconds; none for a negative time.
    pub const fn millis(self) -> u64 {
        if self.0 < 0 { 0 } else { self.0.unsigned_abs() / 1_000_000 }
    }

    /// Milliseconds as nanoseconds.
    pub const fn from_millis(millis: i64) -> Nanos {
        Nanos(millis * 1_000_000)
    }
}

impl From<Nanos> for Duration {
    /// None for a negative time.
    fn from(nanos: Nanos) -> Self {
        Self::from_nanos(nanos.0.max(0).unsigned_abs())
    }
}

/// The present instant of CLOCK_MONOTONIC, the clock that sound servers stamp their timing with.
pub fn monotonic_now() -> Nanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Nanos(now.tv_sec * 1_000_000_000 + now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_time_convert_both_ways() {
        assert_eq!(Frames(48_000).duration(48_000), Nanos(1_000_000_000));
        assert_eq!(Nanos(1_000_000_000).frames(44_100), Frames(44_100));
        assert_eq!(Nanos(-5).frames(48_000), Frames(0));
    }

    #[test]
    fn rounding_up_leaves_whole_multiples_alone() {
        assert_eq!(Frames(0).round_up_to(Frames(4800)), Frames(0));
        assert_eq!(Frames(4800).round_up_to(Frames(4800)), Frames(4800));
        assert_eq!(Frames(4801).round_up_to(Frames(4800)), Frames(9600));
    }
}
