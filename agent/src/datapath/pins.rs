//! How pins are laid out: below the pin directory one directory for each version of the ABI, with the
//! maps in it, and the links below it.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

/// Directory of the links, below that of a version.
pub(super) const LINKS: &str = "links";

/// Directory of a version.
pub(super) fn directory(pin_dir: &Path, version: u32) -> PathBuf {
    pin_dir.join(format!("v{version}"))
}

/// The versions that have pins, and their directories, in ascending order.
pub(super) fn versions(pin_dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(pin_dir)? {
        let entry = entry?;
        if let Some(version) = number(&entry.file_name())
            && entry.file_type()?.is_dir()
        {
            found.push((version, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The version that a directory of this name is for.
fn number(name: &OsStr) -> Option<u32> {
    let number: u32 = name.to_str()?.strip_prefix('v')?.parse().ok()?;
    // Not `v+2` nor `v02`.
    (*name == *format!("v{number}")).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_called_v_and_a_number_are_versions() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        for name in ["v2", "v10", "v02", "v+3", "v", "va", "2", "v4294967296"] {
            fs::create_dir(root.path().join(name))?;
        }
        fs::write(root.path().join("v3"), "")?;
        std::os::unix::fs::symlink("v2", root.path().join("v4"))?;
        let expected = [2, 10].map(|version| (version, directory(root.path(), version)));
        assert_eq!(versions(root.path())?, expected);
        Ok(())
    }
}
