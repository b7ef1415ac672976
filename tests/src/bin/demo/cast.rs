//! Who takes part, and the policies that are played.

use ringfence_tests::{
    Actor, Running, Sandbox,
    policy::{policy, workload, workloads},
};

/// The processes.
pub struct Cast {
    pub web: Actor,
    pub api: Actor,
    /// Another binary in api's cgroup.
    pub intruder: Actor,
    pub db: Actor,
}

/// What serves, at which address.
pub struct Server {
    pub protocol: &'static str,
    pub name: &'static str,
    pub address: String,
    pub running: Running,
    pub actor: Actor,
}

impl Cast {
    pub fn new(sandbox: &Sandbox) -> Self {
        Self {
            web: sandbox.actor("web"),
            api: sandbox.actor("api"),
            intruder: sandbox.actor("intruder").in_cgroup(sandbox, "api"),
            db: sandbox.actor("db"),
        }
    }

    /// api on 8080 and db on 5432, TCP and UDP, IPv4 and IPv6.
    pub fn serve(&self) -> Vec<Server> {
        let mut servers = Vec::new();
        for (actor, name, port) in [(&self.api, "api", 8080), (&self.db, "db", 5432)] {
            for host in ["127.0.0.1", "[::1]"] {
                for protocol in ["tcp", "udp"] {
                    let address = format!("{host}:{port}");
                    servers.push(Server {
                        running: actor.serve(&[protocol, &address, "--echo"]),
                        actor: actor.clone(),
                        protocol,
                        name,
                        address,
                    });
                }
            }
        }
        servers
    }

    /// web -> api -> db. `database` is the port on which api may call db; `more` is added.
    pub fn policy(&self, database: u16, more: &str) -> String {
        let ports = |port: u16| format!("ports = [\"{port}/tcp\", \"{port}/udp\"]");
        let rule = |key: &str, peer: &str, port: u16| {
            format!("{key} = [{{ workload = \"{peer}\" }}]\n{}", ports(port))
        };
        let exe = self.api.program().display();
        workloads(&["web", "db"])
            + &workload("api", &format!("cgroup = \"/api\", exe = \"{exe}\""))
            + &policy("web", "", &[("egress", &rule("to", "api", 8080))])
            + &policy(
                "api",
                "",
                &[
                    ("ingress", &rule("from", "web", 8080)),
                    ("egress", &rule("to", "db", database)),
                ],
            )
            + &policy(
                "db",
                "default-deny = [\"egress\"]",
                &[("ingress", &rule("from", "api", database))],
            )
            + more
    }
}

/// A policy on trial that would cut web off from api.
pub const TRIAL: &str = "[[policy]]\nname = \"trial\"\napplies-to = { app = \"web\" }\nmode = \"draft\"\n\n\
    [[policy.deny-egress]]\nto = [{ workload = \"api\" }]\n";
