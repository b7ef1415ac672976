//! Lists of workloads, identities and endpoints, and what a process is.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command as Process, Stdio},
};

use ringfence_proto::text::is_hostile;
use serde_json::Value;

use super::*;
use crate::identity::Inventory;

/// A process of this machine that waits, under a name that a terminal would obey.
struct Waiting(Child);

impl Waiting {
    fn start(program: &std::path::Path) -> Self {
        let _copied = fs::copy("/bin/sleep", program).unwrap();
        let child = Process::new(program)
            .arg0("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn value(written: &Written) -> Value {
    serde_json::from_str(&written.text()).unwrap()
}

#[tokio::test]
async fn endpoints_are_rows_or_json_and_a_wrong_name_is_told() {
    let fixture = Fixture::start().await;
    let written = Written::default();
    inventory::endpoints(&fixture.path, &[], &mut written.output(None))
        .await
        .unwrap();
    let text = written.text();
    assert!(text.contains("tcp [::]:80"), "{text}");
    assert!(text.contains("ipv6, ipv4"), "{text}");
    assert!(text.contains("tcp 10.0.0.2:5432"), "{text}");

    let written = Written::default();
    let output = &mut written.output(Some(Format::Json));
    inventory::endpoints(&fixture.path, &["db".to_owned()], output)
        .await
        .unwrap();
    let found = value(&written);
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found.pointer("/0/address").unwrap(), "10.0.0.2");

    let output = &mut Written::default().output(None);
    let refused = inventory::endpoints(&fixture.path, &["weeb".to_owned()], output).await;
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("did you mean web"), "{told}");
}

#[tokio::test]
async fn identities_begin_with_the_reserved_ones() {
    let fixture = Fixture::start().await;
    fixture.show_host();
    let written = Written::default();
    let output = &mut written.output(Some(Format::Json));
    inventory::identities(&fixture.path, output).await.unwrap();
    let found = value(&written);
    let names: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].clone())
        .collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert_eq!(names.get(..3).unwrap(), ["unknown", "host", "world"]);
    assert!(names.contains(&"web".into()), "{names:?}");
    let host = found.pointer("/1").unwrap();
    assert_eq!(
        (&host["kind"], &host["cgroups"]),
        (&"reserved".into(), &1.into())
    );
    assert!(host["processes"].as_u64().unwrap() > 0, "{host}");
}

/// A command line and what it writes, as text and as JSON.
async fn explained(fixture: &Fixture, words: &[&str]) -> (Result<(), CliError>, String, Value) {
    let line = ["ringfence", "explain"].iter().chain(words);
    let cli = Cli::try_parse_from(line).unwrap();
    let Command::Explain { args, .. } = cli.command else {
        unreachable!("explain was asked for");
    };
    let pid = args.pid.unwrap();
    let (text, json) = (Written::default(), Written::default());
    let result = why::run(&fixture.path, pid, &args, &mut text.output(None)).await;
    let output = &mut json.output(Some(Format::Json));
    let _same = why::run(&fixture.path, pid, &args, output).await;
    let json = serde_json::from_str(&json.text()).unwrap_or_default();
    (result, text.text(), json)
}

#[tokio::test]
async fn a_process_is_explained_with_its_near_miss_and_its_flow() {
    let fixture = Fixture::start().await;
    fixture.show_host();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("nap");
    let waiting = Waiting::start(&program);
    let pid = waiting.0.id().to_string();
    fixture.set_document(&format!(
        "[[workload]]\nname = \"nap\"\nmatch = {{ exe = \"{}\", uid = 4242 }}\n\
         [[workload]]\nname = \"other\"\nmatch = {{ exe = \"/nothing\", uid = 4243 }}\n",
        program.display()
    ));

    let (result, text, json) = explained(&fixture, &["--pid", &pid]).await;
    result.unwrap();
    assert!(text.contains("is host (1): no workload matches"), "{text}");
    assert!(text.contains("nap nearly matches"), "{text}");
    assert!(text.contains("no   uid = 4242, found"), "{text}");
    assert!(!text.contains("other"), "{text}");
    assert_eq!(
        json.pointer("/candidates/0/selectors/0/matched").unwrap(),
        true
    );
    assert_eq!(
        json.pointer("/candidates/0/selectors/1/wanted").unwrap(),
        "4242"
    );
    assert_eq!(
        json.pointer("/process/executable_state").unwrap(),
        "on-disk"
    );

    fs::remove_file(&program).unwrap();
    let (_, text, json) = explained(&fixture, &["--pid", &pid]).await;
    assert!(text.contains("nap (deleted)"), "{text}");
    assert_eq!(
        json.pointer("/candidates")
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        0
    );

    let flow = ["--pid", &pid, "--to", "203.0.113.1", "--port", "443"];
    let (result, text, _) = explained(&fixture, &flow).await;
    result.unwrap();
    assert!(text.contains("ALLOW host -> 203.0.113.1 443/tcp"), "{text}");
    assert!(text.contains("neither end is a workload"), "{text}");
}

