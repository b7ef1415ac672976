//! Commands against a real agent interface, and against none.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ringfence_common::abi::{Verdict, event};

mod listing;

use super::{
    args::{Format, ObserveArgs},
    *,
};
use crate::api::fixture::Fixture;

/// What a command wrote.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn output(&self, format: Option<Format>) -> Output {
        Output::new(Box::new(self.clone()), format)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn explain_without_a_subject_lists_its_forms() {
    let told = |words: &[&str]| {
        let words = ["ringfence", "explain"].iter().chain(words);
        Cli::try_parse_from(words).unwrap_err().to_string()
    };
    for words in [&[][..], &["--to", "db", "--port", "1"]] {
        let text = told(words);
        for form in [
            "explain --from <WHO> --to <WHO> --port <PORT>",
            "explain --pid <N>",
        ] {
            assert!(text.contains(form), "{words:?}: {text}");
        }
    }
    assert!(told(&["--from", "web"]).contains("--to <WHO>"));
    let both = ["--from", "web", "--to", "db", "--port", "1", "--pid", "7"];
    assert!(told(&both).contains("cannot be used with"));
}

#[test]
fn options_are_consistent() {
    Cli::command().debug_assert();
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("Exit codes"), "{help}");
    assert!(Cli::try_parse_from(["ringfence", "observe", "--port", "70000"]).is_err());
    assert!(Cli::try_parse_from(["ringfence", "observe", "--address", "db"]).is_err());
    let cli = Cli::try_parse_from([
        "ringfence",
        "observe",
        "-f",
        "--protocol",
        "udp",
        "-o",
        "json",
    ])
    .unwrap();
    assert_eq!(cli.output, Some(Format::Json));
    let Command::Observe { args, .. } = cli.command else {
        unreachable!("observe was asked for");
    };
    let request = observe::request(&args);
    assert!(request.follow);
    assert_eq!(request.last, 0);
    assert_eq!(request.filters.first().unwrap().protocol, [17]);
}

#[test]
fn only_commands_that_ask_the_agent_take_its_socket() {
    for (words, takes) in [
        (&["status"][..], true),
        (&["observe"], true),
        (
            &["explain", "--from", "a", "--to", "b", "--port", "1"],
            true,
        ),
        (&["policy", "list"], true),
        (&["workload", "list"], true),
        (&["workload", "list", "web"], true),
        (&["workload", "list", "--workload", "web"], true),
        (&["identity", "list"], true),
        (
            &["endpoint", "list", "--workload", "a", "--workload", "b"],
            true,
        ),
        (&["explain", "--pid", "7"], true),
        (&["explain", "--pid", "7", "--to", "b", "--port", "1"], true),
        (&["policy", "check", "a"], false),
        (&["completions", "bash"], false),
        (&["agent"], false),
    ] {
        let line = ["ringfence"].iter().chain(words).chain(&["--socket", "/s"]);
        assert_eq!(Cli::try_parse_from(line).is_ok(), takes, "{words:?}");
    }
}

#[test]
fn a_draft_verdict_that_can_not_be_is_refused_with_the_reason() {
    let parse =
        |verdict: &str| Cli::try_parse_from(["ringfence", "observe", "--draft-verdict", verdict]);
    assert!(parse("allow").is_ok() && parse("deny").is_ok());
    let error = parse("audit").unwrap_err().to_string();
    assert!(error.contains("passes in draft mode"), "{error}");
    assert!(error.contains("--verdict audit"), "{error}");
    assert!(parse("maybe").is_err());
    assert!(Cli::try_parse_from(["ringfence", "observe", "--verdict", "audit"]).is_ok());
}

