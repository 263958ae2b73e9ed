//! What was heard, against what was played. Pure.

use vsnd_bridge::sim::signal::{Frame, compare};

const SILENCE: Frame = [0, 0];

/// What became of a sound that was recorded somewhere on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Every frame, in order, and nothing else.
    Exact,
    /// As long and as loud as it was, though not the same to the bit: resampled or turned down on its way.
    Alike(String),
    /// Not whole.
    Wrong(String),
}

impl Heard {
    /// Whether all of it was heard.
    pub(super) fn is_whole(&self) -> bool {
        !matches!(self, Self::Wrong(_))
    }
}

/// Compares a recording with the sound that was played while it was made.
pub(super) fn of_playback(sound: &[Frame], recording: &[Frame]) -> Heard {
    let (played, heard) = (without_silence(sound), without_silence(recording));
    if heard.is_empty() {
        return Heard::Wrong("nothing was heard".to_owned());
    }
    if played == heard {
        return Heard::Exact;
    }
    // Where samples come through unchanged at all, most of what was heard is known to the bit, and a loss is a loss.
    let report = compare(recording, &[sound.to_vec()]).remove(0);
    let changed = report.heard * 2 < report.expected;
    // So much is lost or doubled by no resampler and no volume.
    let lengths = (played.len() as f64 - heard.len() as f64).abs() / played.len() as f64;
    if changed && lengths < 0.002 && !is_interrupted(played, heard) {
        return Heard::Alike(format!(
            "{} frames for {}, level {:+.1} dB",
            heard.len(),
            played.len(),
            level(heard) - level(played)
        ));
    }
    Heard::Wrong(if changed {
        format!("{} frames for {}, not the same sound", heard.len(), played.len())
    } else {
        report.to_string()
    })
}

/// Compares what the guest recorded with the longer sound that the microphone heard meanwhile.
pub(super) fn of_capture(microphone: &[Frame], recording: &[Frame]) -> Heard {
    let heard = without_silence(recording);
    if heard.is_empty() {
        return Heard::Wrong("nothing was recorded but silence".to_owned());
    }
    // Its beginning is found once in the signal, and the rest must follow.
    let beginning = &heard[..heard.len().min(8)];
    let at = microphone.windows(beginning.len()).position(|window| window == beginning);
    if at.and_then(|at| microphone.get(at..at + heard.len())) == Some(heard) {
        return Heard::Exact;
    }
    Heard::Wrong(compare(heard, &[microphone.to_vec()]).remove(0).to_string())
}

/// The recording from its first frame that isn't silent to its last.
pub(super) fn without_silence(frames: &[Frame]) -> &[Frame] {
    let sounds = |frame: &Frame| *frame != SILENCE;
    let Some(first) = frames.iter().position(sounds) else { return &[] };
    let last = frames.iter().rposition(sounds).unwrap_or(first);
    &frames[first..=last]
}

/// Whether `heard` is silent for longer than a wave is, where the sound that was played isn't nearly so.
fn is_interrupted(played: &[Frame], heard: &[Frame]) -> bool {
    const LONG: usize = 32;
    const QUIET: f64 = -50.0;
    let mut at = 0;
    for silence in heard.split(|frame| *frame != SILENCE) {
        let range = at * played.len() / heard.len()..(at + silence.len()) * played.len() / heard.len();
        if silence.len() >= LONG && level(&played[range]) > QUIET {
            return true;
        }
        at += silence.len() + 1;
    }
    false
}

/// The mean level in decibels of full scale; very low for silence.
pub(super) fn level(frames: &[Frame]) -> f64 {
    let samples = frames.as_flattened();
    let power: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let mean = power / (samples.len().max(1) as f64 * 32_768.0_f64.powi(2));
    10.0 * mean.max(1e-12).log10()
}

#[cfg(test)]
mod tests {
    use vsnd_bridge::sim::signal::TestSignal;

    use super::*;

    fn with_silence(frames: &[Frame]) -> Vec<Frame> {
        let mut recording = vec![SILENCE; 1000];
        recording.extend(frames);
        recording.extend([SILENCE; 500]);
        recording
    }

    fn tone() -> Vec<Frame> {
        TestSignal::new(1).frames(48_000)
    }

    #[test]
    fn a_whole_sound_is_exact_with_silence_around_and_in_it() {
        let mut sound = tone();
        sound[100..300].fill(SILENCE);
        sound.extend([SILENCE; 64]);
        assert_eq!(of_playback(&sound, &with_silence(&sound)), Heard::Exact);
    }

    #[test]
    fn a_gap_a_lost_tail_and_silence_are_wrong() {
        let sound = tone();
        let mut gap = with_silence(&sound);
        gap.drain(20_000..20_100);
        let Heard::Wrong(why) = of_playback(&sound, &gap) else { panic!("a gap of 100 frames is heard") };
        assert!(why.contains("100 frames lost"), "{why}");
        let Heard::Wrong(why) = of_playback(&sound, &with_silence(&sound[..40_000])) else { panic!() };
        assert!(why.contains("8000 frames missing at the end"), "{why}");
        assert_eq!(of_playback(&sound, &[SILENCE; 9]), Heard::Wrong("nothing was heard".into()));
    }

    #[test]
    fn a_turned_down_sound_is_alike_and_an_interrupted_one_is_not() {
        let sound = tone();
        let quiet: Vec<Frame> = sound.iter().map(|[left, right]| [left / 2, right / 2]).collect();
        let Heard::Alike(how) = of_playback(&sound, &with_silence(&quiet)) else {
            panic!("it was turned down")
        };
        assert!(how.ends_with("level -6.0 dB"), "{how}");
        let mut broken = with_silence(&quiet);
        broken[20_000..21_000].fill(SILENCE);
        assert!(!of_playback(&sound, &broken).is_whole());
        let short = with_silence(&quiet[..47_000]);
        assert!(!of_playback(&sound, &short).is_whole());
    }

    #[test]
    fn a_guest_records_an_excerpt_of_what_the_microphone_hears() {
        let microphone = tone();
        assert_eq!(of_capture(&microphone, &with_silence(&microphone[5_000..30_000])), Heard::Exact);
        let mut broken = microphone[5_000..30_000].to_vec();
        broken.drain(1_000..1_001);
        assert!(!of_capture(&microphone, &broken).is_whole());
        assert!(!of_capture(&microphone, &[SILENCE; 4_800]).is_whole());
    }
}