#[tokio::test]
async fn what_is_no_guarded_process_is_told_apart() {
    let fixture = Fixture::start().await;
    fixture.show_host();
    let (result, ..) = explained(&fixture, &["--pid", "4294967295"]).await;
    let told = result.unwrap_err().to_string();
    assert!(told.contains("there is no process 4294967295"), "{told}");
    // kthreadd, unless this runs in a PID namespace of its own.
    let stat = fs::read_to_string("/proc/2/stat").unwrap_or_default();
    if stat.contains("(kthreadd)") {
        let (result, ..) = explained(&fixture, &["--pid", "2"]).await;
        let told = result.unwrap_err().to_string();
        assert!(told.contains("is a thread of the kernel"), "{told}");
    }
    let own = std::process::id().to_string();
    let (result, text, _) = explained(&fixture, &["--pid", &own]).await;
    result.unwrap();
    assert!(text.contains("is agent (7)"), "{text}");
}

#[tokio::test]
async fn names_that_a_terminal_would_obey_never_reach_it() {
    let fixture = Fixture::start().await;
    fixture.show_host();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("a\u{1b}[2J\u{9b}1m\u{202e}z");
    let waiting = Waiting::start(&program);
    let pid = waiting.0.id().to_string();
    let (_, text, _) = explained(&fixture, &["--pid", &pid]).await;
    assert!(text.contains("a\u{fffd}[2J\u{fffd}1m\u{fffd}z"), "{text:?}");
    assert!(
        text.chars().all(|c| c == '\n' || !is_hostile(c)),
        "{text:?}"
    );

    let json = Written::default();
    let args = ["ringfence", "explain", "--pid", &pid];
    let Command::Explain { args, .. } = Cli::try_parse_from(args).unwrap().command else {
        unreachable!("explain was asked for");
    };
    let output = &mut json.output(Some(Format::Json));
    why::run(&fixture.path, waiting.0.id(), &args, output)
        .await
        .unwrap();
    let text = json.text();
    assert!(
        text.chars().all(|c| c == '\n' || !is_hostile(c)),
        "{text:?}"
    );
    let path = value(&json).pointer("/process/executable").unwrap().clone();
    assert_eq!(path, program.to_str().unwrap());

    // So it is with records and with lists of cgroups.
    let mut view = crate::api::fixture::view();
    let hostile = "/db/\u{9b}31m\u{202e}".to_owned();
    view.cgroups = Inventory::new(["db"], [(1, hostile.as_str(), &["db"][..])]);
    fixture.set_policy(view);
    let json = Written::default();
    let output = &mut json.output(Some(Format::Json));
    inventory::workloads(&fixture.path, Some("db"), output)
        .await
        .unwrap();
    let text = json.text();
    assert!(
        text.chars().all(|c| c == '\n' || !is_hostile(c)),
        "{text:?}"
    );
    assert_eq!(
        value(&json).pointer("/0/cgroups/0").unwrap(),
        hostile.as_str()
    );
    let full = Written::default();
    inventory::workloads(&fixture.path, Some("db"), &mut full.output(None))
        .await
        .unwrap();
    let text = full.text();
    assert!(
        text.chars().all(|c| c == '\n' || !is_hostile(c)),
        "{text:?}"
    );
    assert!(text.contains("/db/\u{fffd}31m"), "{text:?}");
}