#[test]
fn times_of_a_trial_are_written_with_their_unit() {
    let parse = |time: &str| {
        let words = ["ringfence", "policy", "apply", "a.toml", "--confirm", time];
        let cli = Cli::try_parse_from(words).ok()?;
        let Command::Policy(PolicyCommand::Apply { args, .. }) = cli.command else {
            return None;
        };
        args.confirm.map(|time| time.0)
    };
    for (text, seconds) in [
        ("1s", Some(1)),
        ("60s", Some(60)),
        ("10m", Some(600)),
        ("24h", Some(86_400)),
        ("25h", None),
        ("0s", None),
        ("60", None),
        ("-1s", None),
        ("1.5m", None),
        ("s", None),
        ("99999999999h", None),
        ("4294967295h", None),
        ("", None),
    ] {
        assert_eq!(parse(text), seconds, "{text}");
    }
    let both = ["policy", "apply", "a", "--confirm", "1s", "--dry-run"];
    let both = Cli::try_parse_from(["ringfence"].iter().chain(&both));
    assert!(
        both.is_err(),
        "a dry run changes nothing that could be confirmed"
    );
    let none = Cli::try_parse_from(["ringfence", "policy", "apply"]);
    assert!(none.is_err());
}

#[tokio::test]
async fn what_is_no_question_is_wrong_usage() {
    let fixture = Fixture::start().await;
    let ask = async |from: &str, to: &str, protocol: &str| {
        let args = args::ExplainArgs {
            from: Some(from.to_owned()),
            pid: None,
            to: Some(to.to_owned()),
            port: Some(5432),
            protocol: protocol.to_owned(),
        };
        let output = &mut Written::default().output(None);
        explain::run(&fixture.path, &args, output)
            .await
            .unwrap_err()
    };
    for (from, to, protocol) in [
        ("nobody", "db", "tcp"),
        ("web@here", "db", "tcp"),
        ("web", "db", "carrier-pigeon"),
        ("10.0.0.1", "10.0.0.2", "tcp"),
    ] {
        let error = ask(from, to, protocol).await;
        assert_eq!(error.exit_code(), 2, "{from} {to} {protocol}: {error}");
        assert!(error.text().is_some());
    }
}

#[tokio::test]
async fn a_change_on_trial_is_in_the_first_line_and_in_json() {
    let fixture = Fixture::start().await;
    fixture.change(|status| {
        status.policy_error = None;
        status.pending = Some(crate::change::Pending {
            applied: std::time::UNIX_EPOCH,
            // The fixture's clock stands at 10.
            until_ns: 41_000_000_010,
            uid: 7,
            changed: vec!["web.toml".to_owned()],
            removed: vec!["old.toml".to_owned()],
        });
    });
    let ask = async |format| {
        let written = Written::default();
        status::run(&fixture.path, &mut written.output(format))
            .await
            .unwrap();
        written.text()
    };
    let headline = "ENFORCING (change on trial: rolled back in 41 s unless confirmed)";
    assert_eq!(ask(Some(Format::Compact)).await, format!("{headline}\n"));
    let table = ask(None).await;
    assert!(table.starts_with(headline), "{table}");
    assert!(table.contains("web.toml, -old.toml; by user 7"), "{table}");
    let value: serde_json::Value = serde_json::from_str(&ask(Some(Format::Json)).await).unwrap();
    assert_eq!(value.pointer("/headline").unwrap(), headline);
    assert_eq!(value.pointer("/pending_change/seconds_left").unwrap(), 41);
    fixture.change(|status| status.pending = None);
    let value: serde_json::Value = serde_json::from_str(&ask(Some(Format::Json)).await).unwrap();
    assert_eq!(value.pointer("/headline").unwrap(), "ENFORCING");
    assert!(value.pointer("/pending_change").unwrap().is_null());
}

#[tokio::test]
async fn observe_writes_one_line_per_record() {
    let fixture = Fixture::start().await;
    fixture.deny(1);
    fixture.push(event::CLOSE, Verdict::Allow, 2);
    let written = Written::default();
    let args = ObserveArgs::default();
    observe::run(&fixture.path, &args, &mut written.output(None))
        .await
        .unwrap();
    let text = written.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "12:00:01.123 DENY  egress  tcp web(4000000000 curl) 10.0.0.1:40000 -> db 10.0.0.2:5432 default-deny",
            "12:00:01.123 CLOSE egress  tcp web(4000000000 curl) 10.0.0.1:40000 -> db 10.0.0.2:5432 direction-allow 1.5KiB -> 10B <- 1.123s",
        ]
    );
}

