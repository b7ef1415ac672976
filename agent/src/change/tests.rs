//! A change on trial: kept, confirmed, rolled back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{
    install::InstallError,
    journal::{Fate, Journal},
    *,
};

fn of(pairs: &[(&str, &str)]) -> Files {
    let pair = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    pairs.iter().map(pair).collect()
}

#[test]
fn documents_stand_beside_those_that_are_not_named_unless_they_are_all() {
    let before = of(&[("a.toml", "1"), ("b.toml", "2")]);
    let wanted = |prune| Wanted {
        files: of(&[("b.toml", "3"), ("c.toml", "4")]),
        prune,
    };
    let both = wanted(false).beside(&before);
    assert_eq!(
        both,
        of(&[("a.toml", "1"), ("b.toml", "3"), ("c.toml", "4")])
    );
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        difference(&before, &both),
        (names(&["b.toml", "c.toml"]), names(&[]))
    );
    let alone = wanted(true).beside(&before);
    assert_eq!(
        difference(&before, &alone),
        (names(&["b.toml", "c.toml"]), names(&["a.toml"]))
    );
    let directory = Path::new("/etc/policy.d");
    assert_eq!(files(&documents(directory, &both)), both);
}

#[test]
fn a_trial_lasts_until_its_time_of_its_own_boot_whatever_the_wall_clock_says() {
    let mut journal = Journal::new(of(&[]), of(&[("a.toml", "")]), 7, 1000);
    let boot = journal::boot_id();
    assert!(!boot.is_empty());
    // Nothing else than these two is looked at: no wall clock.
    assert_eq!(journal.fate(&boot, 999), Fate::Resume);
    assert_eq!(journal.fate(&boot, 1000), Fate::Expired);
    assert_eq!(journal.fate("other", 1), Fate::OtherBoot);
    assert_eq!(journal.fate("", 1), Fate::OtherBoot);
    journal.confirmed = true;
    assert_eq!(journal.fate("other", 5000), Fate::Install);
    let pending = journal.pending();
    assert_eq!((pending.uid, pending.until_ns), (7, 1000));
    assert_eq!(pending.seconds_left(999), 1);
    assert_eq!(pending.seconds_left(1001), 0);
}

#[test]
fn a_journal_is_whole_or_not_believed() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(journal::load(state.path()).unwrap(), None);
    let kept = Journal::new(of(&[("a.toml", "x")]), of(&[("a.toml", "ü\n")]), 0, 9);
    kept.save(state.path()).unwrap();
    assert_eq!(journal::load(state.path()).unwrap(), Some(kept));
    let path = state.path().join("policy-change.journal");
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, whole.split_last().unwrap().1).unwrap();
    let error = journal::load(state.path()).unwrap_err().to_string();
    assert!(
        error.contains("policy-change.journal") && error.contains("rolled back"),
        "{error}"
    );
    journal::remove(state.path()).unwrap();
    journal::remove(state.path()).unwrap();
    assert_eq!(journal::load(state.path()).unwrap(), None);
    // A name must not lead out of the directory.
    for name in ["../evil.toml", "a/b.toml", ""] {
        Journal::new(of(&[]), of(&[(name, "")]), 0, 9)
            .save(state.path())
            .unwrap();
        assert!(journal::load(state.path()).is_err(), "{name:?}");
    }
}

#[test]
fn a_change_is_written_whole_and_again_without_harm() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
    write("a.toml", "old");
    write("gone.toml", "old");
    write("README", "no document");
    fs::set_permissions(
        home.path().join("a.toml"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let before = install::held(home.path()).unwrap();
    assert_eq!(before, of(&[("a.toml", "old"), ("gone.toml", "old")]));
    let after = of(&[("a.toml", "new"), ("b.toml", "")]);
    install::check(home.path()).unwrap();
    install::unchanged(home.path(), &before, &after).unwrap();
    for _ in 0..2 {
        install::install(home.path(), &before, &after).unwrap();
        assert_eq!(install::held(home.path()).unwrap(), after);
    }
    let mode = |name| {
        fs::metadata(home.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("a.toml"), mode("b.toml")), (0o640, 0o644));
    let mut names: Vec<_> = fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["README", "a.toml", "b.toml"]);
}

