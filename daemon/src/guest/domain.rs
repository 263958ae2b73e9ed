//! Who a domain is, by the toolstack's word: nodes that the guest itself can't write.

use super::names::Domain;
use crate::xen::{DomId, Nodes, StoreError};

impl Domain {
    /// Reads who domain `id` is.
    ///
    /// # Errors
    /// What XenStore says; nodes that are missing or not for us to read are no error.
    pub fn read(store: &dyn Nodes, id: DomId) -> Result<Self, StoreError> {
        let home = format!("/local/domain/{id}");
        let name = text(store, &format!("{home}/name"))?;
        let uuid =
            text(store, &format!("{home}/vm"))?.and_then(|vm| vm.strip_prefix("/vm/").map(str::to_owned));
        Ok(Self { id, name, uuid })
    }

    /// Whether domain `id` is still there.
    ///
    /// # Errors
    /// [`StoreError::Disconnected`].
    pub fn exists(store: &dyn Nodes, id: DomId) -> Result<bool, StoreError> {
        match store.directory(&format!("/local/domain/{id}")) {
            Ok(_) => Ok(true),
            Err(error @ StoreError::Disconnected(_)) => Err(error),
            Err(_) => Ok(false),
        }
    }
}

/// A node's value as text, `None` where it is missing, empty or no UTF-8.
fn text(store: &dyn Nodes, path: &str) -> Result<Option<String>, StoreError> {
    match store.read(path) {
        Ok(value) => Ok(String::from_utf8(value).ok().filter(|text| !text.is_empty())),
        Err(StoreError::NotFound | StoreError::Denied) => Ok(None),
        // Whom the user denies something must not be taken for a nameless one.
        Err(error) => Err(error),
    }
}