#[tokio::test]
async fn observe_writes_json_lines_and_tables() {
    let fixture = Fixture::start().await;
    fixture.deny(1);
    let written = Written::default();
    let args = ObserveArgs::default();
    observe::run(
        &fixture.path,
        &args,
        &mut written.output(Some(Format::Json)),
    )
    .await
    .unwrap();
    let value: serde_json::Value = serde_json::from_str(written.text().trim_end()).unwrap();
    assert_eq!(value.pointer("/source/workload").unwrap(), "web");
    assert_eq!(value.pointer("/enforced/verdict").unwrap(), "deny");
    assert_eq!(value.pointer("/time").unwrap(), "1970-01-01T12:00:01.123Z");

    let written = Written::default();
    observe::run(
        &fixture.path,
        &args,
        &mut written.output(Some(Format::Table)),
    )
    .await
    .unwrap();
    let text = written.text();
    assert!(text.starts_with("TIME          EVENT  VERDICT"), "{text}");
    assert!(text.contains("default-deny"), "{text}");
    assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
}

#[tokio::test]
async fn following_an_agent_that_stops_is_an_error() {
    let fixture = Fixture::start().await;
    let written = Written::default();
    let args = ObserveArgs {
        follow: true,
        last: Some(1),
        ..ObserveArgs::default()
    };
    fixture.deny(1);
    let (path, mut output) = (fixture.path.clone(), written.output(None));
    let stop = async {
        while written.text().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        fixture.cancel.cancel();
    };
    let (result, ()) = tokio::join!(observe::run(&path, &args, &mut output), stop);
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    assert!(
        error.to_string().contains("the agent is stopping"),
        "{error}"
    );
}

#[tokio::test]
async fn status_shows_state_losses_and_warnings() {
    let fixture = Fixture::start().await;
    let written = Written::default();
    status::run(&fixture.path, &mut written.output(None))
        .await
        .unwrap();
    let text = written.text();
    for expected in [
        "ENFORCING (newest policy refused)\n",
        "Generation:  7 from files\n",
        "Restricted:  2\n",
        "Policy refused:\n  web.toml:3: wrong\n",
        "connect4  attached  11       12\n",
        "bpf-lsm",
        "event-lost  5\n",
        "Warning: the failsafe list is empty",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("event-sent"), "{text}");
}

/// What `status` writes in this form, and how it ends.
async fn shown(fixture: &Fixture, format: Format) -> (String, Result<(), CliError>) {
    let written = Written::default();
    let result = status::run(&fixture.path, &mut written.output(Some(format))).await;
    (written.text(), result)
}

#[tokio::test]
async fn the_headline_says_whether_anything_is_restricted() {
    let fixture = Fixture::start().await;
    let headline = async || shown(&fixture, Format::Compact).await.0;
    assert_eq!(headline().await, "ENFORCING (newest policy refused)\n");
    fixture.change(|status| status.policy_error = None);
    assert_eq!(headline().await, "ENFORCING\n");

    let mut drafts = crate::api::fixture::view();
    let compiled = Arc::make_mut(&mut drafts.compiled);
    let tables = std::mem::take(&mut compiled.tables).into_iter();
    let without = tables.map(|(identity, mut table)| {
        Arc::make_mut(&mut table).header.enforced = 0;
        (identity, table)
    });
    compiled.tables = without.collect();
    fixture.set_policy(drafts.clone());
    let nothing = "NOTHING RESTRICTED: no enforced policy selects a workload\n";
    assert_eq!(headline().await, nothing);
    Arc::make_mut(&mut drafts.compiled).deny_unselected = true;
    fixture.set_policy(drafts);
    assert_eq!(headline().await, "ENFORCING\n");

    fixture.set_policy(crate::api::PolicyView::default());
    assert_eq!(headline().await, "NO POLICY: nothing is restricted\n");
    fixture.change(|status| status.policy_error = Some("a.toml:1: wrong".to_owned()));
    let refused = "NO POLICY: nothing is restricted (newest policy refused)\n";
    assert_eq!(headline().await, refused);
}

