//! The signals that end the demo, looked for now and then: what it does blocks.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::cli::signals::end_at_a_second;

/// The number of the last signal, or 0.
pub(super) struct Signals(Arc<AtomicUsize>);

/// A signal with this number asked the demo to end.
#[derive(Debug, thiserror::Error)]
#[error("ended by signal {0}")]
pub(super) struct Ended(u8);

impl Signals {
    /// Notes from now on that the demo is asked to end, or that its terminal is closed. A second SIGTERM or SIGINT ends it at
    /// once; not a second SIGHUP, because a shell and the system each may send one.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn listen() -> io::Result<Self> {
        end_at_a_second()?;
        let last = Arc::new(AtomicUsize::new(0));
        for number in [SIGTERM, SIGINT, SIGHUP] {
            flag::register_usize(number, Arc::clone(&last), number.unsigned_abs() as usize)?;
        }
        Ok(Self(last))
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// A signal came.
    pub(super) fn go_on(&self) -> Result<(), Ended> {
        match u8::try_from(self.0.load(Ordering::Relaxed)) {
            Ok(0) | Err(_) => Ok(()),
            Ok(number) => Err(Ended(number)),
        }
    }
}

impl Ended {
    /// The status that a shell gives a program that a signal ended.
    pub(super) fn status(&self) -> ExitCode {
        ExitCode::from(128 + self.0)
    }
}
