//! Text for a terminal. What a guest wrote never gets there as it is.

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

/// A text with escapes for whatever a terminal would obey, hide or reorder.
pub fn safe(text: &str) -> String {
    // Quotes are escaped for Rust's sake only.
    text.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"")
}

/// JSON, in which such characters are escaped too.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut safe = String::new();
    for c in serde_json::to_string(value)?.chars() {
        // JSON itself escapes ASCII's control characters but for DEL.
        if c == '\x7f' || (!c.is_ascii() && c.escape_debug().len() > 1) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    Ok(safe)
}

/// So many of something.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Rows with their columns side by side, two spaces between them.
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let padding = " ".repeat(width - cell.width());
            format!("{cell}{padding}")
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOSTILE: &str = "a\x1b[31m\u{9b}2J\x07\x7f\u{202e}\u{2066}\u{200b}\u{ad}\u{feff}\u{e0041}\r\n";

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let shown = safe(HOSTILE);
        assert!(shown.is_ascii() && !shown.contains(char::is_control), "{shown}");
        assert!(shown.starts_with(r"a\u{1b}[31m\u{9b}2J"), "{shown}");
        assert_eq!(safe("Küche's \"音\""), "Küche's \"音\"");
        assert_eq!(safe(r"a\u{1b}"), r"a\\u{1b}");
    }

    #[test]
    fn json_is_the_same_text_without_what_a_terminal_would_obey() {
        let shown = json(&[HOSTILE]).unwrap();
        assert!(shown.is_ascii() && !shown.contains(char::is_control), "{shown}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [HOSTILE]);
        assert_eq!(json(&"Küche").unwrap(), "\"Küche\"");
    }

    #[test]
    fn columns_stand_below_each_other_whatever_the_script() {
        let rows = [["音楽", "1"], ["wor", "2"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows), ["音楽  1", "wor   2"]);
        assert_eq!(columns(&[vec!["a".to_owned()], vec![String::new(), "b".to_owned()]]), ["a", "   b"]);
    }

    proptest! {
        #[test]
        fn no_text_gets_through_to_the_terminal(text in any::<Vec<char>>()) {
            let text: String = text.into_iter().collect();
            prop_assert!(!safe(&text).contains(char::is_control));
            let shown = json(&text).unwrap();
            prop_assert!(!shown.contains(char::is_control));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}
