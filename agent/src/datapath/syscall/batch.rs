//! Elements of maps: many with one call, and the number of a map that is an element of another.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::bpf;

/// `enum bpf_cmd` (`include/uapi/linux/bpf.h`).
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_UPDATE_BATCH: i32 = 26;
const MAP_DELETE_BATCH: i32 = 27;
/// The kernel's own error number for "this map has no batches" (`include/linux/errno.h`).
const ENOTSUPP: i32 = 524;

#[repr(C)]
#[expect(clippy::struct_field_names, reason = "the names of `union bpf_attr`")]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

impl Batch {
    fn new<K, V>(map: BorrowedFd<'_>, keys: &[K], values: Option<&[V]>) -> io::Result<Self> {
        Ok(Self {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values: values.map_or(0, |values| values.as_ptr() as u64),
            count: u32::try_from(keys.len()).map_err(io::Error::other)?,
            map: map.as_raw_fd().cast_unsigned(),
            element_flags: 0,
            flags: 0,
        })
    }
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    fn new<K, V>(map: BorrowedFd<'_>, key: &K, value: Option<&V>) -> Self {
        Self {
            map: map.as_raw_fd().cast_unsigned(),
            pad: 0,
            key: std::ptr::from_ref(key) as u64,
            value: value.map_or(0, |value| std::ptr::from_ref(value) as u64),
            flags: 0,
        }
    }
}

/// Writes many elements with one call; for a map of maps the kernel then waits for running programs
/// once, not once for each element. Before 5.19 such a map takes single elements only.
///
/// # Errors
/// The kernel's; some elements may have been written.
pub fn update_batch<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    if keys.len() != values.len() {
        return Err(io::Error::other("as many values as keys are needed"));
    }
    if keys.is_empty() {
        return Ok(());
    }
    let mut attr = Batch::new(map, keys, Some(values))?;
    match bpf(MAP_UPDATE_BATCH, &mut attr) {
        Err(error) if error.raw_os_error() == Some(ENOTSUPP) => {
            let mut pairs = keys.iter().zip(values);
            pairs.try_for_each(|(key, value)| {
                bpf(MAP_UPDATE_ELEM, &mut Element::new(map, key, Some(value))).map(drop)
            })
        }
        other => other.map(drop),
    }
}

/// Id of the map that is the element of `key` in a map of maps; `None` where there is none. Nothing is opened:
/// the map may be gone a moment later.
///
/// # Errors
/// The kernel's.
pub fn lookup_id<K: aya::Pod>(outer: BorrowedFd<'_>, key: &K) -> io::Result<Option<u32>> {
    let mut id = 0u32;
    let mut attr = Element::new::<K, u8>(outer, key, None);
    attr.value = std::ptr::from_mut(&mut id) as u64;
    match bpf(MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(Some(id)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes many elements as [`update_batch`] writes them; those that are not there are fine.
///
/// # Errors
/// The kernel's; some elements may have been removed.
pub fn delete_batch<K: aya::Pod>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    let mut rest = keys;
    while !rest.is_empty() {
        let mut attr = Batch::new::<K, u8>(map, rest, None)?;
        match bpf(MAP_DELETE_BATCH, &mut attr) {
            Ok(_) => return Ok(()),
            // It stopped at one that is not there, and says how many it has removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                rest = usize::try_from(attr.count)
                    .ok()
                    .and_then(|removed| rest.get(removed + 1..))
                    .unwrap_or_default();
            }
            Err(error) if error.raw_os_error() == Some(ENOTSUPP) => {
                return rest.iter().try_for_each(|key| {
                    match bpf(MAP_DELETE_ELEM, &mut Element::new::<K, u8>(map, key, None)) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                        _ => Ok(()),
                    }
                });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
