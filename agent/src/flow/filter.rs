//! Which records a reader wants. All fields that are set must match; of one field any value.

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
};

use ipnet::IpNet;
use ringfence_proto::v1;
use thiserror::Error;

use super::{Record, record::End};

/// Values in one filter at most: a filter is checked for every record.
const MAX_VALUES: usize = 256;

/// The filter can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// A field holds what is not one of its values.
    #[error("filter field `{field}`: `{value}` is not valid; {remedy}")]
    Invalid {
        /// Name of the field in the request.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What to write.
        remedy: &'static str,
    },
    /// A filter is too long.
    #[error("a filter holds {0} values; use {MAX_VALUES} at most, or several requests")]
    TooLong(usize),
}

/// One filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    workloads: Vec<String>,
    ports: Vec<u16>,
    verdicts: Vec<u8>,
    draft_verdicts: Vec<u8>,
    directions: Vec<u8>,
    protocols: Vec<u8>,
    networks: Vec<IpNet>,
    events: Vec<u8>,
}

impl TryFrom<v1::FlowFilter> for Filter {
    type Error = FilterError;

    fn try_from(raw: v1::FlowFilter) -> Result<Self, FilterError> {
        let values = [
            raw.workload.len(),
            raw.port.len(),
            raw.verdict.len(),
            raw.draft_verdict.len(),
            raw.direction.len(),
            raw.protocol.len(),
            raw.address.len(),
            raw.event.len(),
        ];
        let total = values.into_iter().sum();
        if total > MAX_VALUES {
            return Err(FilterError::TooLong(total));
        }
        let verdict = "use allow (1), deny (2) or audit (3)";
        Ok(Self {
            workloads: raw.workload,
            ports: list("port", raw.port, 0..=65_535, "use 0 to 65535")?,
            verdicts: list("verdict", raw.verdict, 1..=3, verdict)?,
            draft_verdicts: list(
                "draft_verdict",
                raw.draft_verdict,
                1..=2,
                "use allow (1) or deny (2): audit is an enforced deny that passes in draft mode, so it is no draft verdict",
            )?,
            directions: list(
                "direction",
                raw.direction,
                1..=3,
                "use egress (1), ingress (2) or listen (3)",
            )?,
            protocols: list(
                "protocol",
                raw.protocol,
                0..=255,
                "use an IANA number, 0 to 255",
            )?,
            networks: networks(&raw.address)?,
            events: list(
                "event",
                raw.event,
                1..=3,
                "use open (1), close (2) or deny (3)",
            )?,
        })
    }
}

impl Filter {
    /// Whether `record` is wanted.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let event = &record.event;
        let decision = &event.decision;
        let (source, destination) = record.ends();
        let ends = || [source, destination].into_iter().flatten();
        any(&self.events, event.kind)
            && any(&self.verdicts, decision.verdict)
            && any(&self.draft_verdicts, decision.draft_verdict)
            && any(&self.directions, decision.direction)
            && any(&self.protocols, event.tuple.protocol)
            && (self.ports.is_empty() || ends().any(|end| self.ports.contains(&end.port)))
            && (self.workloads.is_empty()
                || ends().any(|end| self.workloads.contains(&end.party.name)))
            && (self.networks.is_empty() || ends().any(|end| self.covers(&end)))
    }

    fn covers(&self, end: &End<'_>) -> bool {
        end.address.is_some_and(|bytes| {
            let address = Ipv6Addr::from(bytes).to_canonical();
            self.networks
                .iter()
                .any(|network| network.contains(&address))
        })
    }
}

fn any(wanted: &[u8], value: u8) -> bool {
    wanted.is_empty() || wanted.contains(&value)
}

/// Numbers of a request as the narrower type that records hold.
fn list<Raw, Valid>(
    field: &'static str,
    raw: Vec<Raw>,
    range: RangeInclusive<Raw>,
    remedy: &'static str,
) -> Result<Vec<Valid>, FilterError>
where
    Raw: Copy + PartialOrd + ToString,
    Valid: TryFrom<Raw>,
{
    raw.into_iter()
        .map(|value| match Valid::try_from(value) {
            Ok(valid) if range.contains(&value) => Ok(valid),
            Ok(_) | Err(_) => Err(FilterError::Invalid {
                field,
                value: value.to_string(),
                remedy,
            }),
        })
        .collect()
}

fn networks(texts: &[String]) -> Result<Vec<IpNet>, FilterError> {
    texts
        .iter()
        .map(|text| {
            let network = text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| FilterError::Invalid {
                field: "address",
                value: text.clone(),
                remedy: "use an address or a network, as in 10.0.0.0/8",
            })
        })
        .collect()
}