#[test]
fn what_somebody_else_has_changed_is_not_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
    let before = of(&[("a.toml", "1"), ("b.toml", "2")]);
    let after = of(&[("a.toml", "3"), ("b.toml", "2")]);
    write("a.toml", "1");
    // What the change leaves alone may change.
    write("b.toml", "other");
    install::unchanged(home.path(), &before, &after).unwrap();
    write("a.toml", "other");
    let error = install::unchanged(home.path(), &before, &after).unwrap_err();
    assert!(matches!(error, InstallError::Changed { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("a.toml") && !text.contains("b.toml"),
        "{text}"
    );
    let missing = home.path().join("missing");
    let error = install::check(&missing).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
}

#[test]
fn a_change_that_can_not_be_written_whole_is_not_written_at_all() {
    let before = of(&[("a.toml", "1"), ("c.toml", "2"), ("d.toml", "3")]);
    let in_the_way = |name: &str| {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in &before {
            fs::write(home.path().join(name), text).unwrap();
        }
        fs::create_dir_all(home.path().join(name).join("x")).unwrap();
        home
    };
    let cases = [
        // The second can't be written.
        (
            ".c.toml.ringfence",
            of(&[("a.toml", "4"), ("c.toml", "6"), ("d.toml", "3")]),
        ),
        // All is written, and of what goes the second can't.
        (".d.toml.ringfence", of(&[("a.toml", "4"), ("e.toml", "")])),
    ];
    for (name, after) in cases {
        let home = in_the_way(name);
        let error = install::install(home.path(), &before, &after).unwrap_err();
        assert!(
            matches!(error, InstallError::File { .. }),
            "{name}: {error}"
        );
        for (document, text) in &before {
            let found = fs::read_to_string(home.path().join(document)).unwrap();
            assert_eq!(&found, text, "{name}: {document}");
        }
        assert!(!home.path().join("e.toml").exists(), "{name}");
        fs::remove_dir_all(home.path().join(name)).unwrap();
        install::install(home.path(), &before, &after).unwrap();
        assert_eq!(install::held(home.path()).unwrap(), after, "{name}");
        let names = fs::read_dir(home.path()).unwrap();
        assert_eq!(names.count(), after.len(), "{name}: hidden files stay");
    }
}

/// A directory, a change of two files and a removal, and what the directory holds.
fn changing() -> (tempfile::TempDir, Files, Files) {
    let home = tempfile::tempdir().unwrap();
    let before = of(&[
        ("a.toml", "1"),
        ("b.toml", "2"),
        ("gone.toml", "3"),
        ("other.toml", "4"),
    ]);
    let after = of(&[
        ("a.toml", "new"),
        ("b.toml", "2"),
        ("c.toml", "new"),
        ("other.toml", "4"),
    ]);
    for (name, text) in &before {
        fs::write(home.path().join(name), text).unwrap();
    }
    (home, before, after)
}

#[test]
fn what_somebody_else_wrote_is_not_written_over() {
    for (name, text) in [
        ("a.toml", Some("mine")),
        ("c.toml", Some("mine")),
        ("gone.toml", Some("mine")),
        ("a.toml", None),
    ] {
        let (home, before, after) = changing();
        let path = home.path().join(name);
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let found = install::held(home.path()).unwrap();
        let error = install::finish(home.path(), &before, &after).unwrap_err();
        assert!(
            matches!(&error, InstallError::Overtaken { names, .. } if names == &[name]),
            "{error}"
        );
        assert!(
            error.to_string().contains(name) && error.to_string().contains("policy apply"),
            "{error}"
        );
        assert_eq!(install::held(home.path()).unwrap(), found);
        install::put_back(home.path(), &before, &after).unwrap();
        assert_eq!(
            install::held(home.path()).unwrap(),
            found,
            "nothing of the change is there"
        );
    }
}

#[test]
fn a_change_is_finished_from_wherever_it_was_left_and_beside_other_changes() {
    for half in [&[][..], &["a.toml"], &["a.toml", "c.toml"]] {
        let (home, before, mut after) = changing();
        for name in half {
            fs::write(home.path().join(name), "new").unwrap();
        }
        // No file of the change.
        fs::write(home.path().join("other.toml"), "mine").unwrap();
        install::finish(home.path(), &before, &after).unwrap();
        let _ = after.insert("other.toml".to_owned(), "mine".to_owned());
        assert_eq!(install::held(home.path()).unwrap(), after, "{half:?}");
        install::finish(home.path(), &before, &after).unwrap();
    }
}

#[test]
fn half_a_change_beside_what_somebody_else_wrote_is_put_back_by_command_only() {
    let (home, mut before, after) = changing();
    fs::write(home.path().join("a.toml"), "new").unwrap();
    fs::remove_file(home.path().join("gone.toml")).unwrap();
    fs::write(home.path().join("c.toml"), "mine").unwrap();
    let found = install::held(home.path()).unwrap();
    let error = install::finish(home.path(), &before, &after).unwrap_err();
    assert!(matches!(&error, InstallError::Mixed { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("c.toml was changed") && text.contains("a.toml, gone.toml"),
        "{text}"
    );
    assert_eq!(install::held(home.path()).unwrap(), found);
    install::put_back(home.path(), &before, &after).unwrap();
    let _ = before.insert("c.toml".to_owned(), "mine".to_owned());
    assert_eq!(install::held(home.path()).unwrap(), before);
}

#[test]
fn a_directory_that_is_away_is_nobodys_change() {
    let (home, before, after) = changing();
    let away = home.path().join("away");
    for step in [install::finish, install::put_back] {
        let error = step(&away, &before, &after).unwrap_err();
        assert!(matches!(error, InstallError::Directory { .. }), "{error}");
    }
}
