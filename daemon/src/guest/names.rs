//! Names that the desktop sees, made of what the host knows of a domain and of texts that a guest may have written.
//!
//! A guest's texts are cleaned (no control, formatting or line-breaking characters, at most 64 characters) and never
//! stand alone: the domain's name, which only the host sets, goes before them, so that no guest can pose as another.
//! They never reach a name by which anything is found (node names, keys): those are made of the domain and numbers.

use vsnd_dbus::{DomainId, StreamId};
use vsnd_pw_module::{Client, Direction};

use crate::xen::DomId;

/// The longest text that is shown or used as a part of a name, in characters.
const LONGEST: usize = 64;

/// Who a domain is, as the host knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its present number.
    pub id: DomId,
    /// Its name, which the toolstack gave it.
    pub name: Option<String>,
    /// Its UUID, which stays the same over restarts.
    pub uuid: Option<String>,
}

/// Where a stream is: its card, its PCM on the card, and its own number on the PCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The card's device number, which the toolstack gave it.
    pub card: u32,
    /// The PCM's index on the card.
    pub pcm: u32,
    /// The stream's index on the PCM.
    pub stream: u32,
}

impl From<DomId> for DomainId {
    fn from(DomId(id): DomId) -> Self {
        Self(id.into())
    }
}

impl From<StreamId> for Place {
    fn from(StreamId { card, pcm, stream }: StreamId) -> Self {
        Self { card, pcm, stream }
    }
}

impl From<Place> for StreamId {
    fn from(Place { card, pcm, stream }: Place) -> Self {
        Self { card, pcm, stream }
    }
}

/// The texts of a [`NodeSpec`](vsnd_pw_module::NodeSpec).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNames {
    /// `vsnd.<domain>.<card>.<pcm>.<stream>` of `[A-Za-z0-9._-]` only.
    pub name: String,
    /// `<domain>: <PCM>`.
    pub description: String,
    /// The PCM's name, or what it is.
    pub media_name: String,
    /// Unique per stream, stable over restarts.
    pub restore_key: String,
}

impl Domain {
    /// The name that people see.
    pub fn shown(&self) -> String {
        self.clean_name().unwrap_or_else(|| format!("domain {}", self.id))
    }

    /// The application that the domain's nodes belong to.
    pub fn client(&self) -> Client {
        Client { name: self.shown(), id: self.key(), domid: self.id.0 }
    }

    /// The texts of one stream's node; `pcm_name` is the guest's own.
    pub fn node(&self, place: Place, direction: Direction, pcm_name: Option<&str>) -> NodeNames {
        let media_name = media_name(direction, place, pcm_name);
        let Place { card, pcm, stream } = place;
        NodeNames {
            name: format!("vsnd.{}.{card}.{pcm}.{stream}", token(&self.shown())),
            description: format!("{}: {media_name}", self.shown()),
            restore_key: format!("{}.{card}.{pcm}.{stream}", self.key()),
            media_name,
        }
    }

    /// The UUID as a number; 0 for none.
    pub fn uuid_number(&self) -> u128 {
        let digits = self.uuid.as_deref().and_then(uuid).map(|uuid| uuid.replace('-', ""));
        digits.and_then(|digits| u128::from_str_radix(&digits, 16).ok()).unwrap_or(0)
    }

    /// The key of everything that is remembered of the domain: its UUID, its name where it has none. Never the domid, which
    /// the next domain gets.
    pub fn key(&self) -> String {
        match (self.clean_uuid(), self.clean_name()) {
            (Some(uuid), _) => format!("vsnd.{uuid}"),
            (None, Some(name)) => format!("vsnd.name.{}", token(&name)),
            (None, None) => "vsnd.unnamed".to_owned(),
        }
    }

    /// The UUID in lower case; `None` where there is none, and for that of nobody.
    pub fn clean_uuid(&self) -> Option<String> {
        self.uuid.as_deref().and_then(uuid)
    }

    /// The name as it may be shown; `None` where nothing is left of it.
    pub fn clean_name(&self) -> Option<String> {
        self.name.as_deref().map(clean).filter(|name| !name.is_empty())
    }
}

/// What a PCM is called in a mixer, beside the domain's name.
fn media_name(direction: Direction, place: Place, pcm_name: Option<&str>) -> String {
    if let Some(name) = pcm_name.map(clean).filter(|name| !name.is_empty() && !is_hidden(name)) {
        return name;
    }
    let what = match direction {
        Direction::Playback => "Speakers",
        Direction::Capture => "Headset microphone",
    };
    if place.pcm == 0 { what.to_owned() } else { format!("{what} {}", u64::from(place.pcm) + 1) }
}

/// Whether KDE's mixer would leave the name out, which it does with names that it takes for technical ones.
fn is_hidden(name: &str) -> bool {
    let name = name.to_lowercase();
    ["playback", "audio", "stream", "alsa", "pulse", "pipewire"].iter().any(|word| name.contains(word))
}

/// A text as it may be shown: one line, nothing that hides, reorders or controls, at most 64 characters.
pub fn clean(text: &str) -> String {
    // Spaces at either end would make a name look like another's.
    let visible: String = text.chars().filter(|&c| is_shown(c)).take(LONGEST).collect();
    visible.trim().to_owned()
}

