//! What the bridge logs of a guest: it must hold nothing that moves a terminal's cursor, and stay short.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::Level;

/// The longest line that a guest can cause, in octets.
const LONGEST_LINE: usize = 1024;

static LINES: AtomicU64 = AtomicU64::new(0);
static FAULT: Mutex<Option<String>> = Mutex::new(None);

/// Lines logged so far.
pub fn lines() -> u64 {
    LINES.load(Ordering::Acquire)
}

/// Reads the log from now on.
pub fn keep() {
    // Another log can't be there: nothing else sets one in this process.
    let _ = tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_ansi(false)
        .without_time()
        .with_writer(|| Reader)
        .try_init();
}

/// Panics if a line broke a rule.
pub fn check() {
    if let Some(fault) = FAULT.lock().unwrap().take() {
        panic!("{fault}");
    }
}

struct Reader;

impl Write for Reader {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.fetch_add(1, Ordering::AcqRel);
        let text = std::str::from_utf8(line).map(|text| text.trim_end_matches('\n'));
        let is_plain = text.is_ok_and(|text| !text.contains(char::is_control));
        if !is_plain || line.len() > LONGEST_LINE {
            let line = line.escape_ascii();
            *FAULT.lock().unwrap() = Some(format!("a line that may not be logged: {line}"));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