#[tokio::test]
async fn a_host_that_is_not_guarded_is_another_exit_code() {
    let fixture = Fixture::start().await;
    let (_, result) = shown(&fixture, Format::Table).await;
    assert!(result.is_ok(), "{result:?}");
    fixture.change(|status| {
        for hook in &mut status.hooks {
            hook.attached = false;
        }
    });
    for format in [Format::Table, Format::Json, Format::Compact] {
        let (text, result) = shown(&fixture, format).await;
        assert!(!text.is_empty());
        let error = result.unwrap_err();
        assert_eq!((error.exit_code(), error.text()), (4, None));
    }
    fixture.change(|status| status.hooks.clear());
    let (text, result) = shown(&fixture, Format::Compact).await;
    assert!(text.starts_with("NOT GUARDED"), "{text}");
    assert!(result.is_err());
}

#[tokio::test]
async fn status_tells_why_the_controller_is_away_and_every_error_on_its_line() {
    let fixture = Fixture::start().await;
    fixture.change(|status| {
        status.controller_state = Some(crate::api::ControllerState::Connecting);
        status.controller_endpoint = "https://controller.example:8443".to_owned();
        status.controller_error = Some("cannot connect: refused\u{1b}[2J".to_owned());
        status.controller_generation = 3;
        status.policy_error = Some("a.toml:1: one\nb.toml:2: two".to_owned());
    });
    let (text, _) = shown(&fixture, Format::Table).await;
    for expected in [
        "Controller:  connecting, https://controller.example:8443, generation 3\n",
        "Controller:\n  cannot connect: refused\u{fffd}[2J\n",
        "Policy refused:\n  a.toml:1: one\n  b.toml:2: two\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let (text, _) = shown(&fixture, Format::Json).await;
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let endpoint = value.pointer("/controller_endpoint").unwrap();
    assert_eq!(endpoint, "https://controller.example:8443");
    assert!(value.pointer("/controller_error").is_some(), "{text}");
}

#[tokio::test]
async fn lists_look_like_columns_or_json() {
    let fixture = Fixture::start().await;
    fixture.show_host();
    let written = Written::default();
    inventory::workloads(&fixture.path, None, &mut written.output(None))
        .await
        .unwrap();
    lists::policies(&fixture.path, &mut written.output(None))
        .await
        .unwrap();
    let text = written.text();
    assert!(text.starts_with("NAME  IDENTITY"), "{text}");
    assert!(text.contains("app=web,tier=front"), "{text}");
    assert!(text.contains("db-draft  draft"), "{text}");
    let written = Written::default();
    lists::policies(&fixture.path, &mut written.output(Some(Format::Json)))
        .await
        .unwrap();
    let value: serde_json::Value = serde_json::from_str(&written.text()).unwrap();
    assert_eq!(
        value.pointer("/2/not_after").unwrap(),
        "2100-01-31T18:00:00Z"
    );
    let written = Written::default();
    let output = &mut written.output(Some(Format::Compact));
    inventory::workloads(&fixture.path, None, output)
        .await
        .unwrap();
    assert!(written.text().starts_with("db"), "{}", written.text());
}

#[tokio::test]
async fn following_in_columns_writes_row_by_row() {
    let fixture = Fixture::start().await;
    fixture.deny(1);
    fixture.push(event::OPEN, Verdict::Allow, 2);
    let written = Written::default();
    let args = ObserveArgs {
        follow: true,
        last: Some(2),
        ..ObserveArgs::default()
    };
    let mut output = written.output(Some(Format::Table));
    let task = observe::run(&fixture.path, &args, &mut output);
    let ended = tokio::select! {
        ended = task => Some(ended),
        () = async {
            while written.text().lines().count() < 3 {
                tokio::task::yield_now().await;
            }
        } => None,
    };
    assert!(ended.is_none(), "{ended:?}");
    let text = written.text();
    let lines: Vec<&str> = text.lines().collect();
    let [header, deny, open] = lines.as_slice() else {
        unreachable!("three lines were waited for");
    };
    for (title, cell) in [
        ("VERDICT", "deny"),
        ("SOURCE", "web("),
        ("REASON", "default-deny"),
    ] {
        let column = header.find(title).unwrap();
        assert!(deny.get(column..).unwrap().starts_with(cell), "{text}");
    }
    let column = header.find("REASON").unwrap();
    assert!(
        open.get(column..).unwrap().starts_with("direction-allow"),
        "{text}"
    );
    assert!(open.ends_with(" -"), "{text}");
}

async fn explain(fixture: &Fixture, port: &str) -> (Result<(), CliError>, String) {
    let question = [
        "ringfence",
        "explain",
        "--from",
        "web",
        "--to",
        "db",
        "--port",
        port,
    ];
    let cli = Cli::try_parse_from(question).unwrap();
    let Command::Explain { args, .. } = cli.command else {
        unreachable!("explain was asked for");
    };
    let written = Written::default();
    let result = explain::run(&fixture.path, &args, &mut written.output(None)).await;
    (result, written.text())
}

#[tokio::test]
async fn explain_shows_both_sides() {
    let fixture = Fixture::start().await;
    let (result, text) = explain(&fixture, "5432").await;
    result.unwrap();
    assert!(text.starts_with("ALLOW web -> db 5432/tcp\n"), "{text}");
    assert!(text.contains("web/egress[0]"), "{text}");
    assert!(text.contains("db-draft/deny-ingress[0]"), "{text}");
}

#[tokio::test]
async fn explain_tells_a_denied_flow_by_its_exit_code() {
    let fixture = Fixture::start().await;
    let (result, text) = explain(&fixture, "80").await;
    let error = result.unwrap_err();
    assert_eq!((error.exit_code(), error.text()), (1, None));
    assert!(text.starts_with("DENY web -> db 80/tcp\n"), "{text}");

    fixture.set_mode(crate::config::Mode::Draft);
    let (result, text) = explain(&fixture, "80").await;
    result.unwrap();
    assert!(text.starts_with("AUDIT web -> db 80/tcp\n"), "{text}");
    assert!(text.contains("Note: the agent is in draft mode"), "{text}");
}

#[tokio::test]
async fn an_absent_agent_is_one_line_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let error = status::run(&socket, &mut Written::default().output(None))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&socket.display().to_string()) && text.contains("--socket"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let gone = CliError::Output(io::ErrorKind::BrokenPipe.into());
    assert!(gone.reader_is_gone());
    assert!(!CliError::PolicyInvalid.reader_is_gone());
}

