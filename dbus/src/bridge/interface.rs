use std::collections::BTreeSet;
use std::sync::Arc;

use zbus::interface;

use crate::NodeName;
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

    #[zbus(property)]
    fn sinks(&self) -> Vec<String> {
        texts(&self.shared.state().sinks)
    }

    #[zbus(property)]
    fn sources(&self) -> Vec<String> {
        texts(&self.shared.state().sources)
    }
}

fn texts(names: &BTreeSet<NodeName>) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}
