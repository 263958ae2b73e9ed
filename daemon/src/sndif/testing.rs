//! What the tests of this module stand on: memory that both ends see, and a XenStore.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use vsnd_pw_module::{Access, Pages};

use super::PAGE;
use crate::xen::{Nodes, Permission, StoreError};

/// Mappings of one and the same zeroed page.
pub(crate) fn shared_pages<const N: usize>() -> [Pages; N] {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE as u64).unwrap();
    std::array::from_fn(|_| Pages::scattered(file.as_fd(), &[0], Access::ReadWrite).unwrap())
}

/// XenStore nodes in memory, for reading only.
#[derive(Clone, Default)]
pub(super) struct TestNodes(BTreeMap<String, Vec<u8>>);

impl TestNodes {
    pub(super) fn of(values: &[(&str, &str)]) -> Self {
        Self(values.iter().map(|(node, value)| ((*node).into(), value.as_bytes().into())).collect())
    }

    pub(super) fn set(&mut self, node: &str, value: &[u8]) {
        self.0.insert(node.into(), value.into());
    }

    pub(super) fn unset(&mut self, node: &str) {
        self.0.remove(node);
    }
}

impl Nodes for TestNodes {
    fn read(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.0.get(path).cloned().ok_or(StoreError::NotFound)
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let below = self.0.keys().filter_map(|node| node.strip_prefix(path)?.strip_prefix('/'));
        let mut names: Vec<_> = below.filter_map(|rest| rest.split('/').next()).map(String::from).collect();
        names.dedup();
        if names.is_empty() && !self.0.contains_key(path) { Err(StoreError::NotFound) } else { Ok(names) }
    }

    fn write(&self, _: &str, _: &[u8]) -> Result<(), StoreError> {
        Err(StoreError::Denied)
    }

    fn remove(&self, _: &str) -> Result<(), StoreError> {
        Err(StoreError::Denied)
    }

    fn permissions(&self, _: &str) -> Result<Vec<Permission>, StoreError> {
        Err(StoreError::Denied)
    }

    fn set_permissions(&self, _: &str, _: &[Permission]) -> Result<(), StoreError> {
        Err(StoreError::Denied)
    }
}
