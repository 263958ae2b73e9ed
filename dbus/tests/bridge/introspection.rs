//! The interface as the files in `dbus/` describe it, which is what others build on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vsnd_dbus::Object;
use zbus::fdo::IntrospectableProxy;
use zbus_xml::{Interface, Node};

use crate::fake::{PLAYBACK, WORK};
use crate::peer::Pair;

/// What an interface is made of, without what is only said about it and in any order.
fn parts(interface: &Interface<'_>) -> BTreeMap<String, String> {
    let properties = interface.properties().map(|property| {
        let annotations: Vec<_> =
            property.annotations().iter().map(|note| format!("{}={}", note.name(), note.value())).collect();
        let (kind, access) = (property.ty(), property.access());
        (format!("property {}", property.name()), format!("{kind} {access:?} {annotations:?}"))
    });
    let signals = interface
        .signals()
        .map(|signal| (format!("signal {}", signal.name()), format!("{:?}", signal.args())));
    let methods = interface
        .methods()
        .map(|method| (format!("method {}", method.name()), format!("{:?}", method.args())));
    properties.chain(signals).chain(methods).collect()
}

#[tokio::test]
async fn the_files_describe_the_interfaces_as_they_are() {
    let pair = Pair::new().await;
    for object in [Object::Bridge, Object::Domain(WORK), Object::Stream(WORK, PLAYBACK)] {
        let proxy = IntrospectableProxy::builder(&pair.connection)
            .destination("org.vsnd.Bridge1")
            .path(object.path())
            .build()
            .await
            .unwrap();
        let live = proxy.introspect().await.unwrap();
        let live = Node::from_reader(live.as_bytes()).unwrap();
        let live = live.interfaces().iter().find(|of| of.name().as_str() == object.interface()).unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{}.xml", object.interface()));
        let file = Node::from_reader(fs::read(file).unwrap().as_slice()).unwrap();
        let [described] = file.interfaces() else { panic!("one interface to a file") };
        assert_eq!(described.name(), live.name());
        assert_eq!(parts(described), parts(live), "{}", object.interface());
    }
}

#[test]
fn paths_in_the_reference_are_paths_of_objects() {
    let reference = include_str!("../../../docs/dbus.md");
    let paths: BTreeMap<_, _> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("    /"))
        .filter_map(|line| line.split_whitespace().next())
        .map(|path| (format!("/{path}"), Object::at(&format!("/{path}"))))
        .collect();
    assert_eq!(paths.len(), 3);
    assert!(paths.values().all(Option::is_some), "{paths:?}");
}
