//! Turns, bounds and doubles.

use super::*;

const FLOOD: Asker = Asker::User(1000);

fn question(tgid: u32, asker: Asker) -> Question {
    Question {
        key: ExecutableKey {
            inode: u64::from(tgid),
            ..ExecutableKey::default()
        },
        tgid,
        cgroup: 1,
        class: 0,
        asker,
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
                .ask(question(tgid, FLOOD), Urgency::Held)
                .is_some(),
        );
    }
    assert_eq!(dropped, 99_999 - MOST);
    for (tgid, asker) in [
        (200_001, Asker::Root(7)),
        (200_002, Asker::Root(8)),
        (200_003, Asker::User(1001)),
    ] {
        let dropped = questions.ask(question(tgid, asker), Urgency::Held);
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
        let _none = questions.ask(question(tgid, Asker::User(1001)), Urgency::Hint);
    }
    let most = u32::try_from(MOST).unwrap_or(0);
    for tgid in 11..11 + most {
        let dropped = questions.ask(question(tgid, FLOOD), Urgency::Held);
        let full = tgid > 10 + most - 3;
        assert_eq!(dropped, full.then_some(Urgency::Hint), "{tgid}");
    }
    let dropped = questions.ask(question(5, Asker::Root(1)), Urgency::Held);
    assert_eq!(dropped, Some(Urgency::Held));
    let hint = questions.ask(question(6, Asker::Root(2)), Urgency::Hint);
    assert_eq!(hint, Some(Urgency::Hint), "there is no room for a hint");
    let order = drain(&mut questions);
    assert_eq!((order.len(), questions.places.len()), (MOST, 0));
}

#[test]
fn a_process_is_asked_about_once_and_as_soon_as_it_waits_it_is_urgent() {
    let mut questions = Questions::default();
    let asker = Asker::Root(1);
    let mut ask = |tgid, urgency| {
        assert_eq!(questions.ask(question(tgid, asker), urgency), None);
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
        ..question(4, asker)
    };
    assert_eq!(questions.ask(moved, Urgency::Held), None);
    assert_eq!(questions.next(), Some(question(3, asker)));
    assert_eq!(questions.next(), Some(moved), "as the kernel last saw it");
    assert_eq!(drain(&mut questions), [1, 2]);
    assert!(questions.hints.lengths.is_empty());
}