/// Whether a character takes a visible place in a line of text.
fn is_shown(c: char) -> bool {
    let hides = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        // tags and variation selectors, then what is private or no character at all
        | '\u{e0000}'..='\u{e0fff}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}');
    !c.is_control() && !hides
}

/// A text as a part of a name by which things are found.
fn token(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.chars().take(LONGEST).map(|c| if allowed(c) { c } else { '_' }).collect()
}

/// A UUID in lower case; `None` for anything else, and for the UUID of nobody.
fn uuid(text: &str) -> Option<String> {
    let groups = [8, 4, 4, 4, 12];
    let text = text.trim().to_ascii_lowercase();
    let parts: Vec<&str> = text.split('-').collect();
    let well_formed = parts.len() == groups.len()
        && parts.iter().zip(groups).all(|(part, length)| {
            part.len() == length && part.bytes().all(|octet| octet.is_ascii_hexdigit())
        });
    (well_formed && text.bytes().any(|octet| octet.is_ascii_hexdigit() && octet != b'0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "AB8A8E6E-3d4c-4d6f-9f6e-2f9c8b1d7a55";

    fn domain(name: &str) -> Domain {
        Domain { id: DomId(7), name: Some(name.into()), uuid: Some(UUID.into()) }
    }

    fn place(pcm: u32) -> Place {
        Place { card: 0, pcm, stream: 1 }
    }

    #[test]
    fn a_usual_guest_is_shown_under_its_own_name() {
        let work = domain("work");
        let client = work.client();
        assert_eq!((client.name.as_str(), client.domid), ("work", 7));
        assert_eq!(client.id, "vsnd.ab8a8e6e-3d4c-4d6f-9f6e-2f9c8b1d7a55");
        let names = work.node(place(0), Direction::Playback, Some("Main"));
        assert_eq!(names.name, "vsnd.work.0.0.1");
        assert_eq!(names.description, "work: Main");
        assert_eq!(names.media_name, "Main");
        assert_eq!(names.restore_key, "vsnd.ab8a8e6e-3d4c-4d6f-9f6e-2f9c8b1d7a55.0.0.1");
        assert_eq!(work.uuid_number(), 0xab8a_8e6e_3d4c_4d6f_9f6e_2f9c_8b1d_7a55);
    }

    #[test]
    fn names_that_mixers_hide_give_way_to_what_the_pcm_is() {
        let work = domain("work");
        let media = |direction, pcm, name| work.node(place(pcm), direction, name).media_name;
        assert_eq!(media(Direction::Playback, 0, None), "Speakers");
        assert_eq!(media(Direction::Capture, 0, Some("")), "Headset microphone");
        assert_eq!(media(Direction::Playback, 0, Some("Virtual AUDIO")), "Speakers");
        assert_eq!(media(Direction::Playback, 2, Some("xen pcm stream")), "Speakers 3");
        assert_eq!(media(Direction::Playback, u32::MAX, None), "Speakers 4294967296");
    }

    #[test]
    fn keys_never_hold_the_domid() {
        let mut nobody = domain("work");
        nobody.uuid = None;
        assert_eq!(nobody.client().id, "vsnd.name.work");
        nobody.uuid = Some("00000000-0000-0000-0000-000000000000".into());
        assert_eq!(nobody.client().id, "vsnd.name.work");
        nobody.uuid = Some("../../etc".into());
        nobody.name = Some("\u{202e}\n".into());
        assert_eq!(nobody.client().id, "vsnd.unnamed");
        assert_eq!(nobody.client().name, "domain 7");
        assert_eq!(nobody.node(place(0), Direction::Playback, None).name, "vsnd.domain_7.0.0.1");
    }

    #[test]
    fn escapes_and_overrides_are_taken_out() {
        assert_eq!(clean("\x1b]0;owned\x07\x1b[31mred\r\n"), "]0;owned[31mred");
        assert_eq!(clean("\u{202e}gpj.exe\u{2066}\u{200f}"), "gpj.exe");
        assert_eq!(clean(" \u{feff}Firefox\u{200b} \u{85}"), "Firefox");
        assert_eq!(clean("a\u{2028}b\u{e0041}\0"), "ab");
        assert_eq!(clean("Lautsprecher – Küche 音"), "Lautsprecher – Küche 音");
    }

    #[test]
    fn a_page_of_text_is_cut() {
        assert_eq!(clean(&"x".repeat(4096)).len(), 64);
        let long = domain(&"ü ".repeat(2048)).node(place(0), Direction::Capture, Some(&"é".repeat(4096)));
        assert!(long.name.len() < 128 && long.media_name.chars().count() == 64, "{long:?}");
    }

    #[test]
    fn a_guest_can_not_pose_as_another() {
        let names = domain("evil").node(place(0), Direction::Playback, Some("work: Main"));
        assert_eq!(names.description, "evil: work: Main");
        assert_eq!(names.name, "vsnd.evil.0.0.1");
    }

    proptest! {
        #[test]
        fn whatever_a_guest_writes_names_stay_clean(name in any::<String>(), pcm_name in any::<String>()) {
            let names = domain(&name).node(place(0), Direction::Capture, Some(&pcm_name));
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            prop_assert!(names.name.chars().all(plain) && names.restore_key.chars().all(plain));
            prop_assert!(names.description.chars().all(is_shown));
            prop_assert!(!names.media_name.is_empty() && !is_hidden(&names.media_name));
            prop_assert_eq!(clean(&names.media_name), names.media_name);
        }
    }
}
