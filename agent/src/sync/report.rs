//! Endpoints up to the controller: a snapshot, then changes, in messages of bounded size.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use ringfence_proto::{limits, v1::EndpointReport};
use tokio::sync::watch;

use crate::endpoints::{Endpoint, Endpoints};

/// What one stream has reported and has to report yet.
pub(super) struct Reporter {
    latest: watch::Receiver<Arc<Endpoints>>,
    /// Endpoints that the controller takes, 0 = none or not known yet.
    most: usize,
    /// What the controller has once `queue` is sent; `None` before the snapshot.
    sent: Option<(BTreeSet<Endpoint>, u64)>,
    queue: VecDeque<EndpointReport>,
}

impl Reporter {
    pub fn new(mut latest: watch::Receiver<Arc<Endpoints>>) -> Self {
        latest.mark_changed();
        Self {
            latest,
            most: 0,
            sent: None,
            queue: VecDeque::new(),
        }
    }

    /// The controller has said how many it takes.
    pub fn take_up_to(&mut self, most: u32) {
        self.most = usize::try_from(most).unwrap_or(usize::MAX);
    }

    /// The next message, when there is one. Nothing is lost if this is dropped while it waits.
    pub async fn next(&mut self) -> EndpointReport {
        loop {
            if let Some(report) = self.queue.pop_front() {
                return report;
            }
            if self.most == 0 || self.latest.changed().await.is_err() {
                return std::future::pending().await;
            }
            let latest = self.latest.borrow_and_update().clone();
            self.enqueue(&latest);
        }
    }

    fn enqueue(&mut self, latest: &Endpoints) {
        let now: BTreeSet<Endpoint> = latest.list.iter().take(self.most).cloned().collect();
        let left = latest.list.len() - now.len() + latest.omitted;
        let omitted = u64::try_from(left).unwrap_or(u64::MAX);
        let reset = self.sent.is_none();
        let (before, told) = self.sent.take().unwrap_or_default();
        let mut report = Packer::new(reset, omitted);
        for endpoint in before.difference(&now) {
            report.add(endpoint, |message| &mut message.removed, &mut self.queue);
        }
        for endpoint in now.difference(&before) {
            report.add(endpoint, |message| &mut message.added, &mut self.queue);
        }
        report.finish(reset || told != omitted, &mut self.queue);
        self.sent = Some((now, omitted));
    }
}

/// Fills messages.
struct Packer {
    message: EndpointReport,
    endpoints: usize,
    bytes: usize,
}

impl Packer {
    fn new(reset: bool, omitted: u64) -> Self {
        Self {
            message: EndpointReport {
                reset,
                omitted,
                ..EndpointReport::default()
            },
            endpoints: 0,
            bytes: 0,
        }
    }

    fn add(
        &mut self,
        endpoint: &Endpoint,
        list: impl Fn(&mut EndpointReport) -> &mut Vec<ringfence_proto::v1::Endpoint>,
        queue: &mut VecDeque<EndpointReport>,
    ) {
        // All fields but the name are numbers and an address.
        let bytes = endpoint.workload.len() + 64;
        let full = self.endpoints == limits::MAX_REPORT_ENDPOINTS
            || self.bytes + bytes > limits::MAX_REQUEST_BYTES / 2;
        if full {
            self.flush(queue);
        }
        self.endpoints += 1;
        self.bytes += bytes;
        list(&mut self.message).push(endpoint.into());
    }

    fn flush(&mut self, queue: &mut VecDeque<EndpointReport>) {
        let next = EndpointReport {
            omitted: self.message.omitted,
            ..EndpointReport::default()
        };
        queue.push_back(std::mem::replace(&mut self.message, next));
        (self.endpoints, self.bytes) = (0, 0);
    }

    /// The last message, if it says anything.
    fn finish(mut self, even_if_empty: bool, queue: &mut VecDeque<EndpointReport>) {
        if self.endpoints > 0 || (even_if_empty && queue.is_empty()) {
            self.flush(queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint {
            identity: 256,
            workload: "w".repeat(limits::MAX_NAME_BYTES).into(),
            namespace: 1,
            protocol: 6,
            port,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            dual_stack: false,
            device: 0,
        }
    }

    fn endpoints(ports: impl IntoIterator<Item = u16>) -> Arc<Endpoints> {
        Arc::new(Endpoints {
            list: ports.into_iter().map(endpoint).collect(),
            ..Endpoints::default()
        })
    }

    fn ports(list: &[ringfence_proto::v1::Endpoint]) -> Vec<u32> {
        list.iter().map(|endpoint| endpoint.port).collect()
    }

    #[tokio::test]
    async fn nothing_is_sent_before_the_controller_takes_it() {
        let (sender, latest) = watch::channel(endpoints([1]));
        let mut reporter = Reporter::new(latest);
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), reporter.next());
        assert!(early.await.is_err());
        reporter.take_up_to(10);
        let report = reporter.next().await;
        assert!(report.reset);
        assert_eq!(ports(&report.added), [1]);
        drop(sender.send_replace(endpoints([2])));
        let report = reporter.next().await;
        assert!(!report.reset);
        assert_eq!(
            (ports(&report.removed), ports(&report.added)),
            (vec![1], vec![2])
        );
    }

    #[tokio::test]
    async fn an_empty_host_says_so() {
        let (_sender, latest) = watch::channel(endpoints([]));
        let mut reporter = Reporter::new(latest);
        reporter.take_up_to(10);
        let report = reporter.next().await;
        assert!(report.reset && report.added.is_empty(), "{report:?}");
    }

    #[tokio::test]
    async fn messages_are_bounded_and_what_is_too_much_is_counted() {
        let (_sender, latest) = watch::channel(endpoints(1..=2000));
        let mut reporter = Reporter::new(latest);
        reporter.take_up_to(1500);
        let mut seen = Vec::new();
        let mut messages = 0;
        while seen.len() < 1500 {
            let report = reporter.next().await;
            assert_eq!(report.reset, seen.is_empty());
            assert_eq!(report.omitted, 500);
            assert!(report.added.len() <= limits::MAX_REPORT_ENDPOINTS);
            let bytes: usize = report.added.iter().map(prost_len).sum();
            assert!(bytes < limits::MAX_REQUEST_BYTES, "{bytes}");
            seen.extend(ports(&report.added));
            messages += 1;
        }
        assert!(messages >= 3, "{messages}");
        assert_eq!(seen, (1..=1500).collect::<Vec<_>>());
    }

    /// Tags and lengths are at most two bytes each, numbers at most ten.
    fn prost_len(endpoint: &ringfence_proto::v1::Endpoint) -> usize {
        8 * 3 + 6 * 10 + endpoint.address.len() + endpoint.workload.len()
    }
}
