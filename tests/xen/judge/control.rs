//! What the user's controls did: the volumes at which a signal was heard, and the permission to record.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use vsnd_bridge::sim::signal::{Frame, compare};

use super::{Case, verdict};
use crate::signals::{self, RATE};

/// Frames of a signal that tell at which level it is.
const WINDOW: usize = 8;
/// The longest way from one level to another, as the bridge promises it: 10 ms.
const SLOPE: usize = 480;
/// The least for which a level must have lasted to be one.
const STRETCH: usize = RATE as usize;

/// How loud a signal is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Full,
    /// What a volume of 50% leaves of the amplitude, because volumes are cubic.
    Eighth,
    Silent,
}

impl Level {
    const ALL: [Self; 3] = [Self::Full, Self::Eighth, Self::Silent];

    /// The frame at this level: exact in the first and the last, rounded in the other.
    fn of(self, frame: Frame) -> Frame {
        frame.map(|sample| match self {
            Self::Full => sample,
            Self::Eighth => (f64::from(sample) / 8.0).round() as i16,
            Self::Silent => 0,
        })
    }
}

/// Frames on end at a level; with none, they are on the way from one to the next, or damage.
type Stretch = (Option<Level>, usize);

/// At which levels the signal is heard, each of its frames in its place.
fn stretches(recording: &[Frame], signal: &[Frame]) -> Result<Vec<Stretch>> {
    let audible = [Level::Full, Level::Eighth]
        .map(|level| signal.iter().map(|frame| level.of(*frame)).collect::<Vec<Frame>>());
    let begin = compare(recording, &audible)
        .iter()
        .filter_map(|report| report.begins_at?.checked_sub(report.head_cut))
        .min()
        .context("not heard")?;
    let heard = recording.get(begin as usize..).unwrap_or_default();
    ensure!(heard.len() >= signal.len(), "cut off");
    let pairs: Vec<(Frame, Frame)> = heard.iter().copied().zip(signal.iter().copied()).collect();
    let (mut stretches, mut at): (Vec<Stretch>, usize) = (Vec::new(), 0);
    while let rest @ [_, ..] = &pairs[at..] {
        let fits = |level: Level| move |(heard, played): &&(Frame, Frame)| *heard == level.of(*played);
        let level =
            Level::ALL.into_iter().find(|level| rest.iter().take(WINDOW).all(|pair| fits(*level)(&pair)));
        let frames = level.map_or(1, |level| rest.iter().take_while(fits(level)).count());
        match stretches.last_mut() {
            Some((last, length)) if *last == level => *length += frames,
            _ => stretches.push((level, frames)),
        }
        at += frames;
    }
    Ok(stretches)
}

/// Whether these are the levels, in this order, with one slope from each to the next.
fn are_levels(stretches: &[Stretch], expected: &[Level]) -> bool {
    let lasting = stretches.iter().all(|(level, frames)| match level {
        Some(_) => *frames >= STRETCH,
        None => *frames < SLOPE,
    });
    let mut order: Vec<Option<Level>> = expected.iter().flat_map(|level| [Some(*level), None]).collect();
    order.pop();
    lasting && stretches.iter().map(|(level, _)| *level).eq(order)
}

/// What `vsndctl list --json` told.
#[derive(Deserialize)]
struct Listed {
    domains: Vec<Domain>,
}

/// What it told of a domain.
#[derive(Deserialize, Debug, PartialEq)]
struct Domain {
    id: u16,
    name: String,
    uuid: String,
    volume: f64,
    muted: bool,
    capture: String,
    capture_active: bool,
}

/// The domain whose name begins so, as it was told at a time.
fn listed(case: &Case, name: &str, when: &str) -> Result<Domain> {
    let listed: Listed = serde_json::from_str(&case.text(&format!("listed-{when}"))?)?;
    let mut found = listed.domains.into_iter().filter(|domain| domain.name.starts_with(name));
    found.next().with_context(|| format!("no {name} {when}"))
}

