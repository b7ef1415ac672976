//! Settings of the agent that change with the policy, at a restart.

use std::{fs, sync::mpsc, thread, time::Duration};

use nix::errno::Errno;
use ringfence_tests::{
    Agent, Options, Steps,
    policy::{policy, workloads},
    poll::until,
    scene,
    steps::Act,
};

const ADDRESS: &str = "127.0.0.1:9000";
/// `BPF_MAP_UPDATE_ELEM`.
const UPDATE: u64 = 2;
const TARGET: &str = "tcp/127.0.0.1:9000";

fn options(steps: &Steps, mode: &str, unselected: &str) -> Options {
    Options {
        agent: format!("mode = \"{mode}\"\nunselected = \"{unselected}\""),
        launcher: steps.launcher(),
        ..Options::default()
    }
}

/// Calls of a process that must all come to the same.
#[track_caller]
fn assert_all(lines: &[ringfence_tests::Outcome], error: Option<&str>, who: &str) {
    for line in lines {
        assert_eq!(line.error.as_deref(), error, "{who}: {lines:?}");
    }
}

#[test]
fn settings_and_policy_come_into_force_as_one() {
    scene("settings", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let mut server = sandbox
            .actor("db")
            .start(&["sink", "127.0.0.1", "9000", "1"]);
        let _ready = server.line().expect_ok("a server");
        let [never, always] = ["never", "always"].map(|name| sandbox.actor(name));
        let names = workloads(&["never", "always"]);
        let to = [("egress", "ports = [\"9000/tcp\"]")];
        let default_deny = "default-deny = [\"egress\"]";
        // Who is selected by none is denied: `never`. Who is selected is not: `always`.
        let first = names.clone() + &policy("always", "", &to);
        // Who is selected by none is allowed: `always`. Who is selected is not: `never`.
        let second = names.clone() + &policy("never", default_deny, &[]);
        let ways = [("enforce", "deny", &first), ("enforce", "allow", &second)];
        let mut agent = Agent::start_with(sandbox, &options(&steps, "enforce", "deny"), &first);
        for (mode, unselected, text) in [ways[1], ways[0], ways[1]] {
            agent.kill();
            agent.configure(sandbox, &options(&steps, mode, unselected));
            agent.write_policy(text);
            let mut samples = [&never, &always].map(|actor| actor.start(&["sample", TARGET]));
            let first = samples.each_mut().map(|samples| samples.line());
            steps.plan(|step| {
                if step.number % 3 == 0 {
                    thread::sleep(Duration::from_millis(5));
                }
                Act::Go
            });
            agent.restart();
            for (((samples, first), error), who) in samples
                .iter_mut()
                .zip(first)
                .zip([Some("EPERM"), None])
                .zip(["never", "always"])
            {
                samples.go_on();
                let mut lines = vec![first];
                while let line = samples.line()
                    && line.step != "done"
                {
                    lines.push(line);
                }
                assert_all(&lines, error, who);
            }
        }
    });
}

#[test]
fn a_start_that_is_refused_changes_no_settings() {
    scene("settings-refused", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let web = sandbox.actor("web");
        let text = workloads(&["web"]) + &policy("web", "default-deny = [\"egress\"]", &[]);
        let mut agent = Agent::start_with(sandbox, &options(&steps, "enforce", "deny"), &text);
        let refused = |when: &str| {
            let _ = web.tcp(ADDRESS, &[]).expect_refused("connect", when);
        };
        refused("at first");
        agent.kill();
        agent.configure(sandbox, &options(&steps, "draft", "allow"));
        agent.write_policy("not a policy");
        fs::remove_dir_all(sandbox.files().join("agent/state")).unwrap();
        assert!(agent.try_restart().is_err(), "started without a policy");
        refused("after a start in draft mode that came to nothing");
    });
}

/// Lets in who calls over loopback, whatever a policy says.
const LISTED: &str =
    "[failsafe]\ninbound = [{ ports = [\"9000/tcp\"], from = [\"127.0.0.0/8\"] }]\n";

fn with_sections(steps: &Steps, sections: &str) -> Options {
    Options {
        sections: sections.to_owned(),
        ..options(steps, "enforce", "allow")
    }
}

/// Nobody may call db.
fn closed_db() -> String {
    workloads(&["web", "db"]) + &policy("db", "default-deny = [\"ingress\"]", &[])
}

#[test]
fn what_the_failsafe_list_let_in_is_judged_anew_when_it_is_not_listed_any_more() {
    scene("settings-failsafe", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let with = |sections: &str| with_sections(&steps, sections);
        let mut agent = Agent::start_with(sandbox, &with(LISTED), &closed_db());
        let _echo = sandbox.actor("db").serve(&["tcp", ADDRESS, "--echo"]);
        let mut stream = sandbox.actor("web").hold(ADDRESS);
        agent.kill();
        agent.configure(sandbox, &with(""));
        // Messages pass between any two steps.
        steps.plan(|step| {
            if step.call == "bpf" && step.argument == UPDATE {
                thread::sleep(Duration::from_millis(10));
            }
            Act::Go
        });
        agent.restart();
        until("the stream is cut", || !stream.is_alive());
    });
}

#[test]
fn what_the_failsafe_list_of_a_refused_start_let_in_is_judged_anew() {
    scene("settings-refused-failsafe", |sandbox| {
        let steps = Steps::new(sandbox.files(), "steps");
        let with = |sections: &str| with_sections(&steps, sections);
        let mut agent = Agent::start_with(sandbox, &with(""), &closed_db());
        let _echo = sandbox.actor("db").serve(&["tcp", ADDRESS, "--echo"]);
        let web = sandbox.actor("web");
        agent.kill();
        agent.configure(sandbox, &with(LISTED));
        // There is no earlier policy to fall back on.
        fs::remove_dir_all(sandbox.files().join("agent/state")).unwrap();
        let (opened, streams) = mpsc::channel();
        let mut open = true;
        steps.plan(move |step| {
            if !open || step.call != "bpf" || step.argument != UPDATE {
                return Act::Go;
            }
            let mut stream = web.start(&["hold", ADDRESS]);
            if stream.line().ok() {
                // Let in by the list of this start: it is refused now.
                open = false;
                opened.send(stream).unwrap();
                return Act::Fail(Errno::ENOMEM);
            }
            Act::Go
        });
        assert!(agent.try_restart().is_err(), "the start is refused");
        let mut stream = streams.recv().unwrap();
        until("the stream is cut", || !stream.is_alive());
    });
}
