//! Memory that both ends see, for the tests of this module.

use std::os::fd::AsFd;

use vsnd_pw_module::{Access, Pages};

use super::PAGE;

/// Mappings of one and the same zeroed page.
pub(crate) fn shared_pages<const N: usize>() -> [Pages; N] {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE as u64).unwrap();
    std::array::from_fn(|_| Pages::scattered(file.as_fd(), &[0], Access::ReadWrite).unwrap())
}
