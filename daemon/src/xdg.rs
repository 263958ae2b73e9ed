//! Directories that the environment names, as the XDG Base Directory Specification has them.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the variable `name` holds, if that is an absolute path: the specification has all others ignored, the empty one too.
pub fn directory(name: &str) -> Option<PathBuf> {
    absolute(env::var_os(name))
}

/// The directory that the variable `name` holds, or else `otherwise` in the user's home. `None` when the environment names no
/// home.
pub(crate) fn directory_or(name: &str, otherwise: &str) -> Option<PathBuf> {
    directory(name).or_else(|| Some(directory("HOME")?.join(otherwise)))
}

fn absolute(value: Option<OsString>) -> Option<PathBuf> {
    value.map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_absolute_path_is_a_directory() {
        assert_eq!(absolute(Some("/run/user/1".into())), Some("/run/user/1".into()));
        for value in ["", ".", "run"] {
            assert_eq!(absolute(Some(value.into())), None, "{value:?}");
        }
        assert_eq!(absolute(None), None);
    }
}
