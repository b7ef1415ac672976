//! Selectors that name what this host does not have are warned of, everywhere, until it is there.

use std::{fs, process::Command};

use ringfence_tests::{Agent, policy::workload, poll::until, program, scene};

#[test]
fn an_exe_without_a_file_and_an_unknown_user_are_warned_of_until_they_are_there() {
    scene("absent", |sandbox| {
        let path = sandbox.files().join("later");
        let text = workload("later", &format!("exe = \"{}\"", path.display()))
            + &workload("misspelt", "user = \"nobdy\"");
        let documents = sandbox.files().join("documents");
        fs::create_dir(&documents).unwrap();
        fs::write(documents.join("policy.toml"), &text).unwrap();
        let mut agent = Agent::start(sandbox, &workload("web", "cgroup = \"/web\""));
        let expected = [
            format!(
                " asks for exe = {}, which this host does not have",
                path.display()
            ),
            " asks for user = nobdy, which this host does not have".to_owned(),
        ];
        // How many of the two are told, each in one line.
        let told = |text: &str| {
            let lines = |what: &String| text.lines().filter(|line| line.contains(what)).count();
            expected.each_ref().map(lines)
        };
        let ringfence = |words: &[&str]| {
            let mut command = Command::new(program::product("ringfence"));
            let output = command.args(words).arg(&documents).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        };
        let socket = agent.socket().display().to_string();
        let dry_run = || ringfence(&["policy", "apply", "--dry-run", "--socket", &socket]);
        let in_force = |agent: &Agent| agent.status().warnings.join("\n");

        assert_eq!(told(&ringfence(&["policy", "check"])), [1, 1]);
        assert_eq!(told(&dry_run()), [1, 1]);
        assert_eq!(told(&in_force(&agent)), [0, 0]);
        agent.set_policy(&text);
        until("the policy in force is warned of", || {
            told(&in_force(&agent)) == [1, 1]
        });
        assert_eq!(told(&agent.daemon().log()), [1, 1]);
        let _bytes = fs::copy("/bin/true", &path).unwrap();
        until("the file is there", || told(&in_force(&agent)) == [0, 1]);
        assert_eq!(told(&ringfence(&["policy", "check"])), [0, 1]);
        assert_eq!(told(&dry_run()), [0, 1]);
        fs::remove_file(&path).unwrap();
        until("the file is gone", || told(&in_force(&agent)) == [1, 1]);
    });
}
