//! Reading single nodes, whose values the guest may have written: checked for length, text and range.

use std::fmt;

use super::Interval;
use crate::xen::{Nodes, StoreError};

/// The longest value that is read at all: what XenStore carries in one message.
const LONGEST_VALUE: usize = 4096;

/// The longest part of a value that messages quote, in characters.
const LONGEST_QUOTE: usize = 40;

/// A node that says what can't be, or doesn't say what must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{node}: {problem}")]
pub struct ConfigError {
    /// Its path.
    pub node: String,
    /// What is wrong, and what would be right.
    pub problem: Problem,
}

/// What is wrong with a node, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// XenStore doesn't give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It isn't there.
    #[error("is missing; it should hold {0}")]
    Missing(&'static str),
    /// It is longer than any such value.
    #[error("holds {0} octets, more than the {LONGEST_VALUE} that a value can have")]
    TooLong(usize),
    /// It isn't UTF-8.
    #[error("is no text; it should hold UTF-8")]
    NotText,
    /// It isn't a number of the right range.
    #[error("holds {found}; it should hold a decimal number from {}", .range)]
    Number {
        /// What it holds.
        found: Quote,
        /// What it might hold.
        range: Interval<u32>,
    },
    /// It isn't a stream type.
    #[error("holds {0}; it should hold \"p\" for playback or \"c\" for capture")]
    StreamType(Quote),
    /// None of its formats can be played.
    #[error("holds {0}, no format that can be played; \"s16_le,s32_le\" would be two")]
    Formats(Quote),
    /// The least count of channels is above the greatest.
    #[error("allows {0} channels; channels-min must not be above channels-max (1 and 2 where not set)")]
    Channels(Interval<u8>),
    /// It is another version of the protocol.
    #[error("holds {0}; the bridge speaks version 2 only")]
    Version(Quote),
    /// It has more children than the protocol allows.
    #[error("has {found} {what}; at most {most} can be")]
    TooMany {
        /// What they are.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// Its children aren't numbered from 0 on.
    #[error(
        "has {what} up to {last} but none of index {missing}; they must be numbered from 0 without a gap"
    )]
    Gap {
        /// What they are.
        what: &'static str,
        /// The index that isn't there.
        missing: u32,
        /// The last that is.
        last: u32,
    },
    /// A card without a PCM.
    #[error("has no PCM; a card needs one at least, in the directory \"0\"")]
    NoPcm,
}

/// A value as a message may show it: cut short, in quotes, with nothing that moves a terminal's cursor.
#[derive(Clone, PartialEq, Eq)]
pub struct Quote(String);

