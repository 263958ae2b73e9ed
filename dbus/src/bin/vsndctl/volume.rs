//! Volumes as people write them: percent of the scale that mixers show.

use std::str::FromStr;

use vsnd_dbus::CubicVolume;

/// What to do to a volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VolumeChange {
    /// Set it.
    To(CubicVolume),
    /// Move it, as far as the scale goes.
    By(f64),
}

/// A text that is no volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChange {
    /// It isn't a number with a percent sign.
    #[error("write a volume as 50%, or a change as +5% or -5%")]
    NotPercent,
    /// It is beyond the scale.
    #[error("a volume goes from 0% to 150%")]
    TooLoud,
}

impl VolumeChange {
    /// The volume that it makes of the present one.
    pub fn of(self, present: f64) -> CubicVolume {
        match self {
            Self::To(volume) => volume,
            Self::By(change) => {
                // A hundredth of a percent is the least that is kept: 0.3 + 0.05 isn't quite 0.35.
                let moved = ((present + change) * 10_000.0).round() / 10_000.0;
                CubicVolume::new(moved.clamp(0.0, CubicVolume::MAX.get())).unwrap_or(CubicVolume::FULL)
            }
        }
    }
}

impl FromStr for VolumeChange {
    type Err = InvalidChange;

    fn from_str(text: &str) -> Result<Self, InvalidChange> {
        let number = text.strip_suffix('%').ok_or(InvalidChange::NotPercent)?;
        let (sign, digits) = match number.as_bytes().first() {
            Some(b'+') => (Some(1.0), &number[1..]),
            Some(b'-') => (Some(-1.0), &number[1..]),
            _ => (None, number),
        };
        // f64 also reads "inf" and "1e3".
        if !digits.starts_with(|c: char| c.is_ascii_digit())
            || !digits.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.')
        {
            return Err(InvalidChange::NotPercent);
        }
        let share = digits.parse::<f64>().map_err(|_| InvalidChange::NotPercent)? / 100.0;
        match sign {
            Some(sign) => Ok(Self::By(sign * share)),
            None => CubicVolume::new(share).map(Self::To).map_err(|_| InvalidChange::TooLoud),
        }
    }
}

/// A volume as percent, with a decimal where it has one.
pub fn percent(volume: f64) -> String {
    let tenths = (volume * 1000.0).round();
    if tenths % 10.0 == 0.0 { format!("{:.0}%", tenths / 10.0) } else { format!("{:.1}%", tenths / 10.0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn volumes_are_set_or_moved_in_percent() {
        let to = |volume| Ok(VolumeChange::To(CubicVolume::new(volume).unwrap()));
        assert_eq!("50%".parse(), to(0.5));
        assert_eq!("0%".parse(), to(0.0));
        assert_eq!("150%".parse(), to(1.5));
        assert_eq!("12.5%".parse(), to(0.125));
        assert_eq!("+5%".parse(), Ok(VolumeChange::By(0.05)));
        assert_eq!("-100%".parse(), Ok(VolumeChange::By(-1.0)));
    }

    #[test]
    fn what_is_no_percentage_is_refused() {
        for text in [
            "", "50", "%", "+%", "--5%", "+-5%", "5%%", " 5%", "5 %", "0x5%", "1e1%", "inf%", "nan%", ".5%",
            "1.2.3%", "٥%",
        ] {
            assert_eq!(text.parse::<VolumeChange>(), Err(InvalidChange::NotPercent), "{text:?}");
        }
        assert_eq!("151%".parse::<VolumeChange>(), Err(InvalidChange::TooLoud));
    }

    #[test]
    fn a_change_ends_at_the_ends_of_the_scale() {
        let moved = |present, text: &str| text.parse::<VolumeChange>().unwrap().of(present).get();
        assert_eq!(moved(0.3, "+5%"), 0.35);
        assert_eq!(moved(0.02, "-5%"), 0.0);
        assert_eq!(moved(1.49, "+5%"), 1.5);
        assert_eq!(moved(0.02, "40%"), 0.4);
    }

    #[test]
    fn percent_has_a_decimal_only_where_it_is_one() {
        assert_eq!(
            [percent(0.0), percent(0.35), percent(0.125), percent(1.5)],
            ["0%", "35%", "12.5%", "150%"]
        );
    }

    proptest! {
        #[test]
        fn every_change_ends_on_the_scale(present in 0.0..=1.5f64, change in 0..100_000u32, down: bool) {
            let sign = if down { '-' } else { '+' };
            let volume = format!("{sign}{change}%").parse::<VolumeChange>().unwrap().of(present).get();
            prop_assert!((0.0..=1.5).contains(&volume));
            let further = if down { present - volume } else { volume - present };
            prop_assert!(further >= -1e-4);
        }
    }
}