fn check(files: &[(&str, &str)]) -> (Result<(), CliError>, serde_json::Value) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let written = Written::default();
    let paths = [directory.path().to_owned()];
    let result = policy::check(&paths, &mut written.output(Some(Format::Json)));
    (result, serde_json::from_str(&written.text()).unwrap())
}

const GOOD: &str = "[[workload]]\nname = \"web\"\nlabels = { app = \"web\" }\nmatch = { systemd-unit = \"web.service\" }\n";

#[test]
fn a_valid_policy_passes() {
    let (result, found) = check(&[
        ("web.toml", GOOD),
        ("note.txt", "no policy"),
        (".hidden.toml", "[[["),
    ]);
    assert!(result.is_ok(), "{found}");
    assert_eq!(found.pointer("/valid").unwrap(), true);
}

#[test]
fn what_was_checked_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.toml"), GOOD).unwrap();
    let written = Written::default();
    policy::check(&[directory.path().to_owned()], &mut written.output(None)).unwrap();
    let expected = "valid: 1 workload, 0 policies, 0 rules in 1 document\n";
    assert_eq!(written.text(), expected);
}

#[test]
fn every_error_of_a_policy_is_told() {
    let (result, found) = check(&[("a.toml", "[[workload]]\nnam = 1\n"), ("b.toml", "[[[")]);
    assert_eq!(result.unwrap_err().exit_code(), 1);
    assert!(found.pointer("/errors/1").is_some(), "{found}");
    let (result, _) = check(&[("a.toml", GOOD), ("b.toml", GOOD)]);
    assert!(result.is_err());
}

