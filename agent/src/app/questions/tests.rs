//! Turns, bounds and doubles.

use super::*;

const FLOOD: Asker = Asker::User(1000);

fn question(tgid: u32) -> Question {
    Question {
        key: ExecutableKey {
            inode: u64::from(tgid),
            ..ExecutableKey::default()
        },
        tgid,
        cgroup: 1,
        class: 0,
    }
}

fn drain(questions: &mut Questions) -> Vec<u32> {
    std::iter::from_fn(|| questions.next())
        .map(|question| question.tgid)
        .collect()
}

#[test]
fn who_asks_much_waits_for_himself_alone() {
    let mut questions = Questions::default();
    let mut dropped = 0;
    for tgid in 1..100_000 {
        dropped += usize::from(
            questions
                .ask(question(tgid), Urgency::Held, FLOOD)
                .is_some(),
        );
    }
    assert_eq!(dropped, 99_999 - MOST);
    for (tgid, asker) in [
        (200_001, Asker::Root(7)),
        (200_002, Asker::Root(8)),
        (200_003, Asker::User(1001)),
    ] {
        let dropped = questions.ask(question(tgid), Urgency::Held, asker);
        assert_eq!(dropped, Some(Urgency::Held), "one of the flood makes room");
    }
    let order = drain(&mut questions);
    assert_eq!(order.len(), MOST);
    for tgid in [200_001, 200_002, 200_003] {
        let place = order.iter().position(|it| *it == tgid);
        assert!(
            place.is_some_and(|place| place < 4),
            "{tgid} is at {place:?}"
        );
    }
    assert!(questions.is_empty());
    assert!(questions.held.by_asker.is_empty() && questions.held.lengths.is_empty());
}

#[test]
fn what_is_held_goes_before_hints_and_hints_are_dropped_first() {
    let mut questions = Questions::default();
    for tgid in 1..=3 {
        let _none = questions.ask(question(tgid), Urgency::Hint, Asker::User(1001));
    }
    let most = u32::try_from(MOST).unwrap_or(0);
    for tgid in 11..11 + most {
        let dropped = questions.ask(question(tgid), Urgency::Held, FLOOD);
        let full = tgid > 10 + most - 3;
        assert_eq!(dropped, full.then_some(Urgency::Hint), "{tgid}");
    }
    let dropped = questions.ask(question(5), Urgency::Held, Asker::Root(1));
    assert_eq!(dropped, Some(Urgency::Held));
    let hint = questions.ask(question(6), Urgency::Hint, Asker::Root(2));
    assert_eq!(hint, Some(Urgency::Hint), "there is no room for a hint");
    let order = drain(&mut questions);
    assert_eq!((order.len(), questions.places.len()), (MOST, 0));
}

#[test]
fn a_process_is_asked_about_once_and_as_soon_as_it_waits_it_is_urgent() {
    let mut questions = Questions::default();
    let asker = Asker::Root(1);
    let mut ask = |tgid, urgency| {
        assert_eq!(questions.ask(question(tgid), urgency, asker), None);
    };
    for tgid in [1, 2, 1, 3] {
        ask(tgid, Urgency::Hint);
    }
    ask(3, Urgency::Held);
    // Neither becomes a hint again nor loses its place.
    ask(4, Urgency::Held);
    ask(3, Urgency::Hint);
    ask(3, Urgency::Held);
    let moved = Question {
        cgroup: 9,
        ..question(4)
    };
    assert_eq!(questions.ask(moved, Urgency::Held, asker), None);
    assert_eq!(questions.next(), Some(question(3)));
    assert_eq!(questions.next(), Some(moved), "as the kernel last saw it");
    assert_eq!(drain(&mut questions), [1, 2]);
    assert!(questions.hints.lengths.is_empty());
}

#[test]
fn users_and_cgroups_of_root_ask_apart_and_a_user_with_all_of_his_ids_at_once() {
    let subordinates = Subordinates::parse("1000:100000:65536\n");
    let of = |uid, cgroup| {
        let owner = Owner {
            uid,
            cgroup,
            ..Owner::default()
        };
        Asker::of(&owner, &subordinates)
    };
    assert_eq!(of(0, 7), Asker::Root(7));
    assert_ne!(of(0, 7), of(0, 8), "cgroups of root");
    assert_ne!(of(1000, 7), of(1001, 7), "users of one cgroup");
    assert_ne!(of(1000, 7), of(0, 7), "a user and root");
    // Neither by many cgroups nor by ids that are his has a user more turns.
    for (uid, cgroup) in [(1000, 7), (1000, 8), (100_000, 9), (165_535, 7)] {
        assert_eq!(of(uid, cgroup), Asker::User(1000), "{uid} in {cgroup}");
    }
}
