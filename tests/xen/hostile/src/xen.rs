//! What Linux lets a guest's process have of Xen: pages to grant, and event channels to offer.
#![allow(unsafe_code)] // the one place that makes ioctls: the kernel reads and writes an argument by its address

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::ioctl::{Direction, Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use vsnd_bridge::sndif::PAGE;
use vsnd_bridge::xen::GrantRef;
use vsnd_pw_module::{Access, Pages};

/// To whom all is granted and offered.
const DOM0: u16 = 0;

const ALLOC_GREF: Opcode = opcode::from_components(Direction::None, b'G', 5, size_of::<Allocation>());
const BIND_UNBOUND_PORT: Opcode = opcode::from_components(Direction::None, b'E', 2, 4);
const NOTIFY: Opcode = opcode::from_components(Direction::None, b'E', 4, 4);

/// GNTALLOC_FLAG_WRITABLE.
const WRITABLE: u16 = 1;

/// struct ioctl_gntalloc_alloc_gref, for one page.
#[repr(C)]
struct Allocation {
    domain: u16,
    flags: u16,
    count: u32,
    index: u64,
    reference: u32,
}

/// A request with its argument.
struct Call<'a, T>(Opcode, &'a mut T);

// SAFETY: the argument's address is that of a live exclusive reference for the whole call, and below every opcode goes with the
// type whose size is part of it.
unsafe impl<T> Ioctl for Call<'_, T> {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.0
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.1).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(out)
    }
}

fn call<T>(device: &File, opcode: Opcode, argument: &mut T) -> rustix::io::Result<IoctlOutput> {
    // SAFETY: `Call`'s promise holds, see there.
    unsafe { ioctl(device, Call(opcode, argument)) }
}

fn device(path: &str) -> Result<File> {
    File::options().read(true).write(true).open(path).with_context(|| path.to_owned())
}

/// A page that Dom0 may map and write.
pub struct Granted {
    /// The page.
    pub pages: Pages,
    /// Its reference.
    pub reference: GrantRef,
}

/// Makes pages to grant.
pub struct Grants(File);

impl Grants {
    pub fn open() -> Result<Self> {
        device("/dev/xen/gntalloc").map(Self)
    }

    /// A fresh page.
    pub fn page(&self) -> Result<Granted> {
        let mut allocation = Allocation { domain: DOM0, flags: WRITABLE, count: 1, index: 0, reference: 0 };
        call(&self.0, ALLOC_GREF, &mut allocation).context("a grant")?;
        let pages = Pages::of_device(self.0.as_fd(), allocation.index, PAGE, Access::ReadWrite, None)?;
        Ok(Granted { pages, reference: GrantRef(allocation.reference) })
    }
}

/// Makes event channels, and notifies Dom0 by them.
pub struct Ports(File);

/// A guest's end of an event channel.
#[derive(Clone, Copy)]
pub struct Port(pub u32);

impl Ports {
    pub fn open() -> Result<Self> {
        device("/dev/xen/evtchn").map(Self)
    }

    /// A port that Dom0 may bind.
    pub fn offer(&self) -> Result<Port> {
        let port = call(&self.0, BIND_UNBOUND_PORT, &mut u32::from(DOM0)).context("a port")?;
        Ok(Port(u32::try_from(port)?))
    }

    /// Notifies whoever has bound it.
    pub fn notify(&self, mut port: Port) {
        let _ = call(&self.0, NOTIFY, &mut port.0);
    }
}
