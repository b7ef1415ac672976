//! The ring of events is full: verdicts go on, what is lost is counted, and what is live is known again afterwards.

use ringfence_tests::{
    Agent, Options,
    flows::line,
    policy::{policy, workloads},
    poll::until,
    scene,
};

const AT_DB: &str = "127.0.0.1:5432";
/// Far more than the ring holds events of.
const CALLS: u16 = 2_000;

fn counted(agent: &Agent, name: &str, label: (&str, &str)) -> u64 {
    agent.metrics().sum(name, &[label])
}

#[test]
fn an_agent_that_is_stopped_while_the_ring_overflows_counts_what_it_lost_and_knows_what_is_live() {
    scene("ring", |sandbox| {
        let [web, db] = ["web", "db"].map(|name| sandbox.actor(name));
        let to = "to = [{ workload = \"db\" }]\nports = [\"5432/tcp\"]";
        let text = workloads(&["web", "db"]) + &policy("web", "", &[("egress", to)]);
        let options = Options {
            sections: "[flows]\nevents-buffer = \"64 KiB\"".to_owned(),
            ..Options::default()
        };
        let mut agent = Agent::start_with(sandbox, &options, &text);
        let _echo = db.serve(&["tcp", AT_DB, "--echo"]);
        let mut before = web.hold(AT_DB);
        until("both ends are live", || agent.status().live_flows == 2);

        agent.daemon().signal(nix::sys::signal::Signal::SIGSTOP);
        let mut early = web.hold(AT_DB);
        let knocked = web.run(&["knock", AT_DB, &CALLS.to_string()]);
        assert!(knocked.ok(), "{knocked:?}");
        for _ in 0..20 {
            let _refused = web
                .tcp("127.0.0.1:5433", &[])
                .expect_refused("connect", "while the ring is full");
        }
        let mut late = web.hold(AT_DB);
        early.kill();
        agent.daemon().signal(nix::sys::signal::Signal::SIGCONT);

        let lost = || counted(&agent, "ringfence_kernel_events_total", ("kind", "lost"));
        assert!(lost() > 1_000, "{}", lost());
        // Of the early one the end was lost, of the late one the beginning.
        until("live is what is live", || agent.status().live_flows == 4);
        assert!(before.is_alive() && late.is_alive());
        let sent = counted(&agent, "ringfence_kernel_events_total", ("kind", "sent"));
        let decisions: u64 = counted(
            &agent,
            "ringfence_decisions_total",
            ("reason", "rule-allow"),
        ) + counted(
            &agent,
            "ringfence_decisions_total",
            ("reason", "unselected-allow"),
        );
        assert!(
            decisions >= 2 * u64::from(CALLS),
            "{decisions} of {sent} sent"
        );
        let shown = agent.status().counts.get("event-lost").copied();
        until("status shows it", || {
            agent.status().counts.get("event-lost").copied() == Some(lost())
        });
        assert!(shown <= Some(lost()));

        // What happens now is recorded whole.
        let again = lost();
        let passed = web
            .tcp(AT_DB, &["--send", "2", "--expect", "2"])
            .expect_ok("a call");
        let by = web.by(passed.pid);
        let records = agent.settled(2, |flow| line(flow).ends_with(&by));
        let lines: Vec<_> = records.iter().map(line).collect();
        let flow = format!("egress tcp web -> db {AT_DB} allow rule-allow web/egress[0]");
        assert_eq!(
            lines,
            [
                format!("open {flow} {by}"),
                format!("close {flow} 2/2B {by}")
            ]
        );
        assert_eq!(lost(), again);
        late.kill();
        before.kill();
        until("no flow is live", || agent.status().live_flows == 0);
    });
}
