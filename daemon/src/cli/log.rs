//! What is said on stderr: log lines, and the one line that a failed command ends with.

use std::env::{self, VarError};
use std::fmt;
use std::io::{IsTerminal, Write, stderr};

use anyhow::{anyhow, bail};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format};
use tracing_subscriber::registry::LookupSpan;

/// The environment variable that says what is logged.
const FILTER: &str = "VSND_LOG";

/// Our crates, the parts that log.
const PARTS: [&str; 3] = ["vsnd_bridge", "vsnd_pw_module", "vsnd_dbus"];

/// Starts logging to stderr: warnings and errors, or what `VSND_LOG` says.
pub(super) fn start() -> anyhow::Result<()> {
    let filter = match env::var(FILTER) {
        Ok(text) => filter(&text)?,
        Err(VarError::NotPresent) => EnvFilter::new("warn"),
        Err(VarError::NotUnicode(_)) => bail!("{FILTER} is no text; try {FILTER}=info"),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    if in_journal() {
        lines.with_ansi(false).event_format(JournalLine).init();
    } else {
        lines.with_target(false).with_ansi(stderr().is_terminal()).init();
    }
    Ok(())
}

/// Tells why the command failed. Control characters, which could come from a guest's texts, don't reach the terminal.
pub(super) fn tell(what: &str) {
    let clean: String = what.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    // Nobody is left to be told when stderr itself is gone.
    let _ = writeln!(stderr(), "vsnd-bridge: {clean}");
}

/// The filter that `text` describes.
fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    if let Some(word) = text.split(',').map(str::trim).find(|word| is_neither_level_nor_part(word)) {
        bail!(
            "{FILTER}={text}: `{word}` is neither a level (off, error, warn, info, debug, trace) nor a part such as \
             vsnd_bridge::guest; try {FILTER}=info"
        );
    }
    EnvFilter::try_new(text)
        .map_err(|why| anyhow!("{FILTER}={text} is no log filter: {why}; try {FILTER}=info"))
}

/// Whether it is a single word that names nothing: `EnvFilter` takes a misspelt level for a part that never logs.
fn is_neither_level_nor_part(word: &str) -> bool {
    let is_word = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "_:-".contains(c));
    let is_part = PARTS
        .iter()
        .any(|part| word.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")));
    is_word && !is_part && word.parse::<LevelFilter>().is_err()
}

fn in_journal() -> bool {
    env::var_os("JOURNAL_STREAM").is_some() && !stderr().is_terminal()
}

/// A line for the journal, which adds the time itself and takes the level from a prefix (sd-daemon(3)).
struct JournalLine;

impl<S, N> FormatEvent<S, N> for JournalLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        format().without_time().with_level(false).with_target(false).format_event(context, writer, event)
    }
}

/// A level as syslog counts them.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_filter_is_made_of_levels_and_parts() {
        for text in ["", "info", "OFF", "warn,vsnd_bridge::guest=debug", "vsnd_pw_module", "zbus=off"] {
            assert!(filter(text).is_ok(), "{text:?}");
        }
        for text in ["inof", "warn,debgu", "vsnd_bridg", "vsnd_bridgeguest", "vsnd_bridge=loud"] {
            let error = filter(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("VSND_LOG={text}")) && error.ends_with("try VSND_LOG=info"),
                "{error}"
            );
        }
    }

    #[test]
    fn journal_lines_carry_their_level_and_no_escapes() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(JournalLine)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(domain = "work", "the guest's \x1b[31mname\x07");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("<4>the guest's"), "{text:?}");
        assert!(text.contains("domain=\"work\""), "{text:?}");
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
    }
}
