//! The one way to end enforcement.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use ringfence_agent::datapath::pins;
use ringfence_tests::{Agent, Sandbox, poll::until, program, scene};

use crate::common::{assert_allowed, assert_refused, three_tiers};

const AT_DB: &str = "127.0.0.1:5432";

fn detach(arguments: &[&str]) -> Output {
    let mut command = Command::new(program::product("ringfence"));
    let output = command.arg("detach").args(arguments).output();
    output.unwrap()
}

fn text(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    text.concat()
}

fn config(agent: &Agent) -> String {
    format!("--config={}", agent.config().display())
}

fn pin_dir(sandbox: &Sandbox) -> String {
    format!("--pin-dir={}", sandbox.pins().display())
}

/// The directory of the only version.
fn version(sandbox: &Sandbox) -> std::path::PathBuf {
    let mut pins = fs::read_dir(sandbox.pins()).unwrap();
    let version = pins.next().unwrap().unwrap().path();
    assert!(pins.next().is_none(), "more than one version");
    version
}

#[test]
fn detach_ends_what_a_dead_agent_left_in_force() {
    scene("detach", |sandbox| {
        let web = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &three_tiers());
        let attached = agent.status().hooks.len();
        agent.kill();
        let _ = assert_refused(&web, AT_DB, &[]);

        let output = detach(&[&config(&agent), "--output=json"]);
        assert!(output.status.success(), "{output:?}");
        let _ = assert_allowed(&web, AT_DB, &[]);
        assert!(!sandbox.pins().exists(), "pins stay");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = |of: &serde_json::Value, key| of.get(key).unwrap().as_array().unwrap().clone();
        let versions = list(&said, "versions");
        assert_eq!(versions.len(), 1, "{said}");
        let version = versions.first().unwrap();
        let hooks = list(version, "hooks");
        assert_eq!(hooks.len(), attached, "{said}");
        let guarded = sandbox.guarded().to_str().unwrap();
        assert!(
            hooks
                .iter()
                .all(|hook| hook.get("cgroup").unwrap() == guarded),
            "{said}"
        );
        assert_eq!(list(version, "maps").len(), pins::maps().count(), "{said}");
        assert_eq!(list(&said, "left").len(), 0, "{said}");

        for way in [config(&agent), pin_dir(sandbox)] {
            let output = detach(&[&way]);
            assert!(output.status.success(), "{output:?}");
            assert!(text(&output).contains("Nothing to remove"), "{output:?}");
        }
        // It is no end for ever.
        agent.restart();
        let _ = assert_refused(&web, AT_DB, &[]);
    });
}

/// Whether the kernel still has an object of that kind and number.
fn is_there(kind: &str, id: u32) -> bool {
    let mut show = Command::new("bpftool");
    let output = show.args([kind, "show", "id", &id.to_string()]).output();
    output.unwrap().status.success()
}

#[test]
fn detach_leaves_nothing_in_the_kernel_and_flows_as_they_are() {
    scene("detach-whole", |sandbox| {
        let [web, api] = ["web", "api"].map(|name| sandbox.actor(name));
        let mut agent = Agent::start(sandbox, &three_tiers());
        let _server = api.serve(&["tcp", "127.0.0.1:8080", "--echo"]);
        let mut stream = web.hold("127.0.0.1:8080");
        let hooks = agent.status().hooks;
        assert!(!hooks.is_empty());
        for hook in &hooks {
            assert!(is_there("prog", hook.program_id), "{hook:?}");
            assert!(is_there("link", hook.link_id), "{hook:?}");
        }
        assert!(agent.terminate().success());
        for hook in &hooks {
            assert!(
                is_there("link", hook.link_id),
                "gone with the agent: {hook:?}"
            );
        }
        let output = detach(&[&config(&agent)]);
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        for hook in &hooks {
            assert!(said.contains(&hook.name), "{}: {said}", hook.name);
        }
        // The kernel frees programs and maps a little later than links.
        until("no program and no link is left", || {
            hooks
                .iter()
                .all(|hook| !is_there("prog", hook.program_id) && !is_there("link", hook.link_id))
        });
        let attached = Command::new("bpftool")
            .args(["cgroup", "show"])
            .arg(sandbox.guarded())
            .output()
            .unwrap();
        assert!(attached.stdout.is_empty(), "{attached:?}");
        assert!(!agent.socket().exists(), "the socket stays");
        assert!(stream.is_alive(), "an allowed flow was cut");
        stream.kill();
        let _ = assert_allowed(&web, AT_DB, &[]);
    });
}

