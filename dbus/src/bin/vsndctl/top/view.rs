//! What is drawn: a line for the bridge, a row for each guest and for each of its streams.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Row, Table, TableState};
use vsnd_dbus::client::{Bridge, Domain, StreamView};

use super::meter::meter;
use crate::domains::title;
use crate::list::{format, headline, latency, xruns};
use crate::text::{count, safe};
use crate::volume::percent;

const HEADINGS: [&str; 7] = ["GUEST, STREAM", "STATE", "FORMAT", "LATENCY", "POS ERROR", "XRUNS", "LEVEL"];

/// The least width of all columns but the meters', and of the spaces between all of them.
const OTHER_CELLS: u16 = 17 + 7 + 21 + 8 + 9 + 5 + 6;
/// The longest meter, 3 dB to a cell; a narrower terminal has shorter ones.
const LONGEST_METER: u16 = 20;

/// The view between two drawings.
#[derive(Default)]
pub struct View {
    /// The first row that is drawn.
    first: usize,
}

impl View {
    /// Moves the rows by so many.
    pub fn scroll(&mut self, rows: i16) {
        self.first = self.first.saturating_add_signed(rows.into());
    }

    /// Draws a bridge as it is now.
    pub fn draw(&mut self, frame: &mut Frame<'_>, bridge: &Bridge) {
        let meter_cells = frame.area().width.saturating_sub(OTHER_CELLS).min(LONGEST_METER);
        let rows = |domain| domain_rows(domain, usize::from(meter_cells));
        let rows: Vec<_> = bridge.domains.iter().flat_map(rows).collect();
        let [head, body] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(frame.area());
        let streams = bridge.domains.iter().flat_map(|domain| &domain.streams);
        let playing = streams.filter(|stream| runs(stream)).count();
        let (guests, playing) = (count(bridge.domains.len(), "guest"), count(playing, "running stream"));
        let head_text = format!("{}: {guests}, {playing}", headline(bridge));
        frame.render_widget(Line::styled(head_text, Modifier::BOLD), head);
        // The last row never leaves the view, and the heading takes one.
        self.first = self.first.min(rows.len().saturating_sub(usize::from(body.height.saturating_sub(1))));
        let widths = [
            Constraint::Min(17),
            Constraint::Length(7),
            Constraint::Length(21),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(5),
            Constraint::Length(meter_cells),
        ];
        let heading = Row::new(HEADINGS).style(Modifier::REVERSED);
        let mut state = TableState::new().with_offset(self.first);
        frame.render_stateful_widget(Table::new(rows, widths).header(heading), body, &mut state);
    }
}

fn runs(stream: &StreamView) -> bool {
    stream.state == "running"
}

fn domain_rows(domain: &Domain, meter_cells: usize) -> impl Iterator<Item = Row<'static>> + '_ {
    let volume = if domain.muted { "muted".to_owned() } else { percent(domain.volume) };
    let capture =
        if domain.capture_active { "records".to_owned() } else { format!("capture {}", domain.capture) };
    let name = Row::new([title(domain), volume, capture]).style(Modifier::BOLD);
    std::iter::once(name).chain(domain.streams.iter().map(move |stream| stream_row(stream, meter_cells)))
}

fn stream_row(stream: &StreamView, meter_cells: usize) -> Row<'static> {
    let name = Text::from(format!("  {} {}", stream.id, stream.direction));
    let state = Text::from(safe(&stream.state));
    if stream.rate == 0 {
        return Row::new([name, state]).style(Color::DarkGray);
    }
    let xruns = xruns(stream);
    let xrun_style = if xruns > 0 { Style::new().fg(Color::Red) } else { Style::new() };
    let error = if runs(stream) { position_error(stream.position_error_usec) } else { String::new() };
    let levels = if runs(stream) { meter(&stream.levels, meter_cells) } else { Line::default() };
    Row::new([
        name,
        state,
        Text::from(format(stream)),
        Text::from(latency(stream)).right_aligned(),
        Text::from(error).right_aligned(),
        Text::styled(xruns.to_string(), xrun_style).right_aligned(),
        Text::from(levels),
    ])
}

