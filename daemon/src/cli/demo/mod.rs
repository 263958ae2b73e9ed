//! `vsnd-bridge demo`: a simulated guest plays and records through the daemon's own code.

mod daemon;
mod desk;
mod guest;
mod signals;
mod sound;
mod verdict;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use vsnd_bridge::sim::signal::{Frame, TestSignal};
use vsnd_bridge::sim::{Card, Hypervisor};

use super::DemoArgs;
use daemon::Daemon;
use desk::{Desk, Listener, Speaker};
use guest::{Application, BUFFER, PERIOD, Player, Recorder};
use signals::{Ended, Signals};
use sound::Sound;
use verdict::{Heard, of_capture, of_playback};

/// The guest. Its UUID is the key under which a desktop remembers its volume.
const NAME: &str = "demo";
const UUID: &str = "d0a5ed0b-51de-4d0b-8b1d-6e0df00dcafe";
/// How long the guest goes on recording after the sound, so that nothing hangs on who is first.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// How much longer than the sound everything takes at most.
const SURROUNDINGS: Duration = Duration::from_secs(20);

/// Plays, records, and tells what was heard. A signal ends it early, and the private desktop with it.
pub(super) fn demo(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let length = args.seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let sound = match &args.play {
        Some(path) => Sound::file(path, length)?,
        None => Sound::tone(length),
    };
    let signals = Signals::listen().context("signals")?;
    let desk = Desk::choose(args.private, sound.rate)?;
    match show(&sound, &desk, &signals) {
        Ok(outcome) => {
            say(&outcome.text(&sound));
            Ok(if outcome.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => error.downcast::<Ended>().map(|ended| ended.status()),
    }
}

/// What came of it.
struct Outcome {
    /// What was heard; `None` where nobody could listen.
    heard: Option<Heard>,
    /// Cycles of the graph that the listener itself missed.
    missed: usize,
    recorded: Recorded,
    /// Ring ran empty, ring ran over.
    xruns: [u64; 2],
    /// How far the position was ahead of the clock at most and at least, in milliseconds.
    position: [f64; 2],
    /// What the daemon did that would harm a guest's kernel.
    harm: usize,
}

enum Recorded {
    /// In a private desktop: against what the microphone heard.
    Compared(Heard, usize),
    /// From the user's own microphone, whatever it hears.
    Frames(Vec<Frame>),
}

fn show(sound: &Sound, desk: &Desk, signals: &Signals) -> anyhow::Result<Outcome> {
    signals.go_on()?;
    let hypervisor = Hypervisor::new();
    let daemon = Daemon::start(&hypervisor, desk)?;
    say(&format!(
        "playing    {} ({} Hz, 16 bits, stereo) in the simulated guest \"{NAME}\"\n\
         desktop    {}: {}\n",
        sound.name,
        sound.rate,
        desk.describe(),
        daemon.server()?,
    ));
    let said = sound.frames.len() as u64 + SURROUNDINGS.as_secs() * u64::from(sound.rate);
    let microphone = TestSignal::new(2).frames(said);
    let _speaker = match desk {
        Desk::Private(_) => Some(Speaker::say(desk, sound.rate, &microphone)?),
        Desk::Own => None,
    };
    let longest = sound.length() + SURROUNDINGS;
    let ear = match desk {
        Desk::Private(_) => Some(Listener::on_sink(desk, sound.rate, longest)?),
        Desk::Own => None,
    };

    let guest = Application::boot(&hypervisor, &card(sound.rate)?, NAME, UUID)?;
    let playback = guest.playback(sound.rate)?;
    let capture = guest.capture(sound.rate)?;
    let node = format!("vsnd.{NAME}.0.0.0");
    let ear = match ear {
        Some(ear) => Some(ear),
        // The user's own sinks may play other sounds too, so the node itself is listened to.
        None => Listener::on_node(desk, sound.rate, longest, &node)
            .map_err(|why| say(&format!("           nobody can listen: {why:#}\n")))
            .ok(),
    };
    let recorder = Recorder::start(capture)?;
    // Silence first: until the desktop has linked the node to all that listen, a sound is heard by half of them.
    let mut frames = vec![[0, 0]; sound.rate as usize / 2];
    frames.extend(&sound.frames);
    let player = Player::start(playback, frames)?;
    let position = watch(&player, &recorder, &daemon, sound, signals)?;
    let played = player.finish()?;
    std::thread::sleep(AFTERWARDS);
    let recording = recorder.finish()?;
    let heard = ear.map(Listener::finish);
    let missed = heard.as_ref().map_or(0, |heard| heard.missed);
    let heard = heard.map(|heard| of_playback(&sound.frames, &heard.frames));
    let recorded = match desk {
        Desk::Private(_) => {
            Recorded::Compared(of_capture(&microphone, &recording.frames), recording.frames.len())
        }
        Desk::Own => Recorded::Frames(recording.frames),
    };
    let harm = guest.harm();
    daemon.stop()?;
    Ok(Outcome { heard, missed, recorded, xruns: [played.xruns, recording.xruns], position, harm })
}

fn card(rate: u32) -> anyhow::Result<Card> {
    let settings = format!(
        "CARD, short-name=Demo, sample-rates={rate}, sample-formats=s16_le, channels-max=2, buffer-size={}",
        BUFFER * 4
    );
    let items = ["PCM, name=Main", "STREAM, unique-id=out, type=p", "STREAM, unique-id=in, type=c"];
    let card: Vec<&str> = std::iter::once(settings.as_str()).chain(items).collect();
    Card::parse(&card).context("the demo's own card")
}

/// Shows how far it is until the sound is played. Returns how far the position was from the clock, in milliseconds.
fn watch(
    player: &Player,
    recorder: &Recorder,
    daemon: &Daemon,
    sound: &Sound,
    signals: &Signals,
) -> anyhow::Result<[f64; 2]> {
    let live = stdout().is_terminal();
    let every = Duration::from_millis(if live { 100 } else { 1000 });
    let (mut first, mut range, mut shown) = (None, [f64::MAX, f64::MIN], Instant::now());
    let total = sound.length().as_secs_f64() + 0.5;
    while !player.is_done() && signals.go_on().is_ok() {
        std::thread::sleep(Duration::from_millis(10));
        for node in daemon.new_nodes() {
            say(&format!("{}node       {node}\n", if live { "\r\x1b[K" } else { "" }));
        }
        let (position, now) = (player.position(), Instant::now());
        if position == 0 {
            continue;
        }
        let seconds = position as f64 / f64::from(sound.rate);
        let &mut (began, at) = first.get_or_insert((now, seconds));
        let ahead = (seconds - at - now.duration_since(began).as_secs_f64()) * 1000.0;
        range = [range[0].min(ahead), range[1].max(ahead)];
        if now.duration_since(shown) >= every {
            shown = now;
            let line = format!(
                "           {:6.2} s of {total:.2} s  position {position:>8}, {ahead:+5.1} ms off the clock  recorded {:>8}  xruns {}",
                seconds.min(total),
                recorder.frames(),
                player.xruns() + recorder.xruns(),
            );
            say(&if live { format!("\r{line}\x1b[K") } else { format!("{line}\n") });
        }
    }
    if live {
        say("\r\x1b[K");
    }
    signals.go_on()?;
    Ok(if range[0] > range[1] { [0.0, 0.0] } else { range })
}

/// Prints. A reader that has seen enough is no failure.
fn say(text: &str) {
    let mut out = stdout();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

impl Outcome {
    fn is_whole(&self) -> bool {
        let recorded = match &self.recorded {
            Recorded::Compared(heard, _) => heard.is_whole(),
            Recorded::Frames(frames) => !frames.is_empty(),
        };
        self.heard.as_ref().is_none_or(Heard::is_whole) && recorded && self.xruns == [0, 0] && self.harm == 0
    }

    fn text(&self, sound: &Sound) -> String {
        let mut text = String::new();
        let frames = sound.frames.len();
        let heard = match &self.heard {
            Some(Heard::Exact) => format!("all {frames} frames, to the bit"),
            Some(Heard::Alike(how)) => format!("all of it, resampled or turned down on this desktop: {how}"),
            Some(Heard::Wrong(why)) => format!("NOT whole: {why}"),
            None => "not compared; the guest was told that all of it was played".to_owned(),
        };
        let recorded = match &self.recorded {
            Recorded::Compared(Heard::Wrong(why), _) => format!("NOT whole: {why}"),
            Recorded::Compared(_, count) => {
                format!("{count} frames of what the microphone heard, to the bit")
            }
            Recorded::Frames(frames) if verdict::without_silence(frames).is_empty() => {
                format!("{} frames of silence: no microphone, or a silent one", frames.len())
            }
            Recorded::Frames(frames) => {
                format!("{} frames from your microphone at {:.0} dB", frames.len(), verdict::level(frames))
            }
        };
        let [least, most] = self.position;
        let [empty, over] = self.xruns;
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "heard      {heard}\n\
             recorded   {recorded}\n\
             position   between {least:+.1} and {most:+.1} ms off the clock, told every {:.0} ms or sooner\n\
             xruns      {empty} playing, {over} recording\n",
            PERIOD as f64 * 1000.0 / f64::from(sound.rate)
        );
        if self.missed > 0 {
            let _ = writeln!(
                text,
                "listener   missed {} cycles itself: this machine is too busy to tell what was heard then",
                self.missed
            );
        }
        if self.harm > 0 {
            let _ = writeln!(
                text,
                "harm       {} things that would upset a guest's kernel; please report them",
                self.harm
            );
        }
        text.push_str(if self.is_whole() {
            "verdict    everything was heard\n"
        } else {
            "verdict    FAILED: not everything was heard as it was played\n           \
             (a machine under load misses cycles: try again when it is idle; VSND_LOG=info tells more)\n"
        });
        text
    }
}
