//! What is published, what is told of changes, and what others can ask for.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use futures::{FutureExt, Stream, StreamExt};
use vsnd_dbus::client::{Client, ClientError, Event};
use vsnd_dbus::{Capture, Command, CubicVolume, DomainId, Object, Run};
use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::{OwnedVariant, Variant};

use crate::fake::{self, CAPTURE, NO_SUCH_SINK, PLAYBACK, WORK, domain};
use crate::peer::{Pair, next};

/// The names and values of the next change, which must be of `object`.
async fn changed(
    events: &mut (impl Stream<Item = Event> + Unpin),
    object: Object,
) -> HashMap<String, OwnedVariant> {
    match next(events).await {
        Event::Changed { object: of, properties } if of == object => properties,
        other => panic!("{other:?}"),
    }
}

fn names(properties: &HashMap<String, OwnedVariant>) -> Vec<&str> {
    let mut names: Vec<_> = properties.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Sets a property past the typed proxies. Returns the error's name.
async fn set(pair: &Pair, object: Object, property: &str, value: Variant<'_>) -> Result<(), String> {
    let proxy = PropertiesProxy::builder(&pair.connection)
        .destination("org.vsnd.Bridge1")
        .path(object.path())
        .build()
        .await
        .unwrap();
    let interface = InterfaceName::try_from(object.interface()).unwrap();
    match proxy.set(interface, property, &value).await {
        Ok(()) => Ok(()),
        Err(error) => Err(zbus::DBusError::name(&error).to_string()),
    }
}

fn error(name: &str) -> Result<(), String> {
    Err(format!("org.freedesktop.DBus.Error.{name}"))
}

#[tokio::test]
async fn everything_that_is_published_is_read_at_once() {
    let pair = Pair::new().await;
    let bridge = pair.client.snapshot().await.unwrap();
    assert_eq!(bridge.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(bridge.server, "PipeWire 1.4.2");
    assert_eq!(
        (&bridge.sinks[..], &bridge.sources[..]),
        (&["hdmi".to_owned(), "usb".to_owned()][..], &["webcam".to_owned()][..])
    );
    let [work] = &bridge.domains[..] else { panic!("{bridge:?}") };
    assert_eq!((work.id, work.name.as_str()), (WORK, "work"));
    assert_eq!(work.uuid, "ab8a8e6e-3d4c-4d6f-9f6e-2f9c8b1d7a55");
    assert_eq!((work.volume, work.muted), (1.0, false));
    assert_eq!((work.capture, work.capture_active), (Capture::Ask, false));
    let [playback, capture] = &work.streams[..] else { panic!("{work:?}") };
    assert_eq!((playback.id, playback.state.as_str()), (PLAYBACK, "running"));
    assert_eq!((playback.format.as_str(), playback.rate, playback.channels), ("s16_le", 48_000, 2));
    assert_eq!((playback.period_frames, playback.buffer_frames), (1024, 4096));
    assert_eq!((playback.node_name.as_str(), playback.node_id), ("vsnd.work.0.0.0", 47));
    assert_eq!((playback.position, playback.position_error_usec), (48_000, -40));
    assert_eq!((playback.latency_usec, &playback.levels[..]), (21_333, &[0.5, 0.25][..]));
    assert_eq!((capture.id, capture.state.as_str(), capture.rate), (CAPTURE, "closed", 0));
    assert_eq!((capture.node_id, capture.target.as_str()), (u32::MAX, ""));
}

#[tokio::test]
async fn one_update_is_told_at_once_and_only_what_changed() {
    let pair = Pair::new().await;
    let mut events = pair.client.events().await.unwrap();
    pair.fake.update_work(|work| {
        work.muted = true;
        work.volume = CubicVolume::new(0.5).unwrap();
        work.capture = Capture::Ask;
    });
    let told = changed(&mut events, Object::Domain(WORK)).await;
    assert_eq!(names(&told), ["Muted", "Volume"]);
    assert_eq!(told["Volume"], Variant::from(0.5).try_into_owned().unwrap());
    pair.fake.update_work(|work| {
        let stream = work.streams.get_mut(&PLAYBACK).unwrap();
        stream.open.as_mut().unwrap().run = Run::Paused;
        stream.node_id = None;
    });
    let told = changed(&mut events, Object::Stream(WORK, PLAYBACK)).await;
    assert_eq!(names(&told), ["NodeId", "State"]);
    pair.fake.service.update(|state| state.server = "null".to_owned());
    assert_eq!(names(&changed(&mut events, Object::Bridge).await), ["Server"]);
}

#[tokio::test]
async fn sinks_and_sources_that_come_and_go_are_told() {
    let pair = Pair::new().await;
    let mut events = pair.client.events().await.unwrap();
    pair.fake.service.update(|state| state.sinks = fake::names(["usb"]));
    let told = changed(&mut events, Object::Bridge).await;
    assert_eq!(names(&told), ["Sinks"]);
    assert_eq!(Vec::<String>::try_from(told["Sinks"].clone()).unwrap(), ["usb"]);
    pair.fake.service.update(|state| state.sources = fake::names([]));
    assert_eq!(names(&changed(&mut events, Object::Bridge).await), ["Sources"]);
    assert_eq!(set(&pair, Object::Bridge, "Sinks", vec!["mine"].into()).await, error("UnknownProperty"));
}

#[tokio::test]
async fn positions_are_read_when_asked_for_and_never_told() {
    let pair = Pair::new().await;
    let mut events = pair.client.events().await.unwrap();
    let stream = pair.client.stream(WORK, PLAYBACK).await.unwrap();
    pair.fake.position.store(96_000, Ordering::Relaxed);
    assert_eq!(stream.position().await.unwrap(), 96_000);
    pair.fake.position.store(96_001, Ordering::Relaxed);
    assert_eq!(stream.position().await.unwrap(), 96_001);
    pair.fake.underruns.store(3, Ordering::Relaxed);
    // Nobody publishes anything: a running stream is looked at by itself.
    assert_eq!(names(&changed(&mut events, Object::Stream(WORK, PLAYBACK)).await), ["Underruns"]);
}

#[tokio::test]
async fn objects_come_and_go_with_their_properties() {
    let pair = Pair::new().await;
    let mut events = pair.client.events().await.unwrap();
    let id = DomainId(9);
    pair.fake.service.update(|state| {
        let stream = state.domains[&WORK].streams[&CAPTURE].clone();
        state.domains.insert(id, domain("other", [(CAPTURE, stream)]));
    });
    let Event::Added { object: Object::Domain(DomainId(9)), properties } = next(&mut events).await else {
        panic!("the domain comes first")
    };
    assert_eq!(properties["Name"], Variant::from("other").try_into_owned().unwrap());
    let Event::Added { object, properties } = next(&mut events).await else { panic!("then its stream") };
    assert_eq!(object, Object::Stream(id, CAPTURE));
    assert!(properties.contains_key("Position"));
    pair.fake.service.update(|state| {
        state.domains.remove(&id);
    });
    for object in [Object::Stream(id, CAPTURE), Object::Domain(id)] {
        let event = next(&mut events).await;
        assert!(matches!(event, Event::Removed(of) if of == object), "{event:?}");
    }
    assert_eq!(set(&pair, Object::Domain(id), "Muted", true.into()).await, error("UnknownObject"));
    assert_eq!(pair.client.snapshot().await.unwrap().domains.len(), 1);
}

#[tokio::test]
async fn who_sets_a_property_is_obeyed_and_everybody_is_told_once() {
    let pair = Pair::new().await;
    let mut events = pair.client.events().await.unwrap();
    let work = pair.client.domain(WORK).await.unwrap();
    let playback = pair.client.stream(WORK, PLAYBACK).await.unwrap();
    work.set_volume(0.5).await.unwrap();
    assert_eq!(names(&changed(&mut events, Object::Domain(WORK)).await), ["Volume"]);
    work.set_muted(true).await.unwrap();
    assert_eq!(names(&changed(&mut events, Object::Domain(WORK)).await), ["Muted"]);
    work.set_capture("allow").await.unwrap();
    assert_eq!(names(&changed(&mut events, Object::Domain(WORK)).await), ["Capture"]);
    playback.set_target("hdmi").await.unwrap();
    assert_eq!(names(&changed(&mut events, Object::Stream(WORK, PLAYBACK)).await), ["Target"]);
    playback.set_target("").await.unwrap();
    assert_eq!(names(&changed(&mut events, Object::Stream(WORK, PLAYBACK)).await), ["Target"]);
    // What is told twice would come before this.
    pair.fake.service.capture_requested(WORK);
    assert!(matches!(next(&mut events).await, Event::CaptureRequested(WORK)));
    let bridge = pair.client.snapshot().await.unwrap();
    assert_eq!((bridge.domains[0].volume, bridge.domains[0].muted), (0.5, true));
    let commands = pair.fake.commands.lock().unwrap();
    assert_eq!(commands[0], Command::SetVolume { domain: WORK, volume: CubicVolume::new(0.5).unwrap() });
    assert_eq!(commands.last(), Some(&Command::SetTarget { domain: WORK, stream: PLAYBACK, target: None }));
}

#[tokio::test]
async fn a_value_that_can_not_be_is_refused_with_a_standard_error() {
    let pair = Pair::new().await;
    let work = Object::Domain(WORK);
    for volume in [-0.1, 1.51, f64::NAN, f64::INFINITY] {
        assert_eq!(set(&pair, work, "Volume", volume.into()).await, error("InvalidArgs"), "{volume}");
    }
    assert_eq!(set(&pair, work, "Volume", "loud".into()).await, error("InvalidArgs"));
    assert_eq!(set(&pair, work, "Capture", "perhaps".into()).await, error("InvalidArgs"));
    for property in ["Name", "Loudness"] {
        assert_eq!(set(&pair, work, property, "other".into()).await, error("UnknownProperty"));
    }
    let stream = Object::Stream(WORK, PLAYBACK);
    assert_eq!(set(&pair, stream, "Target", "a\nb".into()).await, error("InvalidArgs"));
    assert_eq!(set(&pair, stream, "Target", "x".repeat(256).into()).await, error("InvalidArgs"));
    assert!(pair.fake.commands.lock().unwrap().is_empty(), "the bridge is not asked for what can't be");
    assert_eq!(set(&pair, stream, "Target", NO_SUCH_SINK.into()).await, error("InvalidArgs"));
    let capture = Object::Stream(WORK, CAPTURE);
    assert_eq!(set(&pair, capture, "Target", "hdmi".into()).await, error("NotSupported"));
    assert_eq!(set(&pair, Object::Domain(DomainId(6)), "Muted", true.into()).await, error("UnknownObject"));
}

#[tokio::test]
async fn a_request_for_the_microphone_is_told_of_the_domain_that_asks() {
    let pair = Pair::new().await;
    let mut events = pair.client.events().await.unwrap();
    pair.fake.service.capture_requested(DomainId(77));
    pair.fake.service.capture_requested(WORK);
    let event = next(&mut events).await;
    assert!(matches!(event, Event::CaptureRequested(WORK)), "{event:?}");
    assert!(events.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_bridge_that_is_gone_is_told_from_one_that_refuses() {
    let pair = Pair::new().await;
    let work = pair.client.domain(WORK).await.unwrap();
    let refused = ClientError::from(work.set_capture("perhaps").await.unwrap_err());
    assert!(matches!(&refused, ClientError::Refused(text) if text.contains("perhaps")), "{refused:?}");
    let Pair { fake, connection, client } = pair;
    drop(fake);
    connection.close().await.unwrap();
    assert!(matches!(Client::snapshot(&client).await, Err(ClientError::Bus(_))));
}
