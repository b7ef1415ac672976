//! What an agent reports of its host's endpoints: checked, bounded, and kept as long as its stream lives.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use ringfence_common::abi::identity::is_workload;
use ringfence_proto::{
    limits,
    v1::{Endpoint, EndpointReport},
};
use tonic::Status;

/// Endpoints of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostEndpoints {
    /// At most [`limits::MAX_ENDPOINTS`].
    pub list: BTreeSet<Listening>,
    /// Those that the agent did not report for want of room.
    pub omitted: u64,
}

/// Where a workload listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    workload: String,
    protocol: u8,
    port: u16,
    address: IpAddr,
    dual_stack: bool,
    device: u32,
    namespace: u64,
    identity: u32,
}

impl HostEndpoints {
    /// Takes in a report.
    ///
    /// # Errors
    /// The status that ends the stream: the report is malformed, does not fit what was reported before, or
    /// is more than an agent may report.
    pub fn apply(&mut self, report: EndpointReport) -> Result<(), Status> {
        let refused = |what: &str| Status::invalid_argument(format!("endpoints: {what}"));
        if report.added.len() + report.removed.len() > limits::MAX_REPORT_ENDPOINTS {
            return Err(refused("more than 500 in one message"));
        }
        if report.reset {
            self.list.clear();
        }
        for endpoint in report.removed {
            if !self.list.remove(&Listening::new(endpoint)?) {
                return Err(refused("one is removed that was not reported"));
            }
        }
        for endpoint in report.added {
            if !self.list.insert(Listening::new(endpoint)?) {
                return Err(refused("one is reported twice"));
            }
        }
        if self.list.len() > limits::MAX_ENDPOINTS {
            return Err(Status::resource_exhausted(format!(
                "more than {} endpoints of one host are reported",
                limits::MAX_ENDPOINTS
            )));
        }
        self.omitted = report.omitted;
        Ok(())
    }
}

impl Listening {
    fn new(endpoint: Endpoint) -> Result<Self, Status> {
        let refused = |what: &str| Status::invalid_argument(format!("endpoint: {what}"));
        let address = address(&endpoint.address)
            .ok_or_else(|| refused("the address is not one of 4 or 16 bytes, or is mapped"))?;
        let protocol = match endpoint.protocol {
            6 => 6,
            17 => 17,
            _ => return Err(refused("the protocol is neither TCP nor UDP")),
        };
        let port = u16::try_from(endpoint.port).ok().filter(|port| *port != 0);
        if !is_workload(endpoint.identity) || !limits::is_name(&endpoint.workload) {
            return Err(refused(
                "the owner is no workload, or its name is not printable",
            ));
        }
        if endpoint.dual_stack && address != IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            return Err(refused("only every address of IPv6 takes IPv4 besides"));
        }
        Ok(Self {
            workload: endpoint.workload,
            protocol,
            port: port.ok_or_else(|| refused("the port is not in 1..65536"))?,
            address,
            dual_stack: endpoint.dual_stack,
            device: endpoint.device,
            namespace: endpoint.namespace,
            identity: endpoint.identity,
        })
    }

    /// Name of the workload.
    #[must_use]
    pub fn workload(&self) -> &str {
        &self.workload
    }
}

impl From<&Listening> for Endpoint {
    fn from(listening: &Listening) -> Self {
        Self {
            address: match listening.address {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            },
            protocol: listening.protocol.into(),
            port: listening.port.into(),
            dual_stack: listening.dual_stack,
            namespace: listening.namespace,
            device: listening.device,
            identity: listening.identity,
            workload: listening.workload.clone(),
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    v6.to_ipv4_mapped().is_none().then_some(v6.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic fails the test")]

    use tonic::Code;

    use super::*;

    fn endpoint(port: u32) -> Endpoint {
        Endpoint {
            address: vec![10, 0, 0, 1],
            protocol: 6,
            port,
            identity: 256,
            workload: "web".to_owned(),
            ..Endpoint::default()
        }
    }

    fn adds(added: Vec<Endpoint>) -> EndpointReport {
        EndpointReport {
            added,
            ..EndpointReport::default()
        }
    }

    #[test]
    fn a_snapshot_and_changes_add_up() {
        let mut host = HostEndpoints::default();
        host.apply(adds(vec![endpoint(1), endpoint(2)])).unwrap();
        host.apply(EndpointReport {
            removed: vec![endpoint(1)],
            added: vec![endpoint(3)],
            omitted: 7,
            ..EndpointReport::default()
        })
        .unwrap();
        let ports = |host: &HostEndpoints| host.list.iter().map(|it| it.port).collect::<Vec<_>>();
        assert_eq!((ports(&host), host.omitted), (vec![2, 3], 7));
        host.apply(EndpointReport {
            reset: true,
            ..adds(vec![endpoint(9)])
        })
        .unwrap();
        assert_eq!((ports(&host), host.omitted), (vec![9], 0));
        let back: Vec<Endpoint> = host.list.iter().map(Into::into).collect();
        assert_eq!(back, [endpoint(9)]);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let mapped = Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 1, 2])
            .octets()
            .to_vec();
        let cases = [
            Endpoint {
                address: vec![1; 5],
                ..endpoint(1)
            },
            Endpoint {
                address: Vec::new(),
                ..endpoint(1)
            },
            Endpoint {
                address: mapped,
                ..endpoint(1)
            },
            Endpoint {
                protocol: 1,
                ..endpoint(1)
            },
            Endpoint {
                protocol: 6 + 256,
                ..endpoint(1)
            },
            endpoint(0),
            endpoint(65_536),
            Endpoint {
                identity: 255,
                ..endpoint(1)
            },
            Endpoint {
                identity: 1 << 24,
                ..endpoint(1)
            },
            Endpoint {
                workload: String::new(),
                ..endpoint(1)
            },
            Endpoint {
                workload: "a\u{9b}b".to_owned(),
                ..endpoint(1)
            },
            Endpoint {
                dual_stack: true,
                ..endpoint(1)
            },
        ];
        for case in cases {
            let text = format!("{case:?}");
            let refused = HostEndpoints::default()
                .apply(adds(vec![case]))
                .unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{text}");
        }
        let mut host = HostEndpoints::default();
        assert!(host.apply(adds(vec![endpoint(1), endpoint(1)])).is_err());
        let removes = EndpointReport {
            removed: vec![endpoint(5)],
            ..EndpointReport::default()
        };
        assert!(host.apply(removes).is_err());
        let many = (1..=501).map(endpoint).collect();
        assert!(host.apply(adds(many)).is_err());
    }

    #[test]
    fn an_agent_can_not_fill_the_controller() {
        let mut host = HostEndpoints::default();
        for first in (0..).step_by(500).take(limits::MAX_ENDPOINTS / 500) {
            host.apply(adds((first + 1..=first + 500).map(endpoint).collect()))
                .unwrap();
        }
        let more = (20_001..=20_500).map(endpoint).collect();
        let refused = host.apply(adds(more)).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }
}
