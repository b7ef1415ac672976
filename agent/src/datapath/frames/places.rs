//! The network namespaces that hold guarded processes. Where every process is guarded they are all of them,
//! those included that wait, mounted, for their first one: a container runtime makes a pod's so.

use std::{
    cell::RefCell,
    collections::HashSet,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use crate::{
    datapath::netns::{self, Namespace},
    identity::adopt::Guarded,
};

/// All of them, each once. What is gone or can't be read meanwhile is left out.
///
/// # Errors
/// There is no /proc.
pub fn find(guarded: &Guarded) -> io::Result<Vec<Namespace>> {
    let seen = RefCell::new(HashSet::new());
    let mut found = Vec::new();
    let mut add = |path: &Path| {
        if let Ok(namespace) = Namespace::open(path)
            && seen.borrow_mut().insert(namespace.id)
        {
            found.push(namespace);
        }
    };
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        if !name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let process = entry.path();
        let whole = process.join("ns/net");
        let threads = netns::threads(&process).map(|thread| thread.join("ns/net"));
        let mut ways = std::iter::once(whole).chain(threads);
        let found = ways.find_map(|path| Some((fs::metadata(&path).ok()?, path)));
        let Some((meta, path)) = found else {
            continue;
        };
        let known = seen.borrow().contains(&(meta.dev(), meta.ino()));
        if !known && guarded.holds(&process) {
            add(&path);
        }
    }
    if guarded.is_everything() {
        for path in netns::mounts() {
            add(&path);
        }
    }
    Ok(found)
}
