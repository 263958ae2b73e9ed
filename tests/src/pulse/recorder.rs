//! What a sink plays, by PulseAudio's own recorder. The server keeps seconds for it, so a busy machine costs no frame.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::pipewire::Sound;

/// Records until it is finished or dropped.
pub struct Recorder {
    child: Child,
    sound: Arc<Mutex<Sound>>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Starts `parec` (a command that finds the server) on the monitor of `sink`; returns when it records.
    ///
    /// # Errors
    /// When it can't be started or records nothing within 10 s.
    pub fn start(mut parec: Command, sink: &str, channels: u8) -> Result<Self> {
        parec.arg(format!("--device={sink}.monitor")).arg(format!("--channels={channels}"));
        parec.args(["--raw", "--format=float32le", "--rate=48000", "--latency-msec=20", "--no-remap"]);
        let mut child = parec.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("parec")?;
        let mut stdout = child.stdout.take().context("parec's output")?;
        let sound = Arc::<Mutex<Sound>>::default();
        let own = Arc::clone(&sound);
        let thread = std::thread::spawn(move || {
            let mut rest = Vec::new();
            let mut piece = vec![0; 1 << 16];
            while let Ok(len @ 1..) = stdout.read(&mut piece) {
                rest.extend_from_slice(piece.get(..len).unwrap_or_default());
                let (samples, _) = rest.as_chunks::<4>();
                let taken = samples.len() * 4;
                own.lock().unwrap_or_else(PoisonError::into_inner).record(samples);
                rest.drain(..taken);
            }
        });
        let recorder = Self { child, sound, thread: Some(thread) };
        recorder
            .wait(Duration::from_secs(10), "recording", |sound| (!sound.samples.is_empty()).then_some(()))?;
        Ok(recorder)
    }

    /// Waits until `seen` finds in the sound what it looks for; `what` names it.
    ///
    /// # Errors
    /// When it isn't there after `patience`.
    pub fn wait<T>(
        &self,
        patience: Duration,
        what: &str,
        mut seen: impl FnMut(&Sound) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            {
                let sound = self.sound.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(found) = seen(&sound) {
                    return Ok(found);
                }
                if Instant::now() > deadline {
                    bail!(
                        "not {what} after {patience:?}: {} samples, {} sounds",
                        sound.samples.len(),
                        sound.ended
                    );
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it; what it heard.
    pub fn finish(mut self) -> Sound {
        self.end();
        std::mem::take(&mut *self.sound.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end();
    }
}
