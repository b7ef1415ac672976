//! The map of datagram flows is full, or somebody would like it to be.

use ringfence_tests::{
    Agent, Options, Sandbox,
    flows::event,
    policy::{policy, workloads},
    scene,
};

const FLOWS: u16 = 128;

fn start(sandbox: &Sandbox) -> Agent {
    let from_web = "from = [{ workload = \"web\" }]\nports = [\"5300/udp\"]";
    let text = workloads(&["web", "dns", "noisy"])
        + &policy(
            "dns",
            "default-deny = [\"egress\"]",
            &[("ingress", from_web)],
        )
        + &policy("noisy", "", &[("egress", "ports = [\"20000-29999/udp\"]")]);
    let options = Options {
        sections: format!("[flows]\nflow-entries = {FLOWS}"),
        ..Options::default()
    };
    Agent::start_with(sandbox, &options, &text)
}

fn full(agent: &Agent) -> u64 {
    let labels = [("what", "flow-map-full")];
    agent.metrics().sum("ringfence_failures_total", &labels)
}

#[test]
fn replies_pass_while_the_flow_map_is_full() {
    scene("flows-full", |sandbox| {
        let [web, dns, noisy] = ["web", "dns", "noisy"].map(|name| sandbox.actor(name));
        let agent = start(sandbox);
        let mut spray = noisy.start(&["spray", "127.0.0.1:20000", "500"]);
        let _ = spray.line().expect_ok("noisy may send");
        assert!(full(&agent) >= u64::from(500 - FLOWS), "{}", full(&agent));
        let _server = dns.serve(&["udp", "127.0.0.1:5300"]);
        for options in [&[][..], &["--unconnected"]] {
            let _ = web
                .udp("127.0.0.1:5300", options)
                .expect_ok("web asks dns, which may not ask");
        }
        let refused = web.udp("127.0.0.1:5301", &[]);
        assert!(!refused.ok(), "{refused:?}");
        let log = agent.log();
        let opened = log.iter().filter(|flow| event(flow) == "open").count();
        assert_eq!(
            opened,
            500 + 4 + 1,
            "noisy, both ends of both calls, and the other call"
        );
    });
}

#[test]
fn refusals_take_no_room_in_the_flow_map() {
    scene("flows-denied", |sandbox| {
        let [web, dns, noisy] = ["web", "dns", "noisy"].map(|name| sandbox.actor(name));
        let agent = start(sandbox);
        let mut spray = noisy.start(&["spray", "127.0.0.1:30000", "500"]);
        let outcome = spray.line();
        assert_eq!((outcome.sent, outcome.error.as_deref()), (0, Some("EPERM")));
        let _server = dns.serve(&["udp", "127.0.0.1:5300"]);
        // Not from the world either: to dns every one of these is a stranger.
        let mut strangers = noisy.start(&["spray", "127.0.0.1:5300", "1"]);
        let _ = strangers.line();
        let _ = web.udp("127.0.0.1:5300", &[]).expect_ok("web asks dns");
        assert_eq!(full(&agent), 0);
        agent.assert_counters();
    });
}

#[test]
fn a_late_reply_to_a_connected_socket_passes_whatever_was_evicted_meanwhile() {
    scene("flows-late", |sandbox| {
        let [web, dns, noisy] = ["web", "dns", "noisy"].map(|name| sandbox.actor(name));
        let text = workloads(&["web", "dns", "noisy"])
            + &policy(
                "web",
                "default-deny = [\"ingress\"]",
                &[("egress", "to = [{ workload = \"dns\" }]")],
            );
        let options = Options {
            sections: format!("[flows]\nflow-entries = {FLOWS}"),
            ..Options::default()
        };
        let agent = Agent::start_with(sandbox, &options, &text);
        let _server = dns.serve(&["udp", "127.0.0.1:5300", "--delay-ms", "2000"]);
        let mut first = noisy.start(&["spray", "127.0.0.1:20000", "200"]);
        let _ = first.line().expect_ok("the flow map is full");
        let call = web.start(&["call", "udp", "127.0.0.1:5300"]);
        // More than the map for what found no room holds.
        let mut second = noisy.start(&["spray", "127.0.0.1:30000", "30000"]);
        let _ = second.line().expect_ok("and what came after is evicted");
        let _ = call.last().expect_ok("web asked before");
        assert!(full(&agent) > 30_000, "{}", full(&agent));
    });
}
