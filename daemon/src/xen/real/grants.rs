//! Memory that guests grant, by /dev/xen/gntdev: a list of references is announced, then mapped as one range.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use tracing::debug;
use vsnd_pw_module::{Access, Pages};

use super::ioctl;
use crate::xen::{DomId, GrantError, GrantRef, Grants};

/// Octets of a page, which is what a grant is of.
const PAGE: usize = 4096;

/// The grant device.
pub struct GrantDevice {
    device: Arc<File>,
}

impl GrantDevice {
    /// Opens the device.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { device: Arc::new(File::options().read(true).write(true).open(path)?) })
    }

    /// Maps all of `references` or none.
    fn map_all(&self, domain: DomId, references: &[GrantRef], access: Access) -> Result<Pages, Failure> {
        let count = u32::try_from(references.len()).map_err(|_| Failure::Announce(Errno::INVAL))?;
        let numbers = references.iter().map(|reference| reference.0);
        let offset =
            ioctl::map_grants(self.device.as_fd(), domain.0.into(), numbers).map_err(Failure::Announce)?;
        let announced = Announced { device: self.device.clone(), offset, count };
        let len = references.len() * PAGE;
        // The owner goes back with the pages, or with the error if they can't be mapped.
        Pages::of_device(self.device.as_fd(), offset, len, access, Some(Box::new(announced)))
            .map_err(Failure::Map)
    }
}

/// Where a mapping failed.
#[derive(Debug)]
enum Failure {
    /// The device didn't take the list; it hasn't asked the guest yet.
    Announce(Errno),
    /// mmap failed: EINVAL if the hypervisor refused any of the references.
    Map(io::Error),
}

impl Failure {
    fn is_of_a_reference(&self) -> bool {
        matches!(self, Self::Map(error) if Errno::from_io_error(error) == Some(Errno::INVAL))
    }
}

impl From<Failure> for GrantError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Announce(Errno::NOMEM) => Self::Device("the kernel has no room for more".into()),
            Failure::Announce(errno) => Self::Device(io::Error::from(errno).to_string()),
            Failure::Map(error) => Self::Device(error.to_string()),
        }
    }
}

impl Grants for GrantDevice {
    fn map(&self, domain: DomId, references: &[GrantRef], access: Access) -> Result<Pages, GrantError> {
        match references.len() {
            0 => return Err(GrantError::Device("no page asked for".into())),
            1..=ioctl::REFERENCES_MAX => {}
            count => {
                return Err(GrantError::Device(format!("{count} pages are more than one mapping takes")));
            }
        }
        let failure = match self.map_all(domain, references, access) {
            Ok(pages) => return Ok(pages),
            Err(failure) => failure,
        };
        if failure.is_of_a_reference() {
            let refused = |part: &[GrantRef]| {
                self.map_all(domain, part, access).is_err_and(|failure| failure.is_of_a_reference())
            };
            if let Some(reference) = first_refused(references, refused) {
                return Err(GrantError::BadReference(reference.0));
            }
        }
        Err(failure.into())
    }
}

/// The first reference that is refused, by halves: the kernel tells only that one of a list is. A guest that hides a bad
/// reference among good ones costs as many page mappings as the list is long, not that many calls.
fn first_refused(references: &[GrantRef], refused: impl Fn(&[GrantRef]) -> bool) -> Option<GrantRef> {
    let mut rest = references;
    while rest.len() > 1 {
        let (first, second) = rest.split_at(rest.len() / 2);
        rest = if refused(first) { first } else { second };
    }
    // It may have become good meanwhile: the guest runs on.
    if refused(rest) { rest.first().copied() } else { None }
}

/// A range of grants that the device knows; given back when dropped, after its pages were unmapped.
struct Announced {
    device: Arc<File>,
    offset: u64,
    count: u32,
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Err(errno) = ioctl::unmap_grants(self.device.as_fd(), self.offset, self.count) {
            debug!("{} granted pages can't be given back: {}", self.count, io::Error::from(errno));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    proptest! {
        #[test]
        fn the_bad_reference_is_found_with_few_calls(len in 1usize..5000, at in any::<prop::sample::Index>()) {
            let references: Vec<_> = (0..len).map(|number| GrantRef(number as u32 + 8)).collect();
            let bad = references[at.index(len)];
            let (calls, pages) = (Cell::new(0), Cell::new(0));
            let found = first_refused(&references, |part| {
                calls.set(calls.get() + 1);
                pages.set(pages.get() + part.len());
                part.contains(&bad)
            });
            prop_assert_eq!(found, Some(bad));
            prop_assert!(calls.get() <= 14, "{} calls", calls.get());
            prop_assert!(pages.get() <= len + 1, "{} pages", pages.get());
        }
    }

    #[test]
    fn of_several_bad_references_the_first_is_named_and_of_none_none() {
        let references = [1, 2, 3, 4, 5].map(GrantRef);
        let bad = [GrantRef(3), GrantRef(5)];
        let refused = |part: &[GrantRef]| part.iter().any(|reference| bad.contains(reference));
        assert_eq!(first_refused(&references, refused), Some(GrantRef(3)));
        assert_eq!(first_refused(&references, |_| false), None);
    }

    #[test]
    fn a_device_that_is_none_is_an_error_of_the_device() {
        let device = GrantDevice::open(Path::new("/dev/null")).unwrap();
        for references in [vec![], vec![GrantRef(8)], vec![GrantRef(8); ioctl::REFERENCES_MAX + 1]] {
            let refused = device.map(DomId(1), &references, Access::ReadWrite);
            assert!(matches!(refused, Err(GrantError::Device(_))));
        }
    }
}
