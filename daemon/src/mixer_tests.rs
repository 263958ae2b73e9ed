//! What volumes come to, and what is remembered.

use proptest::prelude::*;

use super::*;
use crate::xen::DomId;

fn volume(volume: f64) -> CubicVolume {
    CubicVolume::try_from(volume).unwrap()
}

fn domain(volume: f64, muted: bool) -> DomainVolume {
    DomainVolume { volume: CubicVolume::try_from(volume).unwrap(), muted }
}

fn guest(volumes: &[i32]) -> Vec<GuestChannel> {
    volumes.iter().map(|value| GuestChannel { volume: Millibels::nearest(*value), muted: false }).collect()
}

fn node(channels: &[f32]) -> UserVolume {
    UserVolume { channels: channels.to_vec(), muted: true }
}

#[test]
fn volumes_multiply_and_either_mute_silences() {
    assert_eq!(factors(DomainVolume::FULL, &guest(&[0, 0])), [1.0, 1.0], "exactly");
    assert_eq!(factors(domain(0.5, false), &guest(&[0])), [0.125]);
    let both = factors(domain(0.5, false), &guest(&[-20_000, 0]));
    assert!((both[0] - 0.0125).abs() < 1e-7 && both[1] == 0.125, "{both:?}");
    assert_eq!(factors(domain(1.5, true), &guest(&[0])), [0.0]);
    let one = [GuestChannel { muted: true, ..GuestChannel::default() }, GuestChannel::default()];
    assert_eq!(factors(domain(1.5, false), &one), [0.0, 3.375]);
    assert_eq!(factors(DomainVolume::FULL, &guest(&[i32::MIN, -200_000])), [0.0, 0.0]);
}

#[test]
fn a_guest_can_not_undo_what_the_host_turned_down() {
    assert_eq!(factors(domain(0.5, false), &guest(&[60_000])), [0.125]);
    assert_eq!(Millibels::nearest(i32::MAX), Millibels::FULL);
}

#[test]
fn a_guest_reads_the_product_of_all_three_and_no_mute() {
    assert_eq!(
        effective(DomainVolume::FULL, &guest(&[-6_000, -1]), None),
        [-6_000, -1],
        "what it set, exactly"
    );
    assert_eq!(effective(domain(0.5, true), &guest(&[-6_000]), None), [-24_062]);
    let all = effective(domain(0.5, false), &guest(&[-6_000, 0]), Some(&node(&[0.125, 1.0])));
    assert_eq!(all, [-42_124, -18_062]);
    assert_eq!(effective(domain(1.5, false), &guest(&[0]), None), [10_565]);
    let silent = Millibels::SILENCE.get();
    assert_eq!(effective(DomainVolume::FULL, &guest(&[0, 0]), Some(&node(&[0.0, 1e-30]))), [silent, silent]);
    assert_eq!(effective(domain(1.5, false), &guest(&[i32::MIN]), None), [silent]);
}

#[test]
fn a_domains_volume_is_that_of_its_loudspeakers() {
    let quiet = domain(0.1, true);
    assert_eq!(quiet.of(Direction::Playback), quiet);
    assert_eq!(quiet.of(Direction::Capture), DomainVolume::FULL);
}

const ONE: &str = "ab8a8e6e-3d4c-4d6f-9f6e-2f9c8b1d7a55";
const OTHER: &str = "00000000-0000-0000-0000-000000000001";

fn identity(name: Option<&str>, uuid: Option<&str>) -> Option<Identity> {
    Identity::of(&Domain { id: DomId(7), name: name.map(str::to_owned), uuid: uuid.map(str::to_owned) })
}

fn remembering(name: &str, uuid: Option<&str>) -> Memory {
    let mut memory = Memory::default();
    let identity = identity(Some(name), uuid).unwrap();
    memory.remember(&identity, Change::Volume(volume(0.5)));
    memory.remember(&identity, Change::Capture(Capture::Allow));
    memory
}

#[test]
fn what_the_user_changed_overrides_the_policy_and_the_rest_follows_it() {
    let memory = remembering("work", Some(ONE));
    let known = memory.settings(identity(Some("work"), Some(ONE)).as_ref(), Capture::Deny);
    assert_eq!(known, Settings { volume: domain(0.5, false), capture: Capture::Allow });
    let stranger = memory.settings(identity(Some("play"), Some(OTHER)).as_ref(), Capture::Deny);
    assert_eq!(stranger, Settings { volume: DomainVolume::FULL, capture: Capture::Deny });
    let mut memory = Memory::default();
    memory.remember(&identity(Some("work"), None).unwrap(), Change::Muted(true));
    assert_eq!(memory.settings(identity(Some("work"), None).as_ref(), Capture::Ask).capture, Capture::Ask);
}

#[test]
fn a_domain_is_known_by_its_uuid_and_else_by_its_name() {
    let memory = remembering("work", Some(ONE));
    let capture = |name, uuid| memory.settings(identity(name, uuid).as_ref(), Capture::Ask).capture;
    let shouted = ONE.to_uppercase();
    assert_eq!(capture(Some("renamed"), Some(&shouted)), Capture::Allow);
    assert_eq!(capture(Some("work"), Some(OTHER)), Capture::Allow, "created anew");
    assert_eq!(capture(Some("work"), None), Capture::Allow);
    assert_eq!(capture(Some("Work"), Some(OTHER)), Capture::Ask);
    assert_eq!(capture(None, None), Capture::Ask);
}

#[test]
fn a_domain_that_was_created_anew_takes_its_entry_along() {
    let mut memory = remembering("work", Some(ONE));
    memory.remember(&identity(Some("work"), Some(OTHER)).unwrap(), Change::Muted(true));
    assert_eq!(memory.domain.len(), 1);
    let settings = memory.settings(identity(Some("renamed"), Some(OTHER)).as_ref(), Capture::Ask);
    assert_eq!(settings, Settings { volume: domain(0.5, true), capture: Capture::Allow });
}

#[test]
fn nobody_shares_what_is_remembered_of_domains_without_uuid_or_name() {
    assert_eq!(identity(None, None), None);
    assert_eq!(identity(Some("\u{202e}"), Some("00000000-0000-0000-0000-000000000000")), None);
    let mut memory = Memory::default();
    memory.remember(&identity(None, Some(ONE)).unwrap(), Change::Capture(Capture::Allow));
    assert_eq!(memory.settings(identity(None, Some(OTHER)).as_ref(), Capture::Ask).capture, Capture::Ask);
    assert_eq!(memory.settings(identity(Some("a"), None).as_ref(), Capture::Ask).capture, Capture::Ask);
}

proptest! {
    #[test]
    fn whatever_a_guest_says_it_is_never_louder_than_its_host_allows(values: Vec<i32>, loud in 0f64..=1.5) {
        let limit = factors(domain(loud, false), &guest(&[0]))[0];
        prop_assert!(factors(domain(loud, false), &guest(&values)).iter().all(|factor| (0.0..=limit).contains(factor)));
    }
}
