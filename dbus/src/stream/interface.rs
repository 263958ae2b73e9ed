use std::sync::Arc;

use zbus::{fdo, interface};

use crate::service::{Shared, invalid};
use crate::{Command, DomainId, NodeName, Object, OpenStream, Reading, StreamId, StreamState};

/// Properties that change all the time: read, not signalled.
pub(crate) const UNSIGNALLED: [&str; 3] = ["Position", "PositionErrorUsec", "Levels"];

/// The node of a stream that has none: what PipeWire and PulseAudio themselves write for it.
const NO_NODE: u32 = u32::MAX;

/// A stream on the bus.
pub(crate) struct StreamObject {
    domain: DomainId,
    id: StreamId,
    shared: Arc<Shared>,
}

impl StreamObject {
    pub(crate) fn new(shared: &Arc<Shared>, domain: DomainId, id: StreamId) -> Self {
        Self { domain, id, shared: Arc::clone(shared) }
    }

    fn read<T>(&self, read: impl FnOnce(&StreamState) -> T) -> fdo::Result<T> {
        let gone =
            || fdo::Error::UnknownObject(format!("stream {} of domain {} is gone", self.id, self.domain));
        let state = self.shared.state();
        let stream = state.domains.get(&self.domain).and_then(|domain| domain.streams.get(&self.id));
        stream.map(read).ok_or_else(gone)
    }

    /// What the guest opened it with; the default of `T` while it is closed.
    fn read_open<T: Default>(&self, read: impl FnOnce(&OpenStream) -> T) -> fdo::Result<T> {
        self.read(|stream| stream.open.as_ref().map(read).unwrap_or_default())
    }

    fn probe(&self) -> fdo::Result<Reading> {
        let probe = self.read(|stream| Arc::clone(&stream.probe))?;
        Ok(probe())
    }
}

#[interface(name = "org.vsnd.Bridge1.Stream", introspection_docs = false)]
impl StreamObject {
    #[zbus(property)]
    fn direction(&self) -> fdo::Result<&'static str> {
        self.read(|stream| stream.direction.as_str())
    }

    #[zbus(property)]
    fn state(&self) -> fdo::Result<&'static str> {
        self.read(StreamState::word)
    }

    #[zbus(property)]
    fn format(&self) -> fdo::Result<String> {
        self.read_open(|open| open.format.clone())
    }

    #[zbus(property)]
    fn rate(&self) -> fdo::Result<u32> {
        self.read_open(|open| open.rate)
    }

    #[zbus(property)]
    fn channels(&self) -> fdo::Result<u32> {
        self.read_open(|open| open.channels)
    }

    #[zbus(property)]
    fn period_frames(&self) -> fdo::Result<u32> {
        self.read_open(|open| open.period_frames)
    }

    #[zbus(property)]
    fn buffer_frames(&self) -> fdo::Result<u32> {
        self.read_open(|open| open.buffer_frames)
    }

    #[zbus(property)]
    fn volume(&self) -> fdo::Result<Vec<f64>> {
        self.read(|stream| stream.volume.clone())
    }

    #[zbus(property)]
    fn muted(&self) -> fdo::Result<bool> {
        self.read(|stream| stream.muted)
    }

    #[zbus(property)]
    fn node_name(&self) -> fdo::Result<String> {
        self.read(|stream| stream.node_name.clone())
    }

    #[zbus(property)]
    fn node_id(&self) -> fdo::Result<u32> {
        self.read(|stream| stream.node_id.unwrap_or(NO_NODE))
    }

    #[zbus(property)]
    fn target(&self) -> fdo::Result<String> {
        self.read(|stream| stream.target.as_ref().map_or_else(String::new, |name| name.as_str().to_owned()))
    }

    #[zbus(property)]
    async fn set_target(&self, target: &str) -> fdo::Result<()> {
        let target = if target.is_empty() { None } else { Some(NodeName::new(target).map_err(invalid)?) };
        let object = Object::Stream(self.domain, self.id);
        let command = Command::SetTarget { domain: self.domain, stream: self.id, target };
        self.shared.set(object, "Target", command, || self.target()).await
    }

    #[zbus(property)]
    fn latency_usec(&self) -> fdo::Result<u64> {
        self.probe().map(|reading| u64::try_from(reading.latency.as_micros()).unwrap_or(u64::MAX))
    }

    #[zbus(property)]
    fn underruns(&self) -> fdo::Result<u64> {
        self.probe().map(|reading| reading.underruns)
    }

    #[zbus(property)]
    fn overruns(&self) -> fdo::Result<u64> {
        self.probe().map(|reading| reading.overruns)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn position(&self) -> fdo::Result<u64> {
        self.probe().map(|reading| reading.position)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn position_error_usec(&self) -> fdo::Result<i64> {
        self.probe().map(|reading| reading.position_error_usec)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn levels(&self) -> fdo::Result<Vec<f64>> {
        self.probe().map(|reading| reading.levels)
    }
}
