//! What the agent refuses, and what it says then.

use ringfence_tests::{
    Agent, Options,
    daemon::Ended,
    policy::{policy, workload},
    scene,
};

use crate::common::{assert_allowed, assert_refused, three_tiers};

#[track_caller]
fn refused(sandbox: &ringfence_tests::Sandbox, agent: &str, sections: &str) -> Ended {
    let options = Options {
        agent: agent.to_owned(),
        sections: sections.to_owned(),
        ..Options::default()
    };
    let ended = Agent::try_start(sandbox, &options, &three_tiers()).err();
    let ended = ended.unwrap_or_else(|| panic!("it started with {options:?}"));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(!sandbox.pins().exists(), "pins were made");
    ended
}

#[test]
fn a_policy_that_is_not_valid_is_refused_whole() {
    scene("bad-policy", |sandbox| {
        let web = sandbox.actor("web");
        let agent = Agent::start(sandbox, &three_tiers());
        let generation = agent.status().generation;
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        // One good change and one mistake.
        let bad =
            three_tiers().replace("\"8080/tcp\"", "\"81/tcp\"") + "[[policy]]\nnaem = \"x\"\n";
        let error = agent.refuse_policy(&bad);
        assert!(
            error.contains("policy.toml:") && error.contains("naem"),
            "{error}"
        );
        let status = agent.status();
        assert_eq!(status.generation, generation, "{status:?}");
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        // Once for the file and once for the signal, or once for both.
        assert!(agent.metrics().sum("ringfence_policy_refused_total", &[]) >= 1);
        agent.assert_counters();

        agent.write_policy(&three_tiers().replace(
            "to = [{ workload = \"api\" }]\nports = [\"8080/tcp\"]",
            "ports = [\"81/tcp\"]",
        ));
        agent.reload();
        ringfence_tests::poll::until("the corrected policy is in force", || {
            let status = agent.status();
            status.policy_error.is_empty() && status.generation > generation
        });
        let _ = assert_allowed(&web, "127.0.0.1:81", &[]);
    });
}

#[test]
fn a_policy_larger_than_the_maps_is_refused_whole() {
    scene("large-policy", |sandbox| {
        let web = sandbox.actor("web");
        let agent = Agent::start(sandbox, &three_tiers());
        let generation = agent.status().generation;
        // Each of 1,010 peers with each of 1,000 ports, of which no two make a range.
        let mut many = String::new();
        for n in 0..1_010 {
            many += &workload(&format!("many{n}"), &format!("cgroup = \"/many/{n}\""));
        }
        let ports: Vec<_> = (0..1_000)
            .map(|n| format!("\"{}/tcp\"", 2 * n + 1))
            .collect();
        let peers: Vec<_> = (0..1_010)
            .map(|n| format!("{{ workload = \"many{n}\" }}"))
            .collect();
        let rule = format!(
            "to = [{}]\nports = [{}]",
            peers.join(", "),
            ports.join(", ")
        );
        let more = policy("web", "", &[("egress", &rule)]).replacen("\"web\"", "\"large\"", 1);
        let large = three_tiers() + &many + &more;
        let error = agent.refuse_policy(&large);
        assert!(
            error.contains("\"web\"") && error.contains("1000000"),
            "{error}"
        );
        assert_eq!(agent.status().generation, generation);
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        agent.assert_counters();
    });
}

#[test]
fn a_refused_start_leaves_no_pins_and_no_socket() {
    scene("refused-start", |sandbox| {
        let web = sandbox.actor("web");
        let nothing_is_left = |what: &str| {
            assert!(!sandbox.pins().exists(), "{what}: pins");
            let dir = sandbox.files().join("agent");
            let socket = dir.join("agent.sock");
            assert!(!socket.exists(), "{what}: socket");
            let names: Vec<_> = std::fs::read_dir(dir)
                .unwrap()
                .map(|it| it.unwrap().file_name())
                .collect();
            let strange = |name: &std::ffi::OsString| {
                name.to_string_lossy().starts_with("agent.") && name != "agent.toml"
            };
            assert!(!names.iter().any(strange), "{what}: {names:?}");
        };
        let bad = "[[policy]]\nnaem = \"x\"\n";
        let ended = Agent::try_start(sandbox, &Options::default(), bad)
            .err()
            .unwrap();
        assert!(ended.log.contains("naem"), "{}", ended.log);
        nothing_is_left("a policy that is not valid");

        let mut agent = Agent::start(sandbox, &three_tiers());
        // Another one whose port for metrics is taken.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let config = std::fs::read_to_string(agent.config()).unwrap();
        let other = sandbox.files().join("other");
        std::fs::create_dir_all(other.join("policy.d")).unwrap();
        let pins = sandbox.pins().with_extension("other");
        let mut lines: Vec<String> = config.lines().map(str::to_owned).collect();
        for line in &mut lines {
            if line.starts_with("listen = ") {
                *line = format!("listen = \"{address}\"");
            } else if line.starts_with("pin-dir = ") {
                *line = format!("pin-dir = \"{}\"", pins.display());
            }
        }
        std::fs::write(other.join("agent.toml"), lines.join("\n")).unwrap();
        let output = std::process::Command::new(ringfence_tests::program::product("ringfence"))
            .args(["agent", "--config"])
            .arg(other.join("agent.toml"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&address.to_string()) && said.contains("[metrics] listen"),
            "{said}"
        );
        assert!(!pins.exists() && !other.join("agent.sock").exists());

        // Where one was in force, a start that fails takes nothing away.
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
        agent.kill();
        std::fs::write(agent.config(), lines.join("\n").replace(".other\"", "\"")).unwrap();
        let output = std::process::Command::new(ringfence_tests::program::product("ringfence"))
            .args(["agent", "--config"])
            .arg(agent.config())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(sandbox.pins().exists());
        let _ = assert_refused(&web, "127.0.0.1:81", &[]);
    });
}

#[test]
fn a_cgroup_root_that_does_not_exist_is_an_error_that_names_it() {
    scene("no-root", |sandbox| {
        let root = sandbox.guarded().join("missing");
        let ended = refused(
            sandbox,
            &format!("cgroup-root = \"{}\"", root.display()),
            "",
        );
        assert!(
            ended.log.contains(&root.display().to_string()),
            "{}",
            ended.log
        );
    });
}

#[test]
fn a_cgroup_root_that_is_not_cgroup_v2_is_an_error_that_names_it() {
    scene("no-v2", |sandbox| {
        let root = sandbox.files().to_owned();
        let ended = refused(
            sandbox,
            &format!("cgroup-root = \"{}\"", root.display()),
            "",
        );
        assert!(
            ended.log.contains(&root.display().to_string()),
            "{}",
            ended.log
        );
    });
}

#[test]
fn a_broken_configuration_is_an_error_with_its_line() {
    scene("toml", |sandbox| {
        for broken in [
            "[flows",
            "[flows]\ncapacity = \"many\"",
            "[flow]\ncapacity = 1",
        ] {
            let ended = refused(sandbox, "", broken);
            assert!(ended.log.contains("agent.toml:"), "{broken}: {}", ended.log);
        }
    });
}
