//! The task that answers what is refused, where the configuration asks for it.
//!
//! The kernel programs have refused by then and tell of no more packets than may be answered; this counts exactly.
//! What is not answered in time is not answered: the client has asked again.

use std::io;

use anyhow::Context as _;
use ringfence_common::{
    abi::{Answering, Refuser, Unanswered},
    logic::bucket,
};
use tokio::{task::block_in_place, time::interval};

use super::clock;
use crate::{
    config::{LocalRefusal, Refusal, RemoteRefusal},
    datapath::answers::{Answerer, Refused, packet::Kind},
    metrics::Answers,
};

const SECOND_NS: u64 = 1_000_000_000;
/// A packet that was refused longer ago is not answered.
const LATE_NS: u64 = SECOND_NS;
/// Part of the rate that one source may have.
const SHARE: u64 = 4;
/// How often namespaces that are not used any more are let go.
const TIDY: std::time::Duration = std::time::Duration::from_secs(10);

/// What the programs are told; `can_set_errno`: this kernel lets them choose an error number.
#[must_use]
pub fn answering(refusal: Refusal, can_set_errno: bool) -> Answering {
    let rate = u64::from(refusal.rate.max(1));
    let of_source = (rate / SHARE).max(1);
    let refused = libc::ECONNREFUSED.unsigned_abs();
    Answering {
        local_errno: match refusal.local {
            LocalRefusal::Econnrefused if can_set_errno => refused,
            LocalRefusal::Econnrefused | LocalRefusal::Eperm => 0,
        },
        remote: u32::from(kind(refusal.remote).is_some()),
        burst: rate,
        source_burst: of_source,
        interval_ns: SECOND_NS / rate,
        source_interval_ns: SECOND_NS / of_source,
    }
}

/// What an answer says, if there is any.
#[must_use]
pub const fn kind(remote: RemoteRefusal) -> Option<Kind> {
    match remote {
        RemoteRefusal::Drop => None,
        RemoteRefusal::Reset => Some(Kind::Reset),
        RemoteRefusal::Prohibited => Some(Kind::Prohibited),
    }
}

/// The warning where the configured error number can't be had.
#[must_use]
pub fn without_errno(refusal: Refusal, answering: &Answering) -> Option<&'static str> {
    (refusal.local == LocalRefusal::Econnrefused && answering.local_errno == 0).then_some(
        "`[refusal] local = \"econnrefused\"` has no effect: this kernel's programs can't choose an error number (Linux \
         6.1 and newer can), so what is refused on this host ends in EPERM",
    )
}

/// The warning where raw sockets can't be had.
#[must_use]
pub fn without_sockets(error: &io::Error) -> String {
    format!(
        "`[refusal] remote` has no effect, refused clients hear nothing: raw sockets can't be opened: {error}; run the \
         agent with CAP_NET_RAW"
    )
}

/// Owner of the ring of refused packets, and of the sockets that answer.
pub struct Task {
    refused: Refused,
    answerer: Answerer,
    limit: Limit,
    counts: Answers,
}

impl Task {
    /// One that sends as many answers as the programs were told.
    #[must_use]
    pub fn new(
        refused: Refused,
        answerer: Answerer,
        answering: &Answering,
        counts: Answers,
    ) -> Self {
        Self {
            refused,
            answerer,
            limit: Limit::new(answering),
            counts,
        }
    }

    /// Answers until the ring fails.
    ///
    /// # Errors
    /// The ring can't be polled.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut tidy = interval(TIDY);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                read = self.refused.read(&mut batch) => {
                    read.context("the ring of refused packets")?;
                    block_in_place(|| {
                        for refused in batch.drain(..) {
                            self.answer(&refused);
                        }
                    });
                }
                _ = tidy.tick() => self.answerer.release_unused(),
            }
        }
    }

    fn answer(&mut self, refused: &Unanswered) {
        if !self.limit.permits(refused, clock::boot_now_ns()) {
            self.counts.suppressed();
            return;
        }
        match self.answerer.answer(refused) {
            Ok(()) => self.counts.sent(),
            Err(error) => {
                tracing::trace!(%error, "a refused packet is not answered");
                self.counts.failed();
            }
        }
    }
}

/// How many answers there may be.
struct Limit {
    bucket: Refuser,
    burst: u64,
    interval_ns: u64,
}

impl Limit {
    fn new(answering: &Answering) -> Self {
        Self {
            bucket: Refuser {
                at_ns: 0,
                left: answering.burst,
            },
            burst: answering.burst,
            interval_ns: answering.interval_ns,
        }
    }

    fn permits(&mut self, refused: &Unanswered, now_ns: u64) -> bool {
        now_ns.saturating_sub(refused.time_ns) < LATE_NS
            && bucket::take(&mut self.bucket, now_ns, self.burst, self.interval_ns)
    }
}

#[cfg(test)]
mod tests {
    use ringfence_common::abi::answer::HEAD_BYTES;

    use super::*;

    fn refusal(local: LocalRefusal, remote: RemoteRefusal, rate: u32) -> Refusal {
        Refusal {
            local,
            remote,
            rate,
        }
    }

    #[test]
    fn what_is_off_is_off_in_the_programs() {
        let silent = answering(refusal(LocalRefusal::Eperm, RemoteRefusal::Drop, 100), true);
        assert_eq!((silent.local_errno, silent.remote), (0, 0));
        let all = refusal(LocalRefusal::Econnrefused, RemoteRefusal::Reset, 100);
        let loud = answering(all, true);
        assert_eq!((loud.local_errno, loud.remote), (111, 1));
        assert_eq!(answering(all, false).local_errno, 0);
        assert_eq!((loud.burst, loud.interval_ns), (100, 10_000_000));
        assert_eq!(
            (loud.source_burst, loud.source_interval_ns),
            (25, 40_000_000)
        );
        assert!(without_errno(all, &answering(all, false)).is_some());
        assert_eq!(without_errno(all, &loud), None);
        let one = answering(refusal(LocalRefusal::Eperm, RemoteRefusal::Reset, 1), true);
        assert_eq!((one.source_burst, one.source_interval_ns), (1, SECOND_NS));
    }

    #[test]
    fn no_more_is_answered_than_may_be_and_nothing_late() {
        let told = answering(refusal(LocalRefusal::Eperm, RemoteRefusal::Reset, 10), true);
        let mut limit = Limit::new(&told);
        let refused = |time_ns| Unanswered {
            time_ns,
            netns: 1,
            device: 2,
            acknowledge: 1,
            head: [0; HEAD_BYTES],
        };
        let now = 1_000 * SECOND_NS;
        assert!(!limit.permits(&refused(now - LATE_NS), now));
        let mut permitted = |now| {
            (0..50)
                .filter(|_| limit.permits(&refused(now), now))
                .count()
        };
        assert_eq!(permitted(now), 10);
        assert_eq!(permitted(now + SECOND_NS / 2), 5);
    }
}
