//! The version of the PipeWire library in this process, whose converter serves the nodes.
#![allow(unsafe_code)] // the crate has no wrapper for it

use std::ffi::CStr;

/// Major, minor and micro number of the library.
pub(super) fn library() -> (u32, u32, u32) {
    // SAFETY: returns a constant string of the library's.
    let text = unsafe { pipewire::sys::pw_get_library_version() };
    if text.is_null() {
        return (0, 0, 0);
    }
    // SAFETY: as above; it ends with a zero and is never freed.
    parse(unsafe { CStr::from_ptr(text) }.to_str().unwrap_or_default())
}

fn parse(text: &str) -> (u32, u32, u32) {
    let mut numbers = text.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare() {
        assert_eq!(parse("0.3.65"), (0, 3, 65));
        assert!(parse("1.4.0") > (1, 3, 81));
        assert!(library() >= (0, 3, 64), "what the crate's features ask for");
    }
}
