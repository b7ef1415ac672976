//! A scrape of the agent's metrics, and the comparison with its flow log.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use ringfence_proto::v1::{Flow, FlowEvent};

use crate::{flows, poll::PATIENCE};

/// One sample: name, labels, value.
type Sample = (String, BTreeMap<String, String>, u64);

/// All samples of one scrape.
#[derive(Debug)]
pub struct Metrics {
    samples: Vec<Sample>,
}

impl Metrics {
    /// Scrapes `address`.
    #[track_caller]
    #[must_use]
    pub fn scrape(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(*PATIENCE)).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        let _bytes = stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        Self {
            samples: body.lines().filter_map(sample).collect(),
        }
    }

    /// Sum of the samples called `name` that carry all of `labels`.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let carries = |sample: &&Sample| {
            let mut labels = labels.iter();
            sample.0 == name
                && labels.all(|(key, value)| sample.1.get(*key).is_some_and(|it| it == value))
        };
        self.samples
            .iter()
            .filter(carries)
            .map(|sample| sample.2)
            .sum()
    }

    /// Panics unless the counters say what `log`, the whole flow log since the first start, says.
    #[track_caller]
    pub fn assert_agree(&self, log: &[Flow]) {
        let mut decisions = BTreeMap::<(String, String), u64>::new();
        let mut records = BTreeMap::<(String, String), u64>::new();
        for flow in log {
            let decision = flow.enforced.clone().unwrap_or_default();
            let verdict = flows::verdict(decision.verdict).to_owned();
            *records
                .entry((flows::event(flow).to_owned(), verdict))
                .or_default() += 1;
            if flow.event() != FlowEvent::Close {
                let direction = flows::direction(flow).to_owned();
                *decisions.entry((direction, decision.reason)).or_default() += 1;
            }
        }
        let counted = self.by("ringfence_decisions_total", "direction", "reason");
        assert_eq!(counted, decisions, "decisions and records\n{self:#?}");
        let counted = self.by("ringfence_flows_total", "event", "verdict");
        assert_eq!(counted, records, "record counters and records\n{self:#?}");
        for (name, labels) in [
            (
                "ringfence_kernel_events_total",
                [("kind", "lost")].as_slice(),
            ),
            ("ringfence_flow_records_lost_total", &[]),
            ("ringfence_failures_total", &[("what", "storage-failed")]),
            ("ringfence_failures_total", &[("what", "flow-map-full")]),
            (
                "ringfence_failures_total",
                &[("what", "executable-unreadable")],
            ),
            ("ringfence_failures_total", &[("what", "groups-unreadable")]),
            ("ringfence_failures_total", &[("what", "packet-malformed")]),
            ("ringfence_failures_total", &[("what", "live-table-full")]),
        ] {
            assert_eq!(self.sum(name, labels), 0, "{name} {labels:?}\n{self:#?}");
        }
    }

    fn by(&self, name: &str, first: &str, second: &str) -> BTreeMap<(String, String), u64> {
        let mut sums = BTreeMap::new();
        for (_, labels, value) in self.samples.iter().filter(|sample| sample.0 == name) {
            let label = |key| labels.get(key).cloned().unwrap_or_default();
            if *value > 0 {
                *sums.entry((label(first), label(second))).or_default() += value;
            }
        }
        sums
    }
}

/// A line such as `name{key="value"} 3`; comments and what is no whole number are left out.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
        let (key, value) = label.split_once('=')?;
        Some((key.to_owned(), value.trim_matches('"').to_owned()))
    });
    (!name.starts_with('#')).then(|| (name.to_owned(), labels.collect(), value))
}
