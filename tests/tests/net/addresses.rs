//! Destinations written in another way are the same destinations.

use ringfence_tests::{
    Agent,
    policy::{policy, workloads},
    scene,
};

use crate::common::{assert_allowed, assert_refused, three_tiers, unanswered};

#[test]
fn an_ipv4_address_in_an_ipv6_socket_is_judged_as_ipv4() {
    scene("mapped", |sandbox| {
        let web = sandbox.actor("web");
        let rule = "to = [{ cidr = \"127.2.0.0/16\" }, { cidr = \"::/0\" }]";
        for address in ["127.2.0.1:81", "127.3.0.1:81"] {
            let _ = assert_allowed(&web, address, &["--mapped"]);
        }
        let agent = Agent::start(
            sandbox,
            &(workloads(&["web"]) + &policy("web", "", &[("egress", rule)])),
        );
        let passed = assert_allowed(&web, "127.2.0.1:81", &["--mapped"]);
        let refused = assert_refused(&web, "127.3.0.1:81", &["--mapped"]);
        agent.assert_log(&[
            unanswered(
                "web -> host 127.2.0.1:81",
                "allow rule-allow web/egress[0]",
                &web.by(passed.pid),
            ),
            format!(
                "deny egress tcp web -> host 127.3.0.1:81 deny default-deny {}",
                web.by(refused.pid)
            ),
        ]);
        agent.assert_counters();
    });
}

#[test]
fn the_unspecified_address_is_loopback() {
    scene("unspecified", |sandbox| {
        let (web, api, db) = (
            sandbox.actor("web"),
            sandbox.actor("api"),
            sandbox.actor("db"),
        );
        let serve = || ["127.0.0.1:5432", "[::1]:5432"].map(|address| db.serve(&["tcp", address]));
        let before = serve();
        for address in ["0.0.0.0:5432", "[::]:5432"] {
            let _ = web.tcp(address, &[]).expect_ok("without the agent");
        }
        drop(before);
        let agent = Agent::start(sandbox, &three_tiers());
        let _servers = serve();
        let mut expected = Vec::new();
        for (address, shown) in [
            ("0.0.0.0:5432", "127.0.0.1:5432"),
            ("[::]:5432", "[::1]:5432"),
        ] {
            let _ = api.tcp(address, &[]).expect_ok("api calls db");
            let refused = assert_refused(&web, address, &[]);
            expected.push(format!(
                "deny egress tcp web -> db {shown} deny default-deny {}",
                web.by(refused.pid)
            ));
        }
        agent.assert_log_of(&expected, |flow| {
            flow.event() == ringfence_proto::v1::FlowEvent::Deny
        });
        agent.assert_counters();
    });
}
