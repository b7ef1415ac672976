//! Sockets bound to a device, and addresses of this host that lead elsewhere.

use ringfence_tests::{
    Agent,
    flows::line,
    namespace::Namespace,
    policy::{policy, workloads},
    scene,
};

use crate::common::assert_refused;

const TO_API: (&str, &str) = (
    "egress",
    "to = [{ workload = \"api\" }]\nports = [\"8080/tcp\"]",
);

#[test]
fn an_own_address_that_leads_through_a_device_is_somebody_elses() {
    scene("scope", |sandbox| {
        let far = Namespace::new();
        let near = sandbox.namespace();
        near.connect(&far);
        near.run("ip link add other0 type veth peer name other1");
        for line in [
            "ip link set other0 up",
            "ip link set other1 up",
            "ip address add fe80::b/64 dev other0 nodad",
        ] {
            near.run(line);
        }
        far.run("ip address add fe80::b/64 dev test0 nodad");
        let [web, api] = ["web", "api"].map(|name| sandbox.actor(name));
        let stranger = sandbox.stranger("stranger").in_namespace(&far);
        let _far = stranger.serve(&["tcp", "[::]:8080", "--reply", "2"]);
        let near_server = api.serve(&["tcp", "[::]:8080", "--reply", "1"]);
        let through = ["--device", "test0", "--timeout-ms", "3000"];
        let call = || web.tcp("[fe80::b]:8080", &through);
        assert_eq!(call().expect_ok("without the agent").received, 2);
        drop(near_server);

        let agent = Agent::start(
            sandbox,
            &(workloads(&["web", "api"]) + &policy("web", "", &[TO_API])),
        );
        let _near = api.serve(&["tcp", "[::]:8080", "--reply", "1"]);
        let _ = web.tcp("[fd99::1]:8080", &[]).expect_ok("web calls api");
        let _ = assert_refused(&web, "[fd99::2]:8080", &[]);
        let cut = call();
        assert!(cut.failed("connect", "ECONNABORTED"), "{cut:?}");
        let log = agent.log();
        let by = web.by(cut.pid);
        let lines = log.iter().map(line).filter(|it| it.ends_with(&by));
        let denied: Vec<_> = lines.filter(|it| it.starts_with("deny ")).collect();
        let expected = "deny egress tcp web -> world [fe80::b]:8080 deny default-deny revoked ";
        assert_eq!(denied, [format!("{expected}{by}")]);
        agent.assert_counters();
    });
}

#[test]
fn a_listener_bound_to_a_device_is_not_the_host() {
    scene("bound-server", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let [web, rogue] = ["web", "rogue"].map(|name| sandbox.actor(name));
        let serve = || rogue.serve(&["tcp", "10.99.0.1:8080", "--device", "test0"]);
        let before = serve();
        let _ = web
            .tcp("10.99.0.1:8080", &[])
            .expect_ok("without the agent");
        drop(before);
        let only_host = ("egress", "to = [{ entity = \"host\" }]");
        let agent = Agent::start(
            sandbox,
            &(workloads(&["web", "rogue"]) + &policy("web", "", &[only_host])),
        );
        let _server = serve();
        let cut = web.tcp("10.99.0.1:8080", &["--timeout-ms", "3000"]);
        assert!(!cut.ok(), "{cut:?}");
        agent.assert_counters();
    });
}

#[test]
fn a_caller_bound_to_a_device_is_not_the_host() {
    scene("bound-caller", |sandbox| {
        let far = Namespace::new();
        sandbox.namespace().connect(&far);
        let [web, api] = ["web", "api"].map(|name| sandbox.actor(name));
        let call = |options: &[&str]| {
            web.tcp(
                "10.99.0.1:8080",
                &[options, &["--timeout-ms", "1500"]].concat(),
            )
        };
        let before = api.serve(&["tcp", "10.99.0.1:8080"]);
        let _ = call(&["--device", "test0"]).expect_ok("without the agent");
        drop(before);
        let from_host = ("ingress", "from = [{ entity = \"host\" }]");
        let agent = Agent::start(
            sandbox,
            &(workloads(&["web", "api"]) + &policy("api", "", &[from_host])),
        );
        let host = sandbox.stranger("host");
        let _server = api.serve(&["tcp", "10.99.0.1:8080"]);
        let _ = host.tcp("10.99.0.1:8080", &[]).expect_ok("the host calls");
        for options in [&[][..], &["--device", "test0"]] {
            let refused = call(options);
            assert!(!refused.ok(), "{options:?}: {refused:?}");
        }
        agent.assert_counters();
    });
}

#[test]
fn ip_options_are_refused_to_restricted_workloads() {
    scene("options", |sandbox| {
        let [web, free, api] = ["web", "free", "api"].map(|name| sandbox.actor(name));
        // Three times "no operation" (RFC 791); any other option looks the same from here.
        let script = "use Socket; socket(S, PF_INET, SOCK_STREAM, 0);\
             setsockopt(S, 0, 4, pack('C4', 1, 1, 1, 0)) or die;\
             $! = 0; connect(S, sockaddr_in(8080, inet_aton('127.0.0.1')));\
             my $e = $!{ECONNABORTED} ? '\"ECONNABORTED\"' : $! ? '\"other\"' : 'null';\
             print qq({\"pid\":$$,\"step\":\"connect\",\"error\":$e,\"sent\":0,\"received\":0,\"took_ms\":0}\\n);";
        let call =
            |actor: &ringfence_tests::Actor| actor.run(&["run", "perl", "-MErrno", "-e", script]);
        let server = api.serve(&["tcp", "127.0.0.1:8080"]);
        let _ = call(&web).expect_ok("without the agent");
        drop(server);
        let agent = Agent::start(
            sandbox,
            &(workloads(&["web", "free", "api"]) + &policy("web", "", &[TO_API])),
        );
        let _server = api.serve(&["tcp", "127.0.0.1:8080"]);
        let _ = web.tcp("127.0.0.1:8080", &[]).expect_ok("web calls api");
        let _ = call(&free).expect_ok("an unrestricted workload");
        let cut = call(&web);
        assert!(cut.failed("connect", "ECONNABORTED"), "{cut:?}");
        let log = agent.log();
        let mut lines = log.iter().map(line);
        assert!(
            lines.any(|it| it.starts_with("deny egress tcp web -> ")
                && it.contains(" deny detour-deny by perl[")),
            "{log:#?}"
        );
        agent.assert_counters();
    });
}
