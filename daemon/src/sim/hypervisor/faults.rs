//! Faults on order: what the bridge's calls meet when Xen is slow, full or broken. Guests and toolstack are spared.

use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::xen::{GrantError, StoreError};

#[derive(Debug, Default)]
struct Orders {
    /// Part of a path, error, how many times more.
    store: Vec<(String, StoreError, u32)>,
    delay: Duration,
    maps: (u32, Option<GrantError>),
    binds: u32,
}

/// Faults that the bridge's next calls meet.
#[derive(Debug, Default)]
pub struct Faults {
    orders: Mutex<Orders>,
}

impl Faults {
    /// The next `times` store calls on paths that contain `part` fail with `error`.
    pub fn fail_store(&self, part: &str, error: StoreError, times: u32) {
        lock(&self.orders).store.push((part.to_owned(), error, times));
    }

    /// Every store call takes this much longer.
    pub fn slow_store(&self, delay: Duration) {
        lock(&self.orders).delay = delay;
    }

    /// The next `times` grant mappings fail with `error`.
    pub fn fail_maps(&self, error: GrantError, times: u32) {
        lock(&self.orders).maps = (times, Some(error));
    }

    /// The next `times` event channel bindings fail.
    pub fn fail_binds(&self, times: u32) {
        lock(&self.orders).binds = times;
    }

    /// Takes all orders back.
    pub fn clear(&self) {
        *lock(&self.orders) = Orders::default();
    }

    pub(super) fn on_store(&self, path: &str) -> Result<(), StoreError> {
        let delay = lock(&self.orders).delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let mut orders = lock(&self.orders);
        let met = orders.store.iter_mut().find(|(part, _, times)| *times > 0 && path.contains(part.as_str()));
        let Some((_, error, times)) = met else { return Ok(()) };
        *times -= 1;
        Err(error.clone())
    }

    pub(super) fn on_map(&self) -> Result<(), GrantError> {
        let (times, error) = &mut lock(&self.orders).maps;
        match error {
            Some(error) if *times > 0 => {
                *times -= 1;
                Err(error.clone())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn on_bind(&self) -> bool {
        let binds = &mut lock(&self.orders).binds;
        let fails = *binds > 0;
        *binds = binds.saturating_sub(1);
        fails
    }
}
