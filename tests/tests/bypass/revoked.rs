//! Flows that were allowed: no way of writing gets a byte through once they no longer are.

use ringfence_tests::{scene, scene::with_io_uring};

use crate::{
    attempt::{Attempt, attempt},
    ground::{Ground, closed_rogue, rules},
};

const ALL: (&str, &str) = ("egress", "");

/// A connection over which `api` has answered while it was allowed. The write itself may still be taken.
fn stream(what: &str, step: &str) -> Attempt {
    let script = format!(
        "open 2 1 0 10; option 10 1 60 01000000; connect 10 127.0.0.1:8080; exchange 10; then; \
         {step}; receive 10"
    );
    let verb = step.split(' ').next().unwrap();
    let verb = if verb == "uring" { "send" } else { verb };
    // Both ends are cut: whichever comes first.
    let ends = [
        &format!("{verb} ECONNABORTED"),
        &format!("{verb} ECONNRESET"),
        &format!("{verb} EPIPE"),
        "receive ECONNABORTED",
        "receive ECONNRESET",
    ]
    .join("|");
    let record = "deny egress tcp rogue -> api 127.0.0.1:8080 deny default-deny revoked by ";
    attempt(what, &script, &ends, record)
}

#[test]
fn no_way_of_writing_reaches_the_other_end_of_a_revoked_flow() {
    scene("writers", |sandbox| {
        let attempts = [
            stream("send", "send 10"),
            stream("sendfile", "sendfile 10"),
            stream("splice", "splice 10"),
            stream("MSG_ZEROCOPY", "message 10 - 67108864"),
            attempt(
                "connected UDP",
                "open 2 2 0 10; connect 10 127.0.0.1:5300; exchange 10; then; send 10; receive 10",
                "send EPERM",
                "deny egress udp rogue -> dns 127.0.0.1:5300 deny default-deny revoked by ",
            ),
        ];
        let ground = Ground::new(sandbox);
        ground.play_across(Some(&rules(&[ALL])), &closed_rogue(), &attempts);
    });
}

#[test]
fn no_way_of_submitting_reaches_the_other_end_of_a_revoked_flow() {
    with_io_uring("submitters", |sandbox| {
        let attempts = [
            stream("io_uring", "uring plain send 10"),
            stream("io_uring, polled", "uring polled send 10"),
        ];
        let ground = Ground::new(sandbox);
        ground.play_across(Some(&rules(&[ALL])), &closed_rogue(), &attempts);
    });
}

/// The receiver drops what comes until the policy has changed, so that the kernel goes on sending it.
#[test]
fn what_was_left_to_the_kernel_to_send_is_sent_no_more() {
    scene("left-behind", |sandbox| {
        let script = "b open 2 1 0 11; b bind 11 127.0.0.1:7040; b listen 11; open 2 1 0 10; \
             connect 10 127.0.0.1:7040; b accept 11 12; b deaf 12; send 10; close 10; then; \
             b hear 12; run sleep 3; b receive 12";
        let attempts = [attempt(
            "data of a socket that was closed",
            script,
            "receive timeout|receive ECONNABORTED|receive ECONNRESET",
            "deny egress tcp rogue -> api 127.0.0.1:7040 deny default-deny revoked by ",
        )
        .with("api")];
        let ground = Ground::new(sandbox);
        ground.play_across(Some(&rules(&[ALL])), &closed_rogue(), &attempts);
    });
}
