//! The requests of /dev/xen/evtchn and /dev/xen/gntdev.
#![allow(unsafe_code)] // the one place that makes ioctls: the kernel reads and writes an argument by its address

use std::ffi::c_void;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::ioctl::{Direction, Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// A request's number and the octets of its argument, which the kernel headers put into the number.
const fn request(group: u8, number: u8, octets: usize) -> Opcode {
    opcode::from_components(Direction::None, group, number, octets)
}

const BIND_INTERDOMAIN: Opcode = request(b'E', 1, 8);
const UNBIND: Opcode = request(b'E', 3, 4);
const NOTIFY: Opcode = request(b'E', 4, 4);
const RESTRICT_DOMID: Opcode = request(b'E', 6, 2);
const MAP_GRANT_REF: Opcode = request(b'G', 0, 24);
const UNMAP_GRANT_REF: Opcode = request(b'G', 1, 16);

/// References that the grant device takes in one request.
pub(super) const REFERENCES_MAX: usize = 64 * 1024;

/// One request whose argument is words in the kernel's layout.
struct Call<'a> {
    opcode: Opcode,
    argument: &'a mut [u32],
}

// SAFETY: the argument's address is that of a live exclusive slice for the whole call, and the functions below pair
// every opcode with a slice at least as long as the kernel reads and writes for it.
unsafe impl Ioctl for Call<'_> {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(out)
    }
}

fn call(device: BorrowedFd<'_>, opcode: Opcode, argument: &mut [u32]) -> Result<IoctlOutput, Errno> {
    // SAFETY: `Call`'s promise holds, see there; a device of another kind answers ENOTTY or EINVAL.
    unsafe { ioctl(device, Call { opcode, argument }) }
}

/// Binds a port of `domain` and returns ours.
///
/// # Errors
/// What the kernel says.
pub(super) fn bind_interdomain(device: BorrowedFd<'_>, domain: u32, port: u32) -> Result<u32, Errno> {
    let bound = call(device, BIND_INTERDOMAIN, &mut [domain, port])?;
    u32::try_from(bound).map_err(|_| Errno::INVAL)
}

/// Frees a port of ours.
///
/// # Errors
/// What the kernel says: ENOTCONN for a port that isn't bound by this handle.
pub(super) fn unbind(device: BorrowedFd<'_>, port: u32) -> Result<(), Errno> {
    call(device, UNBIND, &mut [port]).map(drop)
}

/// Notifies the other end of a port of ours.
///
/// # Errors
/// What the kernel says: ENOTCONN for a port that isn't bound by this handle.
pub(super) fn notify(device: BorrowedFd<'_>, port: u32) -> Result<(), Errno> {
    call(device, NOTIFY, &mut [port]).map(drop)
}

/// Lets a handle bind ports of `domain` and of no other from now on.
///
/// # Errors
/// What the kernel says: EACCES for a handle that has a domain, EINVAL for domain 0.
pub(super) fn restrict(device: BorrowedFd<'_>, domain: u16) -> Result<(), Errno> {
    // The kernel reads the first two octets.
    let [low, high] = domain.to_ne_bytes();
    call(device, RESTRICT_DOMID, &mut [u32::from_ne_bytes([low, high, 0, 0])]).map(drop)
}

/// Announces a range of grants; returns the offset at which to map it.
///
/// # Errors
/// EINVAL for no reference or more than [`REFERENCES_MAX`], and what the kernel says. Whether the guest grants them
/// comes out when they are mapped.
pub(super) fn map_grants(
    device: BorrowedFd<'_>,
    domain: u32,
    references: impl ExactSizeIterator<Item = u32>,
) -> Result<u64, Errno> {
    let count = references.len();
    if count == 0 || count > REFERENCES_MAX {
        return Err(Errno::INVAL);
    }
    // count, padding, two words of offset, then domain and reference for each.
    let mut argument = Vec::with_capacity(4 + 2 * count);
    argument.extend([u32::try_from(count).map_err(|_| Errno::INVAL)?, 0, 0, 0]);
    argument.extend(references.flat_map(|reference| [domain, reference]));
    // An iterator that lied about its length would have the kernel read past the end.
    if argument.len() != 4 + 2 * count {
        return Err(Errno::INVAL);
    }
    call(device, MAP_GRANT_REF, &mut argument)?;
    Ok(joined([argument[2], argument[3]]))
}

