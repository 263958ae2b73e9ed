use std::sync::Arc;

use zbus::interface;

use crate::service::Shared;

/// The bridge on the bus.
pub(crate) struct BridgeObject {
    shared: Arc<Shared>,
}

impl BridgeObject {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }
}

#[interface(name = "org.vsnd.Bridge1", introspection_docs = false)]
impl BridgeObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    #[zbus(property)]
    fn server(&self) -> String {
        self.shared.state().server.clone()
    }
}
