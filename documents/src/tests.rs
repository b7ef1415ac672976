//! What counts as a document, and what is noticed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::timeout;

use super::{Naming, ReadError, Watch, read, read_file};

/// A policy directory below one that belongs to the test.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        fs::create_dir(home.policy()).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn policy(&self) -> PathBuf {
        self.path("policy.d")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.policy().join(name), text).unwrap();
    }

    fn names(&self, naming: Naming) -> Vec<String> {
        let documents = read(&self.policy(), naming).unwrap();
        documents.into_iter().map(|it| it.name).collect()
    }

    fn error(&self) -> String {
        read(&self.policy(), Naming::File).unwrap_err().to_string()
    }
}

#[test]
fn documents_are_named_and_ordered() {
    let home = Home::new();
    home.write("b.toml", "b");
    home.write("a.toml", "a");
    home.write(".hidden.toml", "[[[");
    home.write("note.txt", "no policy");
    home.write("c.toml~", "an editor's copy");
    assert_eq!(home.names(Naming::File), ["a.toml", "b.toml"]);
    let paths = ["a.toml", "b.toml"].map(|name| home.policy().join(name).display().to_string());
    assert_eq!(home.names(Naming::Path), paths);
    let one = read_file(Path::new(paths.first().unwrap())).unwrap();
    assert_eq!(
        (one.name.as_str(), &*one.text),
        (paths.first().unwrap().as_str(), "a")
    );
}

#[test]
fn an_empty_document_is_a_policy_and_no_document_is_none() {
    let home = Home::new();
    let empty = read(&home.policy(), Naming::Path).unwrap_err();
    assert!(empty.is_absence(), "{empty}");
    home.write(".hidden.toml", "");
    assert!(
        home.error().contains("holds no .toml file"),
        "{}",
        home.error()
    );
    home.write("empty.toml", "");
    assert_eq!(home.names(Naming::File), ["empty.toml"]);
    fs::remove_dir_all(home.policy()).unwrap();
    let missing = read(&home.policy(), Naming::Path).unwrap_err();
    assert!(missing.is_absence(), "{missing}");
    assert!(missing.to_string().contains("does not exist"), "{missing}");
}

#[test]
fn nothing_is_left_out_silently() {
    let home = Home::new();
    home.write("a.toml", "");
    let bad = home.policy().join("bad.toml");
    fs::create_dir(&bad).unwrap();
    assert!(
        home.error().contains("bad.toml: it is not a regular file"),
        "{}",
        home.error()
    );
    fs::remove_dir(&bad).unwrap();
    fs::write(&bad, [0xff]).unwrap();
    assert!(
        home.error().contains("bad.toml: it is not UTF-8"),
        "{}",
        home.error()
    );
    fs::remove_file(&bad).unwrap();
    symlink("nowhere", &bad).unwrap();
    let dangling = read(&home.policy(), Naming::Path).unwrap_err();
    assert!(
        matches!(dangling, ReadError::Unreadable { .. }),
        "{dangling}"
    );
    assert!(
        !dangling.is_absence() && dangling.to_string().contains("bad.toml"),
        "{dangling}"
    );
    fs::remove_file(&bad).unwrap();
    for name in [&b"e\n.toml"[..], b"\xff.toml"] {
        let path = home.policy().join(OsStr::from_bytes(name));
        fs::write(&path, "").unwrap();
        assert!(home.error().contains("printable"), "{}", home.error());
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(home.names(Naming::File), ["a.toml"]);
}

/// Asks until the watch has told of a state in which `holds`; the poll would take longer.
async fn noticed(watch: &mut Watch, holds: impl Fn() -> bool) {
    let told = async {
        loop {
            watch.changed().await;
            if holds() {
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), told).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_replaced_by_rename_is_noticed_and_watched() {
    let home = Home::new();
    home.write("a.toml", "old");
    let mut watch = Watch::new(&home.policy()).unwrap();
    fs::create_dir(home.path("new")).unwrap();
    fs::write(home.path("new/b.toml"), "new").unwrap();
    fs::rename(home.policy(), home.path("old")).unwrap();
    fs::rename(home.path("new"), home.policy()).unwrap();
    noticed(&mut watch, || home.policy().join("b.toml").exists()).await;
    home.write("c.toml", "later");
    noticed(&mut watch, || {
        home.names(Naming::File) == ["b.toml", "c.toml"]
    })
    .await;
}

#[tokio::test]
async fn a_symbolic_link_that_leads_elsewhere_is_noticed() {
    let home = Home::new();
    home.write("a.toml", "1");
    fs::create_dir(home.path("2")).unwrap();
    fs::write(home.path("2/b.toml"), "2").unwrap();
    let link = home.path("current");
    symlink(home.policy(), &link).unwrap();
    let mut watch = Watch::new(&link).unwrap();
    symlink(home.path("2"), home.path("next")).unwrap();
    fs::rename(home.path("next"), &link).unwrap();
    noticed(&mut watch, || link.join("b.toml").exists()).await;
    fs::write(home.path("2/c.toml"), "").unwrap();
    noticed(&mut watch, || read(&link, Naming::File).unwrap().len() == 2).await;
}

#[tokio::test]
async fn a_directory_that_comes_later_is_noticed() {
    let home = Home::new();
    fs::remove_dir(home.policy()).unwrap();
    let mut watch = Watch::new(&home.policy()).unwrap();
    fs::create_dir(home.policy()).unwrap();
    home.write("a.toml", "");
    noticed(&mut watch, || read(&home.policy(), Naming::File).is_ok()).await;
}

#[tokio::test]
async fn a_change_survives_that_nobody_waited_long_enough() {
    let home = Home::new();
    home.write("a.toml", "");
    let mut watch = Watch::new(&home.policy()).unwrap();
    home.write("b.toml", "");
    let told = async {
        // Much shorter than the end of a burst: its events are long taken from the kernel by then.
        while timeout(Duration::from_millis(5), watch.changed())
            .await
            .is_err()
        {}
    };
    timeout(Duration::from_secs(20), told).await.unwrap();
}
