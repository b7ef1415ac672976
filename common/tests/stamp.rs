//! The stamp on the expiry of a decision: what is believed while several programs write.

use ringfence_common::{
    abi::{Decision, Verdict, socket::PEER_VERIFIED},
    logic::stamp::{about, allows, stamped},
};

const SECOND: u64 = 1_000_000_000;
/// What a stamp costs at most, nanoseconds.
const STAMP: u64 = 0xffff;

/// A decision as one writer stores it.
fn stored(until: u64, generation: u32, peer: u32, direction: u8, allowed: bool) -> Decision {
    let mut decision = Decision {
        generation,
        peer,
        direction,
        flags: PEER_VERIFIED,
        verdict: if allowed {
            Verdict::Allow
        } else {
            Verdict::Deny
        } as u8,
        ..Decision::default()
    };
    decision.until = stamped(until, generation, about(&decision), allowed);
    decision
}

/// Whether who reads expiry, peer and verdict of three stores believes an allow.
fn believes(until: &Decision, whom: &Decision, verdict: &Decision, now: u64) -> bool {
    verdict.verdict == Verdict::Allow as u8
        && allows(until.until, verdict.generation, about(whom), now)
}

#[test]
fn no_mixture_of_decisions_is_an_allow_that_nobody_decided() {
    let mut all = Vec::new();
    for until in [0, SECOND, 2 * SECOND, u64::MAX] {
        for generation in [7, 8] {
            for (peer, direction) in [(256, 1), (257, 1), (257, 2)] {
                for allowed in [true, false] {
                    all.push(stored(until, generation, peer, direction, allowed));
                }
            }
        }
    }
    let mut believed = 0;
    for until in &all {
        for whom in &all {
            for verdict in &all {
                for now in [0, SECOND + SECOND / 2, 3 * SECOND] {
                    if !believes(until, whom, verdict, now) {
                        continue;
                    }
                    believed += 1;
                    let decided = until.verdict == Verdict::Allow as u8
                        && until.generation == verdict.generation
                        && (until.peer, until.direction) == (whom.peer, whom.direction)
                        && now < until.until;
                    assert!(decided, "{until:?} {whom:?} {verdict:?} {now}");
                }
            }
        }
    }
    assert!(believed > 0);
}

#[test]
fn peers_that_stand_near_each_other_have_stamps_of_their_own() {
    let expiries = (256..4352).map(|peer| stored(u64::MAX, 1, peer, 1, true).until & STAMP);
    let distinct = expiries.collect::<std::collections::BTreeSet<_>>().len();
    assert!(distinct > 4000, "{distinct} stamps of 4096 peers");
}

#[test]
fn a_deny_is_never_taken_for_an_allow() {
    for peer in [0, 1, 256, 257, 0x00ff_ffff, u32::MAX] {
        for other in 0..0x1_0000 {
            let denied = stored(u64::MAX, 5, peer, 1, false);
            let whom = stored(u64::MAX, 5, other, 1, true);
            assert!(!believes(&denied, &whom, &whom, 0), "{peer} {other}");
        }
    }
}

#[test]
fn flags_that_are_set_later_change_no_stamp() {
    let mut decision = stored(u64::MAX, 3, 256, 2, true);
    decision.flags |= !PEER_VERIFIED;
    assert!(believes(&decision, &decision, &decision, 0));
    decision.flags &= !PEER_VERIFIED;
    assert!(!believes(&decision, &decision, &decision, 0));
}

#[test]
fn an_expiry_is_kept_but_for_its_stamp() {
    for generation in [0, 1, 0x7fff, 0xffff, 0x1_0000, u32::MAX] {
        let decided = stored(5 * SECOND, generation, 256, 1, true);
        let allowed = |until, generation, now| allows(until, generation, about(&decided), now);
        assert!(decided.until.abs_diff(5 * SECOND) <= STAMP);
        assert!(allowed(decided.until, generation, 4 * SECOND));
        assert!(!allowed(decided.until, generation, 6 * SECOND));
        assert!(!allowed(
            decided.until,
            generation.wrapping_add(1),
            4 * SECOND
        ));
        let without_end = stored(u64::MAX, generation, 256, 1, true).until;
        assert!(allowed(without_end, generation, u64::MAX - STAMP - 1));
    }
}
