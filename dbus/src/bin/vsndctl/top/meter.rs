//! A level meter in one row of a terminal: the left channels in the upper halves of its cells, the right ones in the lower.

use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};

/// The range of a meter in dB below full scale.
const RANGE: f64 = 60.0;

/// A meter of so many cells for these peaks, linear and one for each channel.
pub fn meter(levels: &[f64], cells: usize) -> Line<'static> {
    let every_second = |first: usize| levels.iter().skip(first).step_by(2).copied().fold(0.0, f64::max);
    let left = lit(every_second(0), cells);
    let right = if levels.len() > 1 { lit(every_second(1), cells) } else { left };
    let cell = |index: usize| {
        let glyph = match (index < left, index < right) {
            (true, true) => "█",
            (true, false) => "▀",
            (false, true) => "▄",
            (false, false) => " ",
        };
        Span::styled(glyph, Style::new().fg(colour(index, cells)))
    };
    Line::from_iter((0..cells).map(cell))
}

/// How many cells a peak lights: all at full scale, none below the range, more above.
fn lit(peak: f64, cells: usize) -> usize {
    let share = 20.0 * peak.log10() / RANGE + 1.0;
    // NaN, and what is below 0, becomes 0: the logarithm of silence is infinite.
    (share * cells as f64).ceil() as usize
}

/// Yellow from -18 dB on, red from -6 dB on.
fn colour(cell: usize, cells: usize) -> Color {
    match cell * 10 {
        tenths if tenths < 7 * cells => Color::Green,
        tenths if tenths < 9 * cells => Color::Yellow,
        _ => Color::Red,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELLS: usize = 20;

    fn drawn(levels: &[f64]) -> String {
        meter(levels, CELLS).to_string().trim_end().to_owned()
    }

    #[test]
    fn a_meter_shows_60_db_below_full_scale() {
        assert_eq!(drawn(&[1.0]), "█".repeat(CELLS));
        // -6.02 dB
        assert_eq!(drawn(&[0.5, 0.5]), "█".repeat(18));
        // -30 dB
        assert_eq!(drawn(&[0.031_62]), "█".repeat(10));
        assert_eq!(drawn(&[0.000_9]), "");
    }

    #[test]
    fn left_and_right_are_told_apart() {
        assert_eq!(drawn(&[1.0, 0.0]), "▀".repeat(CELLS));
        assert_eq!(drawn(&[0.0, 1.0]), "▄".repeat(CELLS));
        assert_eq!(drawn(&[1.0, 0.5, 0.1, 0.2]), format!("{}▀▀", "█".repeat(18)));
    }

    #[test]
    fn what_is_no_level_lights_nothing_or_everything() {
        assert_eq!(drawn(&[]), "");
        assert_eq!(drawn(&[f64::NAN]), "");
        assert_eq!(drawn(&[-1.0]), "");
        assert_eq!(drawn(&[f64::INFINITY]), "█".repeat(CELLS));
    }
}
