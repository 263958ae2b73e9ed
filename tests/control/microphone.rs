//! The permission to record.

use std::time::{Duration, Instant};

use futures::StreamExt;
use vsnd_dbus::client::Event;
use vsnd_pw_module::Direction;
use vsnd_tests::rings::eventually;

use super::desk::{Application, CAPTURE, Desk};

/// By when an allowed microphone has to be there, and one that is not allowed any more gone.
const LIMIT: Duration = Duration::from_millis(100);

/// After so many seconds a node rests that nobody has started.
const UNSTARTED_RESTS: u64 = 3;

/// The times are the best of three, as a busy machine may take longer, but nothing in here does.
#[test]
fn an_allowed_microphone_appears_while_the_guest_records_and_a_withdrawn_one_goes() {
    for desk in Desk::both("[default]\ncapture = \"ask\"\n") {
        let mut events = desk.on_bus(desk.client().events()).unwrap();
        let pcm = desk.open(Direction::Capture);
        let mut sound = vec![0x55; 1_024 * 4];
        pcm.read(&mut sound).unwrap();
        assert!(sound.iter().all(|octet| *octet == 0), "silence");
        desk.on_bus(async {
            while let Some(event) = events.next().await {
                match event {
                    Event::CaptureRequested(id) if id == desk.id() => return,
                    _ => (),
                }
            }
            panic!("the bus ended");
        });
        // It takes what comes, or its kernel would soon end the recording.
        let _recorder = Application::start(pcm, move |pcm| pcm.read(&mut sound));
        let shown = || !desk.tool("pactl", &["list", "short", "source-outputs"]).is_empty();
        assert!(!shown());
        let domain = desk.domain_proxy();
        let (mut came, mut went) = (Duration::MAX, Duration::MAX);
        for _ in 0..3 {
            let allowed = Instant::now();
            desk.on_bus(domain.set_capture("allow")).unwrap();
            eventually("a microphone", || shown().then_some(()));
            came = came.min(allowed.elapsed());
            eventually("recording", || desk.domain().capture_active.then_some(()));
            assert_eq!(desk.stream(CAPTURE).state, "running");
            let withdrawn = Instant::now();
            desk.on_bus(domain.set_capture("deny")).unwrap();
            eventually("no microphone", || (!shown()).then_some(()));
            went = went.min(withdrawn.elapsed());
            assert!(!desk.domain().capture_active);
        }
        desk.on_bus(domain.set_capture("allow")).unwrap();
        let began = desk.stream(CAPTURE);
        eventually("recording on", || {
            (desk.stream(CAPTURE).position > began.position + UNSTARTED_RESTS * u64::from(began.rate))
                .then_some(())
        });
        assert!(desk.tool("pactl", &["list", "source-outputs"]).contains("Corked: no"), "it was started");
        println!("a microphone came in {came:?} and went in {went:?}");
        assert!(came < LIMIT && went < LIMIT, "came in {came:?}, went in {went:?}");
        let refused = desk.on_bus(domain.set_capture("perhaps")).unwrap_err();
        assert!(format!("{refused:?}").contains("InvalidArgs"), "{refused:?}");
        assert_eq!(desk.domain().capture, vsnd_dbus::Capture::Allow, "nothing is changed");
        assert_eq!(desk.guest.card.harm(), []);
    }
}
