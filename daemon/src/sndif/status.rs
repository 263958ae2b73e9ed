//! What a response says: done, or why not.

/// "Status return code is zero on success and -XEN_EXX on failure."
pub type Status = Result<(), Errno>;

/// Why a request failed: the numbers of Xen's public errno.h that a backend has reason to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum Errno {
    /// EPERM.
    #[error("not permitted")]
    Permission = 1,
    /// ENOENT.
    #[error("no such thing")]
    NotFound = 2,
    /// EIO.
    #[error("input/output error")]
    Io = 5,
    /// ENOMEM.
    #[error("no memory")]
    NoMemory = 12,
    /// EBUSY.
    #[error("busy")]
    Busy = 16,
    /// ENODEV.
    #[error("no such device")]
    NoDevice = 19,
    /// EINVAL.
    #[error("invalid argument")]
    Invalid = 22,
    /// ENOSYS.
    #[error("no such function")]
    NoFunction = 38,
    /// ENODATA.
    #[error("no data")]
    NoData = 61,
    /// EOPNOTSUPP.
    #[error("not supported")]
    NotSupported = 95,
    /// ETIMEDOUT.
    #[error("timed out")]
    TimedOut = 110,
}

impl Errno {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Permission,
        Self::NotFound,
        Self::Io,
        Self::NoMemory,
        Self::Busy,
        Self::NoDevice,
        Self::Invalid,
        Self::NoFunction,
        Self::NoData,
        Self::NotSupported,
        Self::TimedOut,
    ];

    /// The number, positive.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// The status field. Never positive: the Linux frontend takes a positive one for success and then uses memory that
/// nobody filled.
pub(super) fn encode(status: Status) -> i32 {
    match status {
        Ok(()) => 0,
        Err(errno) => -i32::from(errno.number()),
    }
}

/// Reads a status field; `None` for a number that no backend of ours sends.
pub(super) fn parse(field: i32) -> Option<Status> {
    if field == 0 {
        return Some(Ok(()));
    }
    Errno::ALL.into_iter().find(|errno| field == -i32::from(errno.number())).map(Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_negative_and_read_back() {
        for errno in Errno::ALL {
            assert!(encode(Err(errno)) < 0, "{errno}");
            assert_eq!(parse(encode(Err(errno))), Some(Err(errno)));
        }
        assert_eq!(encode(Ok(())), 0);
        assert_eq!(parse(0), Some(Ok(())));
        assert_eq!(parse(22), None);
        assert_eq!(parse(i32::MIN), None);
    }
}
