//! A second of a tone on the desktop's default sink, past everything of the bridge: whether the desktop itself is heard.

use std::f64::consts::TAU;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use libpulse_binding::error::{Code, PAErr};
use libpulse_binding::sample::{Format, Spec};
use libpulse_binding::stream::Direction;
use libpulse_simple_binding::Simple;

const RATE: u32 = 48_000;
const SECOND: usize = RATE as usize;
/// An A4 at a tenth of full scale: heard on any loudspeaker, no harm to ears.
const FREQUENCY: f64 = 440.0;
const LEVEL: f64 = 3_277.0;
/// Frames in which the tone swells and fades, so that it doesn't click.
const SWELL: usize = 2_400;
/// A server that is stopped would hold the blocking calls for ever.
const PATIENCE: Duration = Duration::from_secs(6);

/// Plays it, through the PulseAudio server or its stand-in: `server`, or the one that libpulse finds. Returns the latency before
/// its last frame.
pub(super) fn play(server: Option<&'static str>) -> anyhow::Result<Duration> {
    let (played, result) = mpsc::channel();
    std::thread::Builder::new().name("tone".to_owned()).spawn(move || {
        let _ = played.send(play_blocking(server));
    })?;
    result.recv_timeout(PATIENCE).context("the sound server doesn't take the tone")?
}

/// Whether the tone wasn't played because there is no server.
pub(super) fn nobody_listens(why: &anyhow::Error) -> bool {
    // The simple interface gives positive numbers, all others negative ones.
    why.downcast_ref().is_some_and(|PAErr(number)| number.abs() == Code::ConnectionRefused as i32)
}

fn play_blocking(server: Option<&str>) -> anyhow::Result<Duration> {
    let spec = Spec { format: Format::S16le, channels: 1, rate: RATE };
    let player =
        Simple::new(server, "vsnd-bridge check", Direction::Playback, None, "test tone", &spec, None, None)
            .context("PulseAudio's simple interface can't be opened")?;
    player.write(&tone()).context("the tone can't be played")?;
    let latency = player.get_latency().context("the server tells no latency")?;
    player.drain().context("the tone doesn't end")?;
    Ok(Duration::from_micros(latency.0))
}

fn tone() -> Vec<u8> {
    let sample = |frame: usize| {
        let swell = frame.min(SECOND - 1 - frame).min(SWELL) as f64 / SWELL as f64;
        (swell * LEVEL * (TAU * FREQUENCY * frame as f64 / f64::from(RATE)).sin()) as i16
    };
    (0..SECOND).flat_map(|frame| sample(frame).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tone_swells_and_fades() {
        let octets = tone();
        let samples: Vec<i16> =
            octets.as_chunks::<2>().0.iter().map(|octets| i16::from_le_bytes(*octets)).collect();
        assert_eq!((samples.len(), samples[0], samples[SECOND - 1]), (SECOND, 0, 0));
        assert_eq!(samples.iter().map(|sample| i32::from(*sample).abs()).max(), Some(3277));
        let crossings = samples.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        assert!((438..=440).contains(&crossings), "{crossings}");
    }
}