/// Takes back what [`map_grants`] announced. Pages still mapped stay so until unmapped.
///
/// # Errors
/// What the kernel says: ENOENT if no such range was announced.
pub(super) fn unmap_grants(device: BorrowedFd<'_>, offset: u64, count: u32) -> Result<(), Errno> {
    let [first, second] = split(offset);
    call(device, UNMAP_GRANT_REF, &mut [first, second, count, 0]).map(drop)
}

/// A 64-bit number as it lies in two words of memory.
fn joined([first, second]: [u32; 2]) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// The opposite of [`joined`].
fn split(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn requests_are_those_of_the_kernel_headers() {
        let requests = [
            ("IOCTL_EVTCHN_BIND_INTERDOMAIN", BIND_INTERDOMAIN),
            ("IOCTL_EVTCHN_UNBIND", UNBIND),
            ("IOCTL_EVTCHN_NOTIFY", NOTIFY),
            ("IOCTL_EVTCHN_RESTRICT_DOMID", RESTRICT_DOMID),
            ("IOCTL_GNTDEV_MAP_GRANT_REF", MAP_GRANT_REF),
            ("IOCTL_GNTDEV_UNMAP_GRANT_REF", UNMAP_GRANT_REF),
        ];
        let layout = [
            ("offsetof(struct ioctl_evtchn_bind_interdomain, remote_domain)", 0),
            ("offsetof(struct ioctl_evtchn_bind_interdomain, remote_port)", 4),
            ("sizeof(struct ioctl_evtchn_restrict_domid)", 2),
            ("offsetof(struct ioctl_gntdev_map_grant_ref, count)", 0),
            ("offsetof(struct ioctl_gntdev_map_grant_ref, index)", 8),
            ("offsetof(struct ioctl_gntdev_map_grant_ref, refs)", 16),
            ("sizeof(struct ioctl_gntdev_grant_ref)", 8),
            ("offsetof(struct ioctl_gntdev_grant_ref, domid)", 0),
            ("offsetof(struct ioctl_gntdev_grant_ref, ref)", 4),
            ("offsetof(struct ioctl_gntdev_unmap_grant_ref, index)", 0),
            ("offsetof(struct ioctl_gntdev_unmap_grant_ref, count)", 8),
        ];
        let mut expressions: Vec<&str> = requests.iter().map(|(name, _)| *name).collect();
        expressions.extend(layout.iter().map(|(name, _)| *name));
        let mut expected: Vec<u64> = requests.iter().map(|&(_, number)| u64::from(number)).collect();
        expected.extend(layout.iter().map(|(_, offset)| offset));
        // gntdev.h names two types that only Xen's own headers have.
        let header = "#include <stddef.h>\n#include <stdint.h>\n#include <sys/ioctl.h>\n\
            typedef uint32_t grant_ref_t;\ntypedef uint16_t domid_t;\n\
            #include <xen/evtchn.h>\n#include <xen/gntdev.h>";
        assert_eq!(super::super::c_values(header, &expressions), expected);
    }

    #[test]
    fn words_of_an_offset_lie_as_in_memory() {
        let number = 0x0123_4567_89ab_cdef_u64;
        assert_eq!(split(number).map(u32::to_ne_bytes).concat(), number.to_ne_bytes());
        assert_eq!(joined(split(number)), number);
    }

    #[test]
    fn a_file_that_is_no_such_device_refuses() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(bind_interdomain(null.as_fd(), 1, 1), Err(Errno::NOTTY));
        assert_eq!(restrict(null.as_fd(), 1), Err(Errno::NOTTY));
        assert_eq!(map_grants(null.as_fd(), 1, [8, 9].into_iter()), Err(Errno::NOTTY));
        assert_eq!(map_grants(null.as_fd(), 1, [].into_iter()), Err(Errno::INVAL));
        assert_eq!(map_grants(null.as_fd(), 1, vec![8; REFERENCES_MAX + 1].into_iter()), Err(Errno::INVAL));
    }
}