/// The told position's distance from the sound in milliseconds.
fn position_error(usec: i64) -> String {
    format!("{:+.2} ms", usec as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use vsnd_dbus::{Capture, Direction, DomainId, StreamId};

    use super::*;

    fn stream(number: u32, state: &str) -> StreamView {
        StreamView {
            id: StreamId { card: 0, pcm: 0, stream: number },
            direction: Direction::Playback,
            state: state.to_owned(),
            format: "s16_le".to_owned(),
            rate: if state == "closed" { 0 } else { 48_000 },
            channels: 2,
            period_frames: 1024,
            buffer_frames: 4096,
            volume: vec![1.0, 1.0],
            muted: false,
            node_name: "vsnd.work.0.0.0".to_owned(),
            node_id: 47,
            target: String::new(),
            latency_usec: 21_333,
            underruns: 2,
            overruns: 1,
            position: 48_000,
            position_error_usec: -40,
            levels: vec![1.0, 0.1],
        }
    }

    fn bridge(name: &str, streams: Vec<StreamView>) -> Bridge {
        let domain = Domain {
            id: DomainId(5),
            name: name.to_owned(),
            uuid: String::new(),
            volume: 0.5,
            muted: false,
            capture: Capture::Ask,
            capture_active: false,
            streams,
        };
        let (sinks, sources) = (Vec::new(), Vec::new());
        let (version, server) = ("0.1.0".to_owned(), "PipeWire 1.4.2".to_owned());
        Bridge { version, server, sinks, sources, domains: vec![domain] }
    }

    fn drawn(view: &mut View, bridge: &Bridge, width: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, 8)).unwrap();
        terminal.draw(|frame| view.draw(frame, bridge)).unwrap();
        let buffer = terminal.backend().buffer();
        let row =
            |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect::<String>();
        buffer.content().chunks(width.into()).map(|cells| row(cells).trim_end().to_owned()).collect()
    }

    #[test]
    fn guests_and_their_streams_stand_below_each_other() {
        let bridge = bridge("work", vec![stream(0, "running"), stream(1, "closed")]);
        let rows = drawn(&mut View::default(), &bridge, 93);
        assert_eq!(rows[0], "vsnd-bridge 0.1.0 on PipeWire 1.4.2: 1 guest, 1 running stream");
        let heading = "GUEST, STREAM     STATE   FORMAT                LATENCY  POS ERROR XRUNS LEVEL";
        assert_eq!(rows[2], heading);
        assert_eq!(rows[3], "work (5)          50%     capture ask");
        let playing =
            "  0_0_0 playback  running s16_le 48000 Hz 2 ch   21.3 ms  -0.04 ms     3 ██████████████▀▀▀▀▀▀";
        assert_eq!(rows[4], playing);
        assert_eq!(rows[5], "  0_0_1 playback  closed");
    }

    #[test]
    fn a_narrow_terminal_has_shorter_meters() {
        let rows = drawn(&mut View::default(), &bridge("work", vec![stream(0, "running")]), 80);
        assert!(rows[4].ends_with("  -0.04 ms     3 █████▀▀"), "{rows:?}");
        // What has no room is not drawn, and nothing fails.
        drawn(&mut View::default(), &bridge("work", vec![stream(0, "running")]), 10);
    }

    #[test]
    fn more_rows_than_the_terminal_has_are_scrolled_to_the_last_and_no_further() {
        let bridge = bridge("work", (0..20).map(|number| stream(number, "stopped")).collect());
        let mut view = View::default();
        assert!(drawn(&mut view, &bridge, 93)[3].starts_with("work"));
        view.scroll(100);
        let rows = drawn(&mut view, &bridge, 93);
        assert!(rows[7].contains("0_0_19"), "{rows:?}");
        view.scroll(-1);
        assert!(drawn(&mut view, &bridge, 93)[7].contains("0_0_18"));
        view.scroll(i16::MIN);
        assert!(drawn(&mut view, &bridge, 93)[3].starts_with("work"));
    }

    #[test]
    fn a_hostile_name_is_drawn_with_escapes() {
        let rows = drawn(&mut View::default(), &bridge("a\u{1b}[2J\u{202e}", Vec::new()), 120);
        assert!(rows[3].starts_with(r"a\u{1b}[2J\u{202e}"), "{rows:?}");
    }
}
