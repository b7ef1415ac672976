//! A client and a server with one [`Variant`] between them: two network namespaces joined by a veth pair, the server
//! in the near one, a client in each.

use ringfence_tests::{Agent, Sandbox, namespace::Namespace};

use crate::{
    nft, policies,
    process::{Place, Worker},
    variant::Variant,
};

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Loopback,
    Veth,
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// All that one variant needs; removed when dropped, in this order.
pub struct Stage {
    near: Worker,
    far: Worker,
    _server: Worker,
    pub agent: Option<Agent>,
    pub namespace: Namespace,
    pub sandbox: Sandbox,
    pub variant: Variant,
}

impl Stage {
    /// Makes it. Server and client have a CPU each, if there are two.
    pub fn new(variant: Variant) -> Self {
        let policy = match variant {
            Variant::Bare | Variant::Again | Variant::Nft { .. } => None,
            Variant::NoPolicy => Some(policies::none()),
            Variant::Entries(entries, identities) => Some(policies::allow(entries, identities)),
            Variant::Draft => Some(policies::with_draft()),
        };
        Self::with(
            variant,
            &format!("bench-{}", variant.word()),
            policy.as_deref(),
        )
    }

    /// The same with any policy; `name` is unique.
    pub fn with(variant: Variant, name: &str, policy: Option<&str>) -> Self {
        let sandbox = Sandbox::new(name);
        let namespace = Namespace::new();
        sandbox.namespace().connect(&namespace);
        for one in [sandbox.namespace(), &namespace] {
            // A client that closes first needs its port again soon.
            one.sysctl("net/ipv4/tcp_tw_reuse", "1");
            one.sysctl("net/ipv4/ip_local_port_range", "10000 65000");
        }
        let cgroups = ["client", "server"].map(|name| sandbox.cgroup(name));
        let agent = policy.map(|policy| Agent::start(&sandbox, policy));
        if let Variant::Nft { rules, tracked } = variant {
            for one in [sandbox.namespace(), &namespace] {
                nft::load(&sandbox, &one.path(), rules, tracked);
            }
        }
        let last =
            std::thread::available_parallelism().map_or(0, |cpus| usize::from(cpus.get() > 1));
        let [client, server] = &cgroups;
        let place = |cgroup, netns, cpu| Place { cgroup, netns, cpu };
        let (here, there) = (sandbox.namespace().path(), namespace.path());
        Self {
            _server: Worker::start(place(server, &here, last), "serve"),
            near: Worker::start(place(client, &here, 0), "call"),
            far: Worker::start(place(client, &there, 0), "call"),
            agent,
            namespace,
            sandbox,
            variant,
        }
    }

    /// Starts an agent where there was none.
    pub fn enforce(&mut self, policy: &str) {
        self.agent = Some(Agent::start(&self.sandbox, policy));
    }

    /// The client on this way.
    pub const fn client(&mut self, way: Way) -> &mut Worker {
        match way {
            Way::Loopback => &mut self.near,
            Way::Veth => &mut self.far,
        }
    }
}

impl Way {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Veth => "veth",
        }
    }

    /// Where the server is, as the client on this way sees it.
    pub fn address(self, family: Family, port: u16) -> String {
        let host = match (self, family) {
            (Self::Loopback, Family::V4) => "127.0.0.1",
            (Self::Loopback, Family::V6) => "[::1]",
            (Self::Veth, Family::V4) => "10.99.0.1",
            (Self::Veth, Family::V6) => "[fd99::1]",
        };
        format!("{host}:{port}")
    }
}

impl Family {
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}
