//! The 25 PCM formats of the protocol: codes, XenStore names, sets of them.

use std::fmt;

use vsnd_pw_module::SampleFormat;

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $sample:expr;)*) => {
        /// XENSND_PCM_FORMAT_*.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum PcmFormat {
            $($(#[$doc])* $name = $code,)*
        }

        impl PcmFormat {
            /// All of them, by code.
            pub const ALL: [Self; 25] = [$(Self::$name,)*];

            /// The format of a code.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// XENSND_PCM_FORMAT_*_STR: its name in XenStore.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// How a sample lies in memory; `None` for formats that aren't plain samples, which no sound server plays.
            pub const fn sample_format(self) -> Option<SampleFormat> {
                match self {
                    $(Self::$name => $sample,)*
                }
            }
        }
    };
}

formats! {
    S8 = 0, "s8", Some(SampleFormat::S8);
    U8 = 1, "u8", Some(SampleFormat::U8);
    S16Le = 2, "s16_le", Some(SampleFormat::S16Le);
    S16Be = 3, "s16_be", Some(SampleFormat::S16Be);
    U16Le = 4, "u16_le", Some(SampleFormat::U16Le);
    U16Be = 5, "u16_be", Some(SampleFormat::U16Be);
    /// 24 bits in the low end of four octets, as Linux understands it.
    S24Le = 6, "s24_le", Some(SampleFormat::S24In32Le);
    S24Be = 7, "s24_be", Some(SampleFormat::S24In32Be);
    U24Le = 8, "u24_le", Some(SampleFormat::U24In32Le);
    U24Be = 9, "u24_be", Some(SampleFormat::U24In32Be);
    S32Le = 10, "s32_le", Some(SampleFormat::S32Le);
    S32Be = 11, "s32_be", Some(SampleFormat::S32Be);
    U32Le = 12, "u32_le", Some(SampleFormat::U32Le);
    U32Be = 13, "u32_be", Some(SampleFormat::U32Be);
    F32Le = 14, "float_le", Some(SampleFormat::F32Le);
    F32Be = 15, "float_be", Some(SampleFormat::F32Be);
    F64Le = 16, "float64_le", Some(SampleFormat::F64Le);
    F64Be = 17, "float64_be", Some(SampleFormat::F64Be);
    Iec958SubframeLe = 18, "iec958_subframe_le", None;
    Iec958SubframeBe = 19, "iec958_subframe_be", None;
    MuLaw = 20, "mu_law", Some(SampleFormat::MuLaw);
    ALaw = 21, "a_law", Some(SampleFormat::ALaw);
    ImaAdpcm = 22, "ima_adpcm", None;
    Mpeg = 23, "mpeg", None;
    Gsm = 24, "gsm", None;
}

/// What xl writes for floats, which the protocol spells otherwise.
const XL_SPELLINGS: [(&str, PcmFormat); 4] = [
    ("f32_le", PcmFormat::F32Le),
    ("f32_be", PcmFormat::F32Be),
    ("f64_le", PcmFormat::F64Le),
    ("f64_be", PcmFormat::F64Be),
];

impl PcmFormat {
    /// The code in packets.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The format whose samples lie in memory so: every plain one has its own.
    pub fn of_sample(sample: SampleFormat) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.sample_format() == Some(sample))
    }

    /// The format of a XenStore name, in any case, as the Linux frontend compares. xl's own spelling of floats
    /// (`f32_le`) counts too.
    pub fn from_name(name: &str) -> Option<Self> {
        let xl = || XL_SPELLINGS.into_iter().find(|(text, _)| name.eq_ignore_ascii_case(text));
        let known = Self::ALL.into_iter().find(|format| name.eq_ignore_ascii_case(format.name()));
        known.or_else(|| xl().map(|(_, format)| format))
    }
}

impl fmt::Display for PcmFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A format code as a guest sent it, known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FormatCode(pub u8);

impl FormatCode {
    /// The format, if the protocol has one of this code.
    pub const fn known(self) -> Option<PcmFormat> {
        PcmFormat::from_code(self.0)
    }
}

