//! What makes a storm a failure.

use nix::libc::ECONNREFUSED;

use super::*;

/// Of so many processes, each with the error that `error` says.
fn report(number: usize, error: impl Fn(usize) -> i32) -> Report {
    let answer = |index| Answer {
        index,
        micros: 100,
        error: error(index),
    };
    Report {
        answers: (0..number).map(answer).collect(),
        expected: number,
        asked_rate: 1_000,
        took: Duration::from_secs(1),
        pending: 1,
        usage: Usage {
            ticks: 0,
            resident_kib: 0,
            most_kib: 0,
        },
        lost: 0,
        flows: 0,
    }
}

const fn right(index: usize) -> i32 {
    if is_good(index) { 0 } else { EPERM }
}

/// Good ones with a number below `refused` are refused after they were held.
fn refused(refused: usize) -> Report {
    report(2_000, |index| match right(index) {
        0 if index / 2 < refused => ECONNABORTED,
        error => error,
    })
}

#[test]
fn a_storm_is_a_success_where_all_verdicts_are_right_and_some_calls_were_held() {
    assert_eq!(report(2_000, right).faults(), [""; 0]);
    assert_eq!(refused(10).faults(), [""; 0]);
    let text = refused(10).to_string();
    assert!(
        text.contains("good ones refused: 10, at most 10 may be"),
        "{text}"
    );
}

#[test]
fn a_storm_that_proves_nothing_is_a_failure() {
    let nobody = report(0, right).faults();
    assert!(nobody.contains(&"no process has called".to_owned()));
    let silent = Report {
        expected: 2_001,
        ..report(2_000, right)
    };
    assert_eq!(silent.faults(), ["1 wrong verdicts"]);
    let unheld = Report {
        pending: 0,
        ..report(2_000, right)
    };
    assert!(
        matches!(unheld.faults().as_slice(), [one] if one.starts_with("nothing was held")),
        "{:?}",
        unheld.faults()
    );
    let all = refused(1_000).faults();
    assert_eq!(
        all,
        [
            "none of those that may has passed",
            "1000 good ones refused, more than 10"
        ]
    );
    assert_eq!(refused(11).faults(), ["11 good ones refused, more than 10"]);
}

#[test]
fn a_wrong_verdict_is_a_failure_in_either_direction() {
    for (index, error) in [(1, 0), (1, ECONNREFUSED), (0, EPERM)] {
        let one = |it| if it == index { error } else { right(it) };
        assert_eq!(report(2_000, one).faults(), ["1 wrong verdicts"], "{error}");
    }
}
