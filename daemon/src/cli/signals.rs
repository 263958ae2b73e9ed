//! SIGTERM and SIGINT: the first asks the program to end, the second ends it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The wish to end, listened for.
pub(super) struct Asked {
    terminate: Signal,
    interrupt: Signal,
}

impl Asked {
    /// Listens from now on, inside a runtime. Whatever the program does after a first signal, hanging included, a second ends
    /// it at once, with the status that a shell gives a program that a signal ended.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn listen() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        end_at_a_second()?;
        Ok(Self { terminate, interrupt })
    }

    /// Ready with the first signal.
    pub(super) async fn first(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}

/// From the second SIGTERM or SIGINT on, ends the program at once.
///
/// # Errors
/// What the system says.
pub(super) fn end_at_a_second() -> io::Result<()> {
    let asked = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag unset.
        flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&asked))?;
    }
    for number in [SIGTERM, SIGINT] {
        flag::register(number, Arc::clone(&asked))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// A program that listens, and hangs once it is asked to end. Run by the test below, as a process of its own.
    #[test]
    #[ignore = "never ends by itself"]
    fn hanging() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let asked = Asked::listen().unwrap();
            eprintln!("listens");
            asked.first().await;
        });
        eprintln!("hangs");
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn a_second_signal_ends_a_program_that_hangs() {
        for (first, second, status) in [
            (Signal::TERM, Signal::TERM, 143),
            (Signal::INT, Signal::TERM, 143),
            (Signal::TERM, Signal::INT, 130),
        ] {
            let mut program = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "cli::signals::tests::hanging", "--ignored", "--nocapture"])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = BufReader::new(program.stderr.take().unwrap()).lines().map(Result::unwrap);
            let id = Pid::from_child(&program);
            assert_eq!(said.next().as_deref(), Some("listens"));
            kill_process(id, first).unwrap();
            assert_eq!(said.next().as_deref(), Some("hangs"), "the first only asks");
            let deadline = Instant::now() + Duration::from_secs(2);
            kill_process(id, second).unwrap();
            let mut ended = None;
            while ended.is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                ended = program.try_wait().unwrap();
            }
            let _ = program.kill();
            program.wait().unwrap();
            assert_eq!(ended.and_then(|ended| ended.code()), Some(status));
        }
    }
}
