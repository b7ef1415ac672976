//! The mount table as the kernel prints it (proc(5), `/proc/PID/mountinfo`).

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// Of another process's table, what is read at most, bytes: whoever may make user namespaces can make it as long as he likes.
const MOST_OF_OTHERS: u64 = 1 << 20;

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Mount id.
    pub id: u64,
    /// Device of the superblock, kernel encoding.
    pub device: u32,
    /// Directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// File system type.
    pub kind: OsString,
}

impl Mount {
    /// Whether a user-space server makes up what the file system holds.
    pub fn is_fuse(&self) -> bool {
        self.kind.as_bytes().starts_with(b"fuse") || self.kind == "virtiofs"
    }

    /// The mount of this number that a process sees.
    ///
    /// # Errors
    /// The table can't be read, or the mount is not in its first megabyte.
    pub fn of(tgid: u32, id: u64) -> io::Result<Self> {
        let table = fs::File::open(format!("/proc/{tgid}/mountinfo"))?;
        Self::find(table.take(MOST_OF_OTHERS), id)
    }

    fn find(table: impl io::Read, id: u64) -> io::Result<Self> {
        let mut table = BufReader::new(table);
        let mut text = Vec::new();
        while table.read_until(b'\n', &mut text)? > 0 {
            let whole = text.strip_suffix(b"\n");
            if let Some(mount) = whole.and_then(line).filter(|mount| mount.id == id) {
                return Ok(mount);
            }
            text.clear();
        }
        Err(io::Error::other(
            "the mount of the executable is not among the first of the process's mount table",
        ))
    }
}

/// All mounts that a process sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounts(Vec<Mount>);

impl Mounts {
    /// Reads the mounts of this process.
    pub fn own() -> io::Result<Self> {
        fs::read("/proc/self/mountinfo").map(|text| Self::parse(&text))
    }

    /// Lines that can't be understood are left out.
    pub fn parse(text: &[u8]) -> Self {
        Self(text.split(|b| *b == b'\n').filter_map(line).collect())
    }

    /// Every mount, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// Some mount of the superblock.
    pub fn by_device(&self, device: u32) -> Option<&Mount> {
        self.iter().find(|mount| mount.device == device)
    }

    /// The mount with an id.
    pub fn by_id(&self, id: u64) -> Option<&Mount> {
        self.iter().find(|mount| mount.id == id)
    }

    /// The cgroup v2 mount that a path lies on.
    pub fn cgroup2_of(&self, path: &Path) -> Option<&Mount> {
        self.iter()
            .filter(|mount| mount.kind == "cgroup2" && path.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.as_os_str().len())
    }
}

/// An entrance for the fuzz target.
pub(crate) fn fuzz(bytes: &[u8]) {
    let mounts = Mounts::parse(bytes);
    let _found = mounts.cgroup2_of(Path::new("/sys/fs/cgroup"));
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let id = number(fields.next()?)?;
    let _parent = fields.next()?;
    let mut device = fields.next()?.split(|b| *b == b':');
    let major: u32 = number(device.next()?)?;
    let minor: u32 = number(device.next()?)?;
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount {
        id,
        device: major << 20 | minor,
        root: root.into(),
        point: point.into(),
        kind: unescape(kind),
    })
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Space, tab, newline and backslash are printed as three octal digits.
fn unescape(text: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let code = match tail {
            [a, b, c, ..] if *first == b'\\' => octal([*a, *b, *c]),
            _ => None,
        };
        out.push(code.unwrap_or(*first));
        rest = match code {
            Some(_) => tail.get(3..).unwrap_or_default(),
            None => tail,
        };
    }
    OsString::from_vec(out)
}

fn octal(digits: [u8; 3]) -> Option<u8> {
    digits.iter().try_fold(0u8, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_parsed_with_escapes_and_optional_fields() {
        let mounts = Mounts::parse(
            b"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 master:1 - cgroup2 cgroup2 rw\n\
              broken\n\
              42 31 259:1 /sub\\040dir /mnt/a\\134b\\012c rw - ext4 /dev/x rw\n",
        );
        assert_eq!(mounts.iter().count(), 2);
        let cgroup = mounts
            .by_id(41)
            .map(|m| (m.device, m.kind.clone(), m.point.clone()));
        assert_eq!(
            cgroup,
            Some((38, "cgroup2".into(), "/sys/fs/cgroup/unified".into()))
        );
        let other = mounts
            .by_device(259 << 20 | 1)
            .map(|m| (m.root.clone(), m.point.clone()));
        assert_eq!(other, Some(("/sub dir".into(), "/mnt/a\\b\nc".into())));
    }

    #[test]
    fn one_mount_of_a_table_without_end_is_found_where_it_comes_soon() {
        let line = |id: u64| {
            format!(
                "{id} 31 0:{id} / /long{} rw - tmpfs none rw\n",
                "/x".repeat(500)
            )
        };
        let table: String = (1..2_000).map(line).collect();
        let read = |id| {
            let endless = table.as_bytes().chain(io::repeat(b'x'));
            Mount::find(endless.take(MOST_OF_OTHERS), id)
        };
        assert_eq!(read(900).map(|mount| mount.device).ok(), Some(900));
        assert!(read(1_999).is_err(), "beyond the bound");
        assert!(Mount::find(table.as_bytes(), 1_999).is_ok());
    }
}
