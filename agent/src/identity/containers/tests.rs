//! Which cgroups are asked about, how often, and what an answer changes.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    Container, ContainerAnswer, ContainerFacts, ContainerQuestion, Containers, FIRST_RETRY,
    RECHECK, SETTLE, container_of,
};

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn facts(name: &str) -> ContainerFacts {
    [("container.name".to_owned(), name.to_owned())].into()
}

#[test]
fn the_topmost_name_with_64_hexadecimal_digits_is_the_container() {
    let (a, b) = (id('a'), id('b'));
    for (path, expected) in [
        (
            format!("/libpod_parent/libpod-{a}"),
            Some(format!("/libpod_parent/libpod-{a}")),
        ),
        (
            format!("/x.slice/docker-{a}.scope/init"),
            Some(format!("/x.slice/docker-{a}.scope")),
        ),
        (
            format!("/kubepods/pod1/{a}/{b}"),
            Some(format!("/kubepods/pod1/{a}")),
        ),
        (
            format!("/cri-containerd-{a}.scope"),
            Some(format!("/cri-containerd-{a}.scope")),
        ),
        (format!("/x{a}"), None),
        (format!("/{a}0"), None),
        (format!("/{}", a.to_uppercase()), None),
        (format!("/{}", &a[1..]), None),
        ("/".to_owned(), None),
    ] {
        let found = container_of(Path::new(&path)).map(|(prefix, _)| prefix.to_owned());
        assert_eq!(found, expected.map(Into::into), "{path}");
    }
}

#[test]
fn a_container_is_asked_about_until_the_runtime_has_said_and_then_no_more() {
    let mut containers = Containers::default();
    let (path, start) = (format!("/libpod-{}", id('a')), Instant::now());
    let (path, inner) = (Path::new(&path), Path::new(&path).join("x/y"));
    assert_eq!(containers.of(path), Container::Asked, "not seen yet");
    containers.appeared(7, path, true, start);
    assert_eq!(containers.next_due(), Some(start));
    let question = ContainerQuestion {
        cgroup: 7,
        id: id('a'),
    };
    assert_eq!(containers.due(start, 9), [question]);
    assert_eq!(containers.next_due(), None, "until it is answered");
    for (answer, next) in [
        (ContainerAnswer::NotNow, FIRST_RETRY),
        // Too early to be believed.
        (ContainerAnswer::IsNot, FIRST_RETRY * 2),
        (ContainerAnswer::NotNow, FIRST_RETRY * 4),
    ] {
        assert_eq!(containers.answered(7, answer, start), None);
        assert_eq!(containers.of(&inner), Container::Asked);
        assert_eq!(containers.next_due(), Some(start + next));
        assert_eq!(containers.due(start + next, 9).len(), 1);
    }
    let changed = containers.answered(7, ContainerAnswer::Is(facts("web")), start);
    assert_eq!(changed.as_deref(), Some(path));
    assert_eq!(containers.of(&inner), Container::Is(&facts("web")));
    assert_eq!(containers.next_due(), None);
    containers.gone(7);
    assert_eq!(containers.of(&inner), Container::Asked);
    assert_eq!(containers.answered(7, ContainerAnswer::IsNot, start), None);
}

#[test]
fn what_no_runtime_knows_is_an_ordinary_cgroup_after_a_while_and_asked_about_now_and_then() {
    let mut containers = Containers::default();
    let (path, start) = (format!("/{}", id('0')), Instant::now());
    let path = Path::new(&path);
    containers.appeared(7, path, true, start);
    let _ = containers.due(start, 9);
    let later = start + SETTLE;
    let changed = containers.answered(7, ContainerAnswer::IsNot, later);
    assert_eq!(changed.as_deref(), Some(path));
    assert_eq!(containers.of(path), Container::No);
    assert_eq!(containers.next_due(), Some(later + RECHECK));
    assert_eq!(containers.due(later + RECHECK, 9).len(), 1);
    // A runtime that does not answer makes no container of it.
    assert_eq!(
        containers.answered(7, ContainerAnswer::NotNow, later + RECHECK),
        None
    );
    assert_eq!(containers.of(path), Container::No);
    let changed = containers.answered(7, ContainerAnswer::Is(facts("web")), later + RECHECK);
    assert_eq!(changed.as_deref(), Some(path));
}

#[test]
fn what_a_user_may_have_created_is_never_asked_about() {
    let mut containers = Containers::default();
    let path = format!("/user/{}", id('a'));
    containers.appeared(7, Path::new(&path), false, Instant::now());
    assert_eq!(containers.next_due(), None);
    assert_eq!(containers.of(Path::new(&path)), Container::No);
}

#[test]
fn what_was_said_is_kept_over_a_restart_for_the_same_cgroup_only() {
    let mut containers = Containers::default();
    let now = Instant::now();
    let (a, b) = (format!("/{}", id('a')), format!("/{}", id('b')));
    containers.remember(BTreeMap::from([(7, facts("web"))]));
    containers.appeared(7, Path::new(&a), true, now);
    containers.appeared(8, Path::new(&b), true, now);
    assert_eq!(containers.of(Path::new(&a)), Container::Is(&facts("web")));
    assert_eq!(containers.of(Path::new(&b)), Container::Asked);
    assert_eq!(containers.facts(), BTreeMap::from([(7, facts("web"))]));
    assert_eq!(containers.waiting().collect::<Vec<_>>(), [Path::new(&b)]);
    // The cgroup of the same container after it was started anew.
    containers.gone(7);
    containers.appeared(9, Path::new(&a), true, now);
    assert_eq!(containers.of(Path::new(&a)), Container::Asked);
    containers.retain(|cgroup| cgroup == 9);
    assert_eq!(containers.due(now + Duration::from_secs(1), 9).len(), 1);
}
