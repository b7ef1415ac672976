//! What `exe` alone and `exe` with `sha256` make of a program that is replaced, changed in place or copied.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ringfence_tests::{
    Actor, Agent, Sandbox,
    policy::{policy, workload},
    scene,
};

use crate::common::{assert_allowed, assert_held, assert_never_passes, sha256};

const ADDRESS: &str = "127.0.0.1:81";

/// In the cgroup `/app` only what `selectors` choose may call.
fn only(selectors: &str) -> String {
    workload("good", &format!("cgroup = \"/app\", {selectors}"))
        + &workload("rest", "cgroup = \"/app\"")
        + &policy("good", "", &[("egress", "ports = [\"81/tcp\"]")])
        + &policy("rest", "default-deny = [\"egress\"]", &[])
}

/// The next version of a program: it does the same, and its bytes are others.
fn next_version(program: &Path) -> Vec<u8> {
    let mut bytes = fs::read(program).unwrap();
    bytes.push(0);
    bytes
}

fn copy_to(sandbox: &Sandbox, name: &str, program: &Path, bytes: &[u8]) -> PathBuf {
    let path = sandbox.files().join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::metadata(program).unwrap().permissions()).unwrap();
    path
}

/// What happens to a program, in this order: a copy elsewhere, a replacement, a change in place.
fn upgrade(sandbox: &Sandbox, good: &Actor, after: impl Fn(&str)) {
    let program = good.program();
    let runner = sandbox.actor("runner").in_cgroup(sandbox, "app");
    let copy = copy_to(sandbox, "copy", program, &next_version(program));
    let script = format!(
        "exec {} call tcp {ADDRESS} --timeout-ms 2000",
        copy.display()
    );
    assert_never_passes("a copy elsewhere", || {
        runner.run(&["run", "sh", "-ec", &script])
    });
    let new = copy_to(sandbox, "new", program, &next_version(program));
    fs::rename(new, program).unwrap();
    after("replaced by rename");
    fs::write(program, next_version(program)).unwrap();
    after("changed in place");
}

#[test]
fn exe_follows_its_path_to_the_next_version_from_the_first_call_on() {
    scene("upgrade-exe", |sandbox| {
        let good = sandbox.actor("good").in_cgroup(sandbox, "app");
        let exe = format!("exe = \"{}\"", good.program().display());
        let agent = Agent::start(sandbox, &only(&exe));
        let _ = assert_allowed(&good, ADDRESS, &[]);
        upgrade(sandbox, &good, |_what| {
            let _first = assert_allowed(&good, ADDRESS, &[]);
        });
        agent.assert_counters();
    });
}

#[test]
fn exe_with_sha256_refuses_the_next_version_from_the_first_call_on() {
    scene("upgrade-sum", |sandbox| {
        let good = sandbox.actor("good").in_cgroup(sandbox, "app");
        let program = good.program();
        let selectors = |sum| format!("exe = \"{}\", sha256 = \"{sum}\"", program.display());
        let agent = Agent::start(sandbox, &only(&selectors(sha256(program))));
        let _ = assert_allowed(&good, ADDRESS, &[]);
        upgrade(sandbox, &good, |what| {
            assert_held(what, &good.tcp(ADDRESS, &["--timeout-ms", "2000"]));
            assert_never_passes(what, || good.tcp(ADDRESS, &["--timeout-ms", "2000"]));
        });
        // Whoever approves the next version names its digest.
        agent.set_policy(&only(&selectors(sha256(program))));
        let _ = assert_allowed(&good, ADDRESS, &[]);
        agent.assert_counters();
    });
}