/// The volume is exact at each level and nothing is lost between them. A reboot of the guest keeps volume and mute, and a new bridge, too,
/// from the first frame that is played then.
pub fn volume(case: &Case) -> Result<String> {
    use Level::{Eighth, Full, Silent};
    let recording = case.recording("speakers")?;
    let plays: [(&str, &[Level]); 3] = [
        ("long", &[Full, Eighth, Silent, Eighth, Full]),
        ("play-1", &[Silent, Eighth]),
        ("play-2", &[Silent, Eighth]),
    ];
    let mut figures = Vec::new();
    for (name, expected) in plays {
        let stretches = stretches(&recording, &signals::of_guest(name)).with_context(|| name.to_owned())?;
        let underruns = case.underruns(&format!("aplay-{name}.log"))?;
        let good = are_levels(&stretches, expected) && underruns == 0;
        let shown: Vec<String> = stretches
            .iter()
            .map(|(level, frames)| match level {
                Some(level) => format!("{level:?} for {frames}"),
                None => format!("{frames} between"),
            })
            .collect();
        figures.push((vec![format!("{name}: {}, {underruns} underruns", shown.join(", "))], good));
    }
    for (what, same_domain) in [("reboot", false), ("restart", true)] {
        let before = listed(case, "lab-volume-", &format!("before-{what}"))?;
        let after = listed(case, "lab-volume-", &format!("after-{what}"))?;
        let set = before.volume == 0.5 && before.muted;
        let kept = (&before.uuid, before.volume, before.muted) == (&after.uuid, after.volume, after.muted);
        let line = format!(
            "{what}: domain {} became {}, volume {} became {}, muted {} became {}",
            before.id, after.id, before.volume, after.volume, before.muted, after.muted
        );
        figures.push((vec![line], set && kept && (before.id == after.id) == same_domain));
    }
    verdict(case, figures)
}

/// Silence and no node while the guest is asked for; the microphone while it is allowed; silence and no node once it is denied. The user
/// was asked once: who is denied asks nobody.
pub fn capture(case: &Case) -> Result<String> {
    let mut figures = Vec::new();
    for (when, capture, shown) in [("asked", "ask", 0), ("allowed", "allow", 1), ("denied", "deny", 0)] {
        let domain = listed(case, "lab-asking-", when)?;
        let count = |what: &str| case.text(&format!("{what}-{when}")).map(|text| text.lines().count());
        let (nodes, outputs) = (count("nodes")?, count("source-outputs")?);
        let line = format!(
            "{when}: capture {}, active {}, {nodes} nodes, {outputs} source outputs",
            domain.capture, domain.capture_active
        );
        let told = domain.capture == capture && domain.capture_active == (shown == 1);
        figures.push((vec![line], told && [nodes, outputs] == [shown; 2]));
    }
    let recording = case.recording("asked")?;
    let report = compare(&recording, &[signals::microphone().all()]).remove(0);
    let begins = report.begins_at.unwrap_or(0);
    let after = (recording.len() as u64).saturating_sub(begins + report.heard);
    let whole = recording.len() as u64 == 14 * RATE && report.is_unbroken();
    let long = [begins, report.heard, after].iter().all(|frames| *frames >= RATE / 2);
    let overruns = case.underruns("arecord-asked.log")?;
    figures.push((
        vec![format!(
            "asked: {} frames recorded, {begins} of silence, {} of the signal, {after} of silence, {} gaps, {} corrupt, {overruns} overruns",
            recording.len(),
            report.heard,
            report.gaps,
            report.corrupt
        )],
        whole && long && overruns == 0,
    ));
    let denied = case.recording("denied")?;
    let silent = denied.iter().all(|frame| *frame == [0, 0]);
    figures.push((
        vec![format!("denied: {} frames, all silent: {silent}", denied.len())],
        silent && denied.len() as u64 == RATE,
    ));
    let mut requests = Vec::new();
    for line in case.text("events")?.lines() {
        let event: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if event["event"] == "capture-requested" {
            requests.push(event["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    let once = matches!(requests.as_slice(), [name] if name.starts_with("lab-asking-"));
    figures.push((vec![format!("who asked for the microphone: {requests:?}")], once));
    verdict(case, figures)
}
