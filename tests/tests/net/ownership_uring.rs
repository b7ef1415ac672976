//! Who owns a socket that is used by way of `io_uring`: who submits, or whose the polling thread is.

use ringfence_tests::scene::with_io_uring;

use crate::{
    ownership::{POLLER, Row, play, row},
    ownership_kept,
    ownership_stage::{By, Stage},
};

const CGROUP: &[Row] = &[
    row(
        "io_uring",
        "a socket tcp 10; a uring plain connect 10 {tcp}",
        'a',
        'a',
    ),
    row(
        "io_uring after a move",
        "a socket tcp 10; a cgroup {b}; a uring plain connect 10 {tcp}",
        'b',
        'a',
    ),
    row(
        "io_uring, polled",
        "a socket tcp 10; a uring polled connect 10 {tcp}",
        'a',
        POLLER,
    ),
    row(
        "io_uring, polled after a move",
        "a socket tcp 10; a cgroup {b}; a uring polled connect 10 {tcp}",
        'b',
        POLLER,
    ),
];

const EXECUTABLE: &[Row] = &[
    row(
        "io_uring",
        "a socket tcp 10; a exec {b.exe}; a uring plain connect 10 {tcp}",
        'b',
        'b',
    ),
    row(
        "io_uring, polled",
        "a socket tcp 10; a exec {b.exe}; a uring polled connect 10 {tcp}",
        'b',
        POLLER,
    ),
];

const USER: &[Row] = &[
    row(
        "io_uring",
        "a uid {a.uid}; a socket tcp 10; a uid {b.uid}; a uring plain connect 10 {tcp}",
        'b',
        'a',
    ),
    row(
        "io_uring, polled",
        "a uid {a.uid}; a socket tcp 10; a uid {b.uid}; a uring polled connect 10 {tcp}",
        'b',
        POLLER,
    ),
];

const GROUP: &[Row] = &[
    row(
        "io_uring",
        "a groups {a.gid}; a socket tcp 10; a groups {b.gid}; a uring plain connect 10 {tcp}",
        'b',
        'a',
    ),
    row(
        "io_uring, polled",
        "a groups {a.gid}; a socket tcp 10; a groups {b.gid}; a uring polled connect 10 {tcp}",
        'b',
        POLLER,
    ),
];

const KEPT: &[ownership_kept::Row] = &[
    ownership_kept::row(
        "io_uring after a move",
        "a socket tcp 10; a connect 10 {tcp}; a cgroup {b}; a uring plain send 10; a receive 10; a exchange 10",
    ),
    ownership_kept::row(
        "io_uring, polled after a move",
        "a socket tcp 10; a connect 10 {tcp}; a cgroup {b}; a uring polled send 10; a receive 10; a exchange 10",
    ),
];

#[test]
fn who_submits_owns_the_socket_by_cgroup() {
    with_io_uring("uring-cgroup", |sandbox| {
        play(&Stage::new(sandbox, By::Cgroup), CGROUP);
    });
}

#[test]
fn who_submits_owns_the_socket_by_executable() {
    with_io_uring("uring-exe", |sandbox| {
        play(&Stage::new(sandbox, By::Executable), EXECUTABLE);
    });
}

#[test]
fn who_submits_owns_the_socket_by_user() {
    with_io_uring("uring-user", |sandbox| {
        play(&Stage::new(sandbox, By::User), USER);
    });
}

#[test]
fn who_submits_owns_the_socket_by_group() {
    with_io_uring("uring-group", |sandbox| {
        play(&Stage::new(sandbox, By::Group), GROUP);
    });
}

#[test]
fn a_connection_is_whoever_opened_its_whoever_submits() {
    with_io_uring("uring-kept", |sandbox| {
        ownership_kept::play(&Stage::new(sandbox, By::Cgroup), KEPT);
    });
}
