//! What the demo's guest plays.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use hound::{SampleFormat, WavReader};
use vsnd_bridge::sim::signal::{Frame, TestSignal};

/// How much of a tone is played, and of a file at most, when nobody says.
const TONE: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(60);
/// The rate of the tone.
const RATE: u32 = 48_000;

/// A sound in the guest's format: 16 bits, stereo.
pub(super) struct Sound {
    pub(super) name: String,
    pub(super) rate: u32,
    pub(super) frames: Vec<Frame>,
}

impl Sound {
    /// A tone whose every frame can be told from every other.
    pub(super) fn tone(length: Option<Duration>) -> Self {
        let length = length.unwrap_or(TONE);
        let frames = TestSignal::new(1).frames(frames(length, RATE));
        Self { name: format!("a tone of {} s", length.as_secs()), rate: RATE, frames }
    }

    /// A WAV file, in 16 bits and stereo whatever it is.
    pub(super) fn file(path: &Path, length: Option<Duration>) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("{name} can't be played"))?;
        let mut file = WavReader::new(BufReader::new(file))
            .with_context(|| format!("{name} is no WAV file that can be played"))?;
        let spec = file.spec();
        if !(4_000..=192_000).contains(&spec.sample_rate) {
            bail!("{name} can't be played: {} frames a second are outside 4000 to 192000", spec.sample_rate);
        }
        let count = frames(length.unwrap_or(LONGEST), spec.sample_rate);
        let wanted = usize::try_from(count * u64::from(spec.channels)).unwrap_or(usize::MAX);
        let samples: Result<Vec<i16>, hound::Error> = match spec.sample_format {
            SampleFormat::Float => file.samples::<f32>().take(wanted).map(|s| s.map(of_float)).collect(),
            SampleFormat::Int => {
                let bits = spec.bits_per_sample;
                file.samples::<i32>().take(wanted).map(|s| s.map(|s| of_bits(s, bits))).collect()
            }
        };
        let samples = samples.with_context(|| format!("{name} is damaged"))?;
        let channels = usize::from(spec.channels.max(1));
        let stereo = |frame: &[i16]| [frame[0], frame.get(1).copied().unwrap_or(frame[0])];
        let frames: Vec<Frame> = samples.chunks_exact(channels).map(stereo).collect();
        if frames.iter().all(|frame| *frame == [0, 0]) {
            bail!(
                "{name} is silent, so nothing could be heard of it; give a file with sound in its first minute"
            );
        }
        Ok(Self { name, rate: spec.sample_rate, frames })
    }

    /// How long it lasts.
    pub(super) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.frames.len() as f64 / f64::from(self.rate))
    }
}

fn frames(length: Duration, rate: u32) -> u64 {
    length.as_secs() * u64::from(rate)
}

/// A sample of so many bits in 16; what is below the sixteenth bit is cut.
fn of_bits(sample: i32, bits: u16) -> i16 {
    let sample = if bits > 16 { sample >> (bits - 16) } else { sample << (16 - bits.min(16)) };
    i16::try_from(sample).unwrap_or(if sample < 0 { i16::MIN } else { i16::MAX })
}

fn of_float(sample: f32) -> i16 {
    // The cast saturates, which is what loud samples want.
    (sample * 32_768.0).round() as i16
}

#[cfg(test)]
mod tests {
    use hound::{WavSpec, WavWriter};

    use super::*;

    fn write(
        bits: u16,
        format: SampleFormat,
        channels: u16,
        write: impl Fn(&mut WavWriter<std::io::BufWriter<std::fs::File>>),
    ) -> Sound {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let spec = WavSpec { channels, sample_rate: 44_100, bits_per_sample: bits, sample_format: format };
        let mut writer = WavWriter::create(&path, spec).unwrap();
        write(&mut writer);
        writer.finalize().unwrap();
        Sound::file(&path, None).unwrap()
    }

    #[test]
    fn files_of_any_width_become_sixteen_bits_in_stereo() {
        let mono = write(24, SampleFormat::Int, 1, |file| {
            for sample in [0x12_3456, -0x12_3456, 0] {
                file.write_sample(sample).unwrap();
            }
        });
        assert_eq!(mono.frames, [[0x1234, 0x1234], [-0x1235, -0x1235], [0, 0]]);
        assert_eq!(mono.rate, 44_100);
        let float = write(32, SampleFormat::Float, 2, |file| {
            for sample in [0.5_f32, -1.0, 7.0, 0.0] {
                file.write_sample(sample).unwrap();
            }
        });
        assert_eq!(float.frames, [[0x4000, i16::MIN], [i16::MAX, 0]]);
        let narrow = write(8, SampleFormat::Int, 2, |file| {
            for sample in [127_i32, -128] {
                file.write_sample(sample).unwrap();
            }
        });
        assert_eq!(narrow.frames, [[0x7f00, i16::MIN]]);
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let error = Sound::file(Path::new("/no/such.wav"), None).err().unwrap();
        assert!(format!("{error:#}").starts_with("/no/such.wav can't be played: "), "{error:#}");
        let error = Sound::file(Path::new("/dev/null"), None).err().unwrap();
        assert!(
            format!("{error:#}").starts_with("/dev/null is no WAV file that can be played: "),
            "{error:#}"
        );
    }

    #[test]
    fn the_tone_lasts_as_long_as_was_asked() {
        assert_eq!(Sound::tone(Some(Duration::from_secs(2))).length(), Duration::from_secs(2));
        assert_eq!(Sound::tone(None).frames.len(), 192_000);
    }
}
