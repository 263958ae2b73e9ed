use std::sync::Arc;

use zbus::object_server::SignalEmitter;
use zbus::{fdo, interface};

use crate::service::{Shared, invalid};
use crate::{Command, CubicVolume, DomainId, DomainState, Object};

/// A domain on the bus.
pub(crate) struct DomainObject {
    id: DomainId,
    shared: Arc<Shared>,
}

impl DomainObject {
    pub(crate) fn new(shared: &Arc<Shared>, id: DomainId) -> Self {
        Self { id, shared: Arc::clone(shared) }
    }

    fn read<T>(&self, read: impl FnOnce(&DomainState) -> T) -> fdo::Result<T> {
        let gone = || fdo::Error::UnknownObject(format!("domain {} is gone", self.id));
        self.shared.state().domains.get(&self.id).map(read).ok_or_else(gone)
    }

    fn object(&self) -> Object {
        Object::Domain(self.id)
    }
}

#[interface(name = "org.vsnd.Bridge1.Domain", introspection_docs = false)]
impl DomainObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u32 {
        self.id.0
    }

    #[zbus(property)]
    fn name(&self) -> fdo::Result<String> {
        self.read(|domain| domain.name.clone())
    }

    #[zbus(property)]
    fn uuid(&self) -> fdo::Result<String> {
        self.read(|domain| domain.uuid.clone().unwrap_or_default())
    }

    #[zbus(property)]
    fn volume(&self) -> fdo::Result<f64> {
        self.read(|domain| domain.volume.get())
    }

    #[zbus(property)]
    async fn set_volume(&self, volume: f64) -> fdo::Result<()> {
        let volume = CubicVolume::new(volume).map_err(invalid)?;
        let command = Command::SetVolume { domain: self.id, volume };
        self.shared.set(self.object(), "Volume", command, || self.volume()).await
    }

    #[zbus(property)]
    fn muted(&self) -> fdo::Result<bool> {
        self.read(|domain| domain.muted)
    }

    #[zbus(property)]
    async fn set_muted(&self, muted: bool) -> fdo::Result<()> {
        let command = Command::SetMuted { domain: self.id, muted };
        self.shared.set(self.object(), "Muted", command, || self.muted()).await
    }

    #[zbus(property)]
    fn capture(&self) -> fdo::Result<&'static str> {
        self.read(|domain| domain.capture.as_str())
    }

    #[zbus(property)]
    async fn set_capture(&self, capture: &str) -> fdo::Result<()> {
        let capture = capture.parse().map_err(invalid)?;
        let command = Command::SetCapture { domain: self.id, capture };
        self.shared.set(self.object(), "Capture", command, || self.capture()).await
    }

    #[zbus(property)]
    fn capture_active(&self) -> fdo::Result<bool> {
        self.read(|domain| domain.capture_active)
    }

    #[zbus(signal)]
    pub(crate) async fn capture_requested(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;
}