impl From<PcmFormat> for FormatCode {
    fn from(format: PcmFormat) -> Self {
        Self(format.code())
    }
}

impl fmt::Display for FormatCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(format) => write!(f, "{format}"),
            None => write!(f, "unknown format {}", self.0),
        }
    }
}

/// "Bit mask made as bitwise OR of (1 << XENSND_PCM_FORMAT_XXX) values." Bits beyond the known formats may be set in
/// one that a guest sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FormatSet(u64);

impl FormatSet {
    /// No format.
    pub const EMPTY: Self = Self(0);

    /// The set of a mask.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The mask.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Every format that is plain samples, which is what the bridge plays and records.
    pub fn plain_samples() -> Self {
        PcmFormat::ALL.into_iter().filter(|format| format.sample_format().is_some()).collect()
    }

    /// Whether a format is in the set.
    pub const fn contains(self, format: PcmFormat) -> bool {
        self.0 & (1 << format.code()) != 0
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every bit of this set is in `other`.
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The formats in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The known formats in the set, by code.
    pub fn iter(self) -> impl Iterator<Item = PcmFormat> {
        PcmFormat::ALL.into_iter().filter(move |format| self.contains(*format))
    }
}

impl FromIterator<PcmFormat> for FormatSet {
    fn from_iter<I: IntoIterator<Item = PcmFormat>>(formats: I) -> Self {
        Self(formats.into_iter().fold(0, |bits, format| bits | (1 << format.code())))
    }
}

impl fmt::Display for FormatSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(PcmFormat::name).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_and_names_lead_back_to_their_format() {
        for (code, format) in PcmFormat::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(format.code()), code);
            assert_eq!(PcmFormat::from_code(format.code()), Some(format));
            assert_eq!(PcmFormat::from_name(format.name()), Some(format));
            assert_eq!(PcmFormat::from_name(&format.name().to_uppercase()), Some(format));
        }
        assert_eq!(PcmFormat::from_code(25), None);
        assert_eq!(PcmFormat::from_name("s16"), None);
        assert_eq!(PcmFormat::from_name(" s8"), None);
        assert_eq!(PcmFormat::from_name(""), None);
    }

    #[test]
    fn floats_are_known_by_both_spellings() {
        assert_eq!(PcmFormat::from_name("float_le"), Some(PcmFormat::F32Le));
        assert_eq!(PcmFormat::from_name("F32_LE"), Some(PcmFormat::F32Le));
        assert_eq!(PcmFormat::from_name("f64_be"), Some(PcmFormat::F64Be));
    }

    #[test]
    fn formats_that_are_no_plain_samples_have_no_layout() {
        let opaque: Vec<_> = PcmFormat::ALL.into_iter().filter(|f| f.sample_format().is_none()).collect();
        let expected = [
            PcmFormat::Iec958SubframeLe,
            PcmFormat::Iec958SubframeBe,
            PcmFormat::ImaAdpcm,
            PcmFormat::Mpeg,
            PcmFormat::Gsm,
        ];
        assert_eq!(opaque, expected);
        assert_eq!(FormatSet::plain_samples().iter().count(), 20);
        assert_eq!(PcmFormat::S24Le.sample_format(), Some(SampleFormat::S24In32Le));
    }

    #[test]
    fn an_unknown_code_can_be_named() {
        assert_eq!(FormatCode(2).to_string(), "s16_le");
        assert_eq!(FormatCode(200).to_string(), "unknown format 200");
    }

    proptest! {
        #[test]
        fn sets_behave_as_sets(a: u64, b: u64) {
            let (a, b) = (FormatSet::from_bits(a), FormatSet::from_bits(b));
            let both = a.intersection(b);
            for format in PcmFormat::ALL {
                prop_assert_eq!(both.contains(format), a.contains(format) && b.contains(format));
            }
            prop_assert!(both.is_within(a) && both.is_within(b));
            prop_assert_eq!(a.iter().collect::<FormatSet>().bits(), a.bits() & 0x01ff_ffff);
        }
    }
}
