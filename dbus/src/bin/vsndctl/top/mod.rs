//! `vsndctl top`: guests and streams, live.

mod meter;
mod view;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use vsnd_dbus::client::Client;

use crate::text::json;
use view::View;

/// How often levels are drawn: as often as an eye wants them.
const DRAWN: Duration = Duration::from_millis(100);
/// How often lines of JSON come.
const PRINTED: Duration = Duration::from_secs(1);

pub async fn top(client: &Client, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return lines(client).await;
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        anyhow::bail!("top draws on a terminal, and this is none; --json prints lines");
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = live(client, &mut terminal).await;
    ratatui::try_restore()?;
    outcome
}

async fn lines(client: &Client) -> anyhow::Result<()> {
    let mut ticks = interval(PRINTED);
    loop {
        ticks.tick().await;
        writeln!(io::stdout().lock(), "{}", json(&client.snapshot().await?)?)?;
    }
}

async fn live(client: &Client, terminal: &mut DefaultTerminal) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut ticks = interval(DRAWN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut view = View::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => (),
            _ = terminate.recv() => return Ok(()),
        }
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if ends(key) => return Ok(()),
                Event::Key(key) => view.scroll(scrolled(key)),
                _ => (),
            }
        }
        let bridge = client.snapshot().await?;
        terminal.draw(|frame| view.draw(frame, &bridge))?;
    }
}

fn ends(key: KeyEvent) -> bool {
    let interrupted = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    interrupted || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

/// The rows that a key scrolls by.
fn scrolled(key: KeyEvent) -> i16 {
    match key.code {
        _ if key.kind == KeyEventKind::Release => 0,
        KeyCode::Up => -1,
        KeyCode::Down => 1,
        KeyCode::PageUp => -10,
        KeyCode::PageDown => 10,
        KeyCode::Home => i16::MIN,
        _ => 0,
    }
}