impl Quote {
    pub(super) fn new(value: &str) -> Self {
        let mut quoted: String = value.chars().take(LONGEST_QUOTE).collect();
        if quoted.len() < value.len() {
            quoted.push('…');
        }
        Self(quoted)
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Debug for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

pub(super) fn fault(node: &str, problem: impl Into<Problem>) -> ConfigError {
    ConfigError { node: node.into(), problem: problem.into() }
}

/// The text of a node; `None` if there is no such node.
pub(super) fn text(nodes: &dyn Nodes, node: &str) -> Result<Option<String>, ConfigError> {
    let value = match nodes.read(node) {
        Ok(value) => value,
        Err(StoreError::NotFound) => return Ok(None),
        Err(error) => return Err(fault(node, error)),
    };
    if value.len() > LONGEST_VALUE {
        return Err(fault(node, Problem::TooLong(value.len())));
    }
    String::from_utf8(value).map(Some).map_err(|_| fault(node, Problem::NotText))
}

/// "Nodes specifying numeric values are encoded in decimal": digits only, no sign, no blank.
pub(super) fn decimal(text: &str, range: Interval<u32>) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.filter(|number| range.contains(*number))
}

/// The number in a node; `None` if there is no such node.
pub(super) fn number(
    nodes: &dyn Nodes,
    node: &str,
    range: Interval<u32>,
) -> Result<Option<u32>, ConfigError> {
    let Some(text) = text(nodes, node)? else { return Ok(None) };
    match decimal(&text, range) {
        Some(number) => Ok(Some(number)),
        None => Err(fault(node, Problem::Number { found: Quote::new(&text), range })),
    }
}

/// How many numbered children a node has; other children don't count.
pub(super) fn numbered_children(
    nodes: &dyn Nodes,
    node: &str,
    what: &'static str,
    most: u8,
) -> Result<u8, ConfigError> {
    let children = nodes.directory(node).map_err(|error| fault(node, error))?;
    let index = |name: &String| decimal(name, Interval::new(0, u32::MAX)).filter(|n| n.to_string() == *name);
    let mut indices: Vec<u32> = children.iter().filter_map(index).collect();
    indices.sort_unstable();
    indices.dedup();
    let found = indices.len();
    let count = u8::try_from(found).ok().filter(|count| *count <= most);
    let count = count.ok_or_else(|| fault(node, Problem::TooMany { what, found, most: most.into() }))?;
    match (indices.last(), (0..).zip(&indices).find(|(expected, index)| expected != *index)) {
        (Some(last), Some((missing, _))) => Err(fault(node, Problem::Gap { what, missing, last: *last })),
        _ => Ok(count),
    }
}

/// A name without what would disturb where it is shown: control characters, line separators, and marks that turn the
/// direction of what follows.
pub(super) fn plain(name: &str) -> String {
    let disturbs = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    name.chars().filter(|c| !disturbs(*c)).collect::<String>().trim().to_owned()
}

/// As much of a text as fits into so many octets.
pub(super) fn cut(text: &mut String, most: usize) -> bool {
    let longer = text.len() > most;
    while text.len() > most {
        text.pop();
    }
    longer
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestNodes;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_digits_in_range_and_nothing_else() {
        let range = Interval::new(1, 255);
        assert_eq!(decimal("255", range), Some(255));
        for text in
            ["", "0", "256", "+1", "-1", " 1", "1 ", "1\n", "0x10", "1e2", "٣", "99999999999999999999"]
        {
            assert_eq!(decimal(text, range), None, "{text:?}");
        }
        let nodes = TestNodes::of(&[("/n", "one")]);
        let error = number(&nodes, "/n", range).unwrap_err();
        assert_eq!(error.to_string(), "/n: holds \"one\"; it should hold a decimal number from 1 to 255");
        assert_eq!(number(&nodes, "/m", range), Ok(None));
    }

    #[test]
    fn text_is_utf_8_of_bounded_length() {
        let mut nodes = TestNodes::of(&[("/ok", "ä")]);
        nodes.set("/binary", &[0xff]);
        nodes.set("/long", &[b'a'; 4097]);
        assert_eq!(text(&nodes, "/ok"), Ok(Some("ä".into())));
        assert_eq!(text(&nodes, "/binary").unwrap_err().problem, Problem::NotText);
        assert_eq!(text(&nodes, "/long").unwrap_err().problem, Problem::TooLong(4097));
    }

    #[test]
    fn names_lose_what_would_disturb_a_mixer_or_terminal() {
        assert_eq!(plain(" a\u{1b}[2J\nb\u{202e}c\u{2067}\u{85} "), "a[2Jbc");
        let mut name = "aä".repeat(40);
        assert!(cut(&mut name, 80));
        assert_eq!(name.len(), 79 + usize::from(name.is_char_boundary(80)));
        assert!(!cut(&mut name, 80));
    }

    #[test]
    fn quotes_are_short_and_harmless() {
        assert_eq!(Quote::new("a\n\u{1b}").to_string(), r#""a\n\u{1b}""#);
        assert_eq!(Quote::new(&"x".repeat(500)).to_string().chars().count(), LONGEST_QUOTE + 3);
    }

    #[test]
    fn children_are_numbered_without_a_gap() {
        let nodes =
            TestNodes::of(&[("/a/0/x", ""), ("/a/1", ""), ("/a/name", ""), ("/a/02", ""), ("/b/1", "")]);
        assert_eq!(numbered_children(&nodes, "/a", "PCMs", 2), Ok(2));
        let error = numbered_children(&nodes, "/a", "PCMs", 1).unwrap_err();
        assert_eq!(error.to_string(), "/a: has 2 PCMs; at most 1 can be");
        let error = numbered_children(&nodes, "/b", "PCMs", 2).unwrap_err();
        let message = "/b: has PCMs up to 1 but none of index 0; they must be numbered from 0 without a gap";
        assert_eq!(error.to_string(), message);
        assert_eq!(
            numbered_children(&nodes, "/c", "PCMs", 2).unwrap_err().problem,
            StoreError::NotFound.into()
        );
    }

    proptest! {
        #[test]
        fn no_text_harms(value: String, most in 0usize..20) {
            let _ = decimal(&value, Interval::new(0, u32::MAX));
            let mut name = plain(&value);
            prop_assert!(!name.contains(char::is_control));
            cut(&mut name, most);
            prop_assert!(name.len() <= most);
            prop_assert!(!Quote::new(&value).to_string().contains(char::is_control));
        }
    }
}