#[test]
fn a_missing_document_is_wrong_usage() {
    let paths = [PathBuf::from("/nonexistent/policy.toml")];
    let error = policy::check(&paths, &mut Written::default().output(None)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn a_directory_is_read_as_the_agent_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let checked = || {
        let paths = [directory.path().to_owned()];
        policy::check(&paths, &mut Written::default().output(None))
    };
    let empty = checked().unwrap_err();
    assert!(empty.to_string().contains("holds no .toml file"), "{empty}");
    assert_eq!(empty.exit_code(), 1);
    fs::write(directory.path().join("empty.toml"), "").unwrap();
    checked().unwrap();
    fs::create_dir(directory.path().join("d.toml")).unwrap();
    let odd = checked().unwrap_err();
    assert!(odd.to_string().contains("not a regular file"), "{odd}");
    assert_eq!(odd.exit_code(), 1);
}

#[test]
fn numbers_and_text_are_made_readable() {
    assert_eq!(words::bytes(0), "0B");
    assert_eq!(words::bytes(1536), "1.5KiB");
    assert_eq!(words::bytes(u64::MAX), "16777215.9TiB");
    assert_eq!(words::verdict(9), "unknown(9)");
    assert_eq!(words::clean("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    assert_eq!(words::time(None), "");
}

#[test]
fn a_check_names_everything_that_the_start_would_refuse_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    let text = "[agent]\ncgroup-root = \"nowhere\"\npin-dir = \"pins\"\nstate-dir = \"/dev/null/state\"\n\
        policy-dir = \"agent.toml\"\n[failsafe]\ninbound = [{ ports = [\"22/tcp\"], from = [\"10.0.0.0/8\"] }]\n[controller]\nendpoints = [\"https://c:1\"]\nca = \"ca\"\ncert = \"c\"\nkey = \"k\"\n";
    fs::write(&path, text).unwrap();
    let output = &mut Written::default().output(None);
    let error = check::run(&path, output).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = error.text().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let told = [
        ["[agent] cgroup-root:", "nowhere does not exist"],
        ["[agent] pin-dir:", "not on a bpffs"],
        ["[agent] state-dir:", "/dev/null is not a directory"],
        ["[agent] policy-dir:", "agent.toml"],
        ["[controller] cannot read", "/ca"],
    ];
    assert_eq!(lines.len(), told.len(), "{text}");
    for (line, told) in lines.iter().zip(told) {
        assert!(line.starts_with(&path.display().to_string()), "{line}");
        assert!(
            told.iter().all(|part| line.contains(part)),
            "{told:?}: {line}"
        );
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_check_passes_what_the_start_would_make() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    let text = "[agent]\npin-dir = \"/sys/fs/bpf/ringfence-check\"\nstate-dir = \"a/state\"\n\
        policy-dir = \"policy.d\"\n[api]\nunix = \"run/agent.sock\"\n\
        [failsafe]\ninbound = [{ ports = [\"22/tcp\"], from = [\"10.0.0.0/8\"] }]\n";
    fs::write(&path, text).unwrap();
    let written = Written::default();
    check::run(&path, &mut written.output(None)).unwrap();
    let text = written.text();
    for expected in [
        format!("ok: configuration {}\n", path.display()),
        "ok: cgroup-root auto\n".to_owned(),
        "ok: pin-dir /sys/fs/bpf/ringfence-check\n".to_owned(),
        "ok: this host has ".to_owned(),
        "not checked: ".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected}\n{text}");
    }
    assert!(text.contains("cap-bpf") && text.contains("btf"), "{text}");
    let written = Written::default();
    check::run(&path, &mut written.output(Some(Format::Json))).unwrap();
    let value: serde_json::Value = serde_json::from_str(&written.text()).unwrap();
    assert!(value.pointer("/features/0/present").unwrap().is_boolean());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(!PathBuf::from("/sys/fs/bpf/ringfence-check").exists());
}