#[test]
fn detach_is_refused_while_an_agent_runs() {
    scene("detach-live", |sandbox| {
        let web = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &three_tiers());
        let pid = agent.daemon().pid();
        for way in [config(&agent), pin_dir(sandbox)] {
            let output = detach(&[&way]);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let text = text(&output);
            assert!(text.contains(&format!("process {pid}")), "{text}");
            assert!(text.contains("stop it first"), "{text}");
        }
        let status = agent.status();
        assert!(status.hooks.iter().all(|hook| hook.attached), "{status:?}");
        let _ = assert_refused(&web, AT_DB, &[]);
        agent.kill();
        let _ = assert_refused(&web, AT_DB, &[]);
    });
}

#[test]
fn detach_removes_every_version_and_leaves_what_is_not_ringfences() {
    scene("detach-foreign", |sandbox| {
        let web = sandbox.actor("web");
        let mut agent = Agent::start(sandbox, &three_tiers());
        let hooks = agent.status().hooks.len();
        agent.kill();
        // What was pinned by an agent of another version, and pins of someone else.
        let own = version(sandbox);
        let other = sandbox.pins().join("v999");
        fs::rename(&own, &other).unwrap();
        let foreign = [
            sandbox.pins().join("theirs"),
            other.join("theirs"),
            other.join("links/theirs"),
            // A map that is called as a hook is.
            sandbox.pins().join("v8/links/egress"),
        ];
        for pin in &foreign {
            fs::create_dir_all(pin.parent().unwrap()).unwrap();
            fs::hard_link(other.join("ACTIVE"), pin).unwrap();
        }

        let output = detach(&[&pin_dir(sandbox)]);
        assert!(output.status.success(), "{output:?}");
        let _ = assert_allowed(&web, AT_DB, &[]);
        let text = text(&output);
        let removed = format!("{hooks} hooks and {} maps", pins::maps().count());
        assert!(text.contains(&removed), "{text}");
        assert!(text.contains("v999"), "{text}");
        for pin in &foreign {
            assert!(pin.exists(), "{} is gone", pin.display());
            assert!(text.contains(pin.to_str().unwrap()), "{text}");
        }
        let left = |dir: &Path| fs::read_dir(dir).unwrap().count();
        assert_eq!(left(&other), 2, "more than `theirs` and `links`");
        assert_eq!(left(&other.join("links")), 1);

        let output = detach(&[&pin_dir(sandbox)]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("Nothing to remove"), "{text}");
    });
}

#[test]
fn detach_touches_no_other_file_system() {
    scene("detach-elsewhere", |sandbox| {
        let links = sandbox.files().join("v2/links");
        fs::create_dir_all(&links).unwrap();
        fs::write(links.join("egress"), "").unwrap();
        let output = detach(&[&format!("--pin-dir={}", sandbox.files().display())]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = text(&output);
        assert!(
            text.contains("not on a bpffs") && text.contains("--pin-dir"),
            "{text}"
        );
        assert!(links.join("egress").exists());

        let output = detach(&[&format!("--config={}/none.toml", sandbox.files().display())]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = self::text(&output);
        assert!(
            text.contains("none.toml") && text.contains("--pin-dir"),
            "{text}"
        );
    });
}
