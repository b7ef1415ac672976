//! What is accepted, what is refused, and that the shipped file tells the truth.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::path::Path;

use super::*;
use crate::sync::Endpoint;

const SHIPPED: &str = include_str!("../../../config/agent.toml");

fn good(text: &str) -> Config {
    parse(Path::new("/etc/ringfence/agent.toml"), text).unwrap()
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(Path::new("agent.toml"), text) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

/// The shipped file with every commented key that is a default switched on.
fn switched_on() -> String {
    let mut in_controller = false;
    let mut lines = Vec::new();
    for line in SHIPPED.lines() {
        if line.starts_with('[') || line.starts_with("#[") {
            in_controller = line == "#[controller]";
        }
        let key = line
            .strip_prefix('#')
            .filter(|rest| !rest.starts_with([' ', '[']) && !rest.is_empty());
        match key {
            // An example precedes the default, which is the empty list.
            Some(key) if !in_controller && !key.starts_with("inbound = [{") => lines.push(key),
            Some(_) | None => lines.push(line),
        }
    }
    lines.join("\n")
}

#[test]
fn empty_file_has_the_defaults() {
    let config = good("");
    assert_eq!(config.agent.cgroup_root, CgroupRoot::Auto);
    assert_eq!(config.agent.mode, Mode::Enforce);
    assert_eq!(config.agent.unselected, Unselected::Allow);
    assert_eq!(config.controller, None);
    assert_eq!(config.api_socket, Path::new(DEFAULT_SOCKET));
    assert_eq!(config.flows.capacity, 65_536);
    assert_eq!(config.flows.events_buffer, 4 << 20);
    assert_eq!(config.metrics, Some("127.0.0.1:9477".parse().unwrap()));
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings.iter().any(|text| text.contains("failsafe")));
}

#[test]
fn shipped_file_loads_and_its_comments_state_the_defaults() {
    let switched_on = switched_on();
    let keys = switched_on
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .count();
    assert_eq!(keys, 22, "{switched_on}");
    assert_eq!(good(SHIPPED), good(""));
    assert_eq!(good(&switched_on), good(""));
}

#[test]
fn shipped_examples_of_the_other_keys_are_valid() {
    let all: String = SHIPPED
        .lines()
        .filter(|line| *line != "#inbound = []")
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let config = good(&all);
    let controller = config.controller.unwrap();
    let endpoint = Endpoint::parse("https://controller.example:8443").unwrap();
    assert_eq!(controller.endpoints(), [endpoint]);
    let ca = &controller.tls().unwrap().ca;
    assert_eq!(ca, Path::new("/etc/ringfence/ca.pem"));
    assert_eq!(controller.host(), "host-1");
    assert_eq!(config.failsafe.len(), 1);
    assert!(config.warnings.is_empty());
}

#[test]
fn relative_paths_count_from_the_file() {
    let config = good("[agent]\npolicy-dir = \"policy.d\"\nstate-dir = \"/var/x\"\n");
    assert_eq!(
        config.agent.policy_dir,
        Path::new("/etc/ringfence/policy.d")
    );
    assert_eq!(config.agent.state_dir, Path::new("/var/x"));
}

#[test]
fn the_guarded_directory_can_be_named() {
    let config = good("[agent]\ncgroup-root = \"/sys/fs/cgroup/unified\"\n");
    let expected = CgroupRoot::Path("/sys/fs/cgroup/unified".into());
    assert_eq!(config.agent.cgroup_root, expected);
    assert_eq!(problems("[agent]\ncgroup-root = \"\"\n").len(), 1);
}

#[test]
fn host_is_the_hosts_name_unless_set() {
    let config = good("[controller]\nendpoints = [\"unix:/c.sock\"]\n");
    assert!(!config.controller.unwrap().host().is_empty());
}

#[test]
fn every_problem_is_reported_with_its_line() {
    let text = "[agent]\nmod = \"draft\"\nunselected = \"maybe\"\npolicy-dir = 7\n\n[metrik]\n\n[metrics]\nlisten = \"nowhere\"\n";
    let found = problems(text);
    let lines: Vec<usize> = found.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [2, 3, 4, 6, 9], "{found:?}");
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts.first().unwrap(),
        "2: unknown key `mod` in section `[agent]`; did you mean `mode`?"
    );
    assert!(
        texts.get(1).unwrap().contains("write one of: allow, deny"),
        "{texts:?}"
    );
    assert!(
        texts.get(3).unwrap().contains("did you mean `metrics`?"),
        "{texts:?}"
    );
}

#[test]
fn an_error_names_the_file() {
    let error = parse(Path::new("x/agent.toml"), "[agent]\nfoo = 1\n").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("x/agent.toml:2: unknown key `foo`"),
        "{error}"
    );
    let error = load(Path::new("/nonexistent/agent.toml")).unwrap_err();
    assert!(error.to_string().contains("--config"), "{error}");
}

#[test]
fn syntax_errors_are_problems() {
    let found = problems("[agent]\nmode = \n[[[\n");
    assert!(found.iter().any(|problem| problem.line == 2), "{found:?}");
}

#[test]
fn sizes_must_suit_the_kernel() {
    assert_eq!(
        good("[flows]\nevents-buffer = 65536\n").flows.events_buffer,
        65_536
    );
    for size in ["\"3 MiB\"", "4096", "\"8 GiB\"", "\"many\"", "-1", "true"] {
        assert_eq!(
            problems(&format!("[flows]\nevents-buffer = {size}\n")).len(),
            1,
            "{size}"
        );
    }
    assert_eq!(
        problems("[flows]\ncapacity = 0\nflow-entries = 99999999\n").len(),
        2
    );
}

#[test]
fn sockets_of_runtimes_are_the_well_known_ones_or_those_named() {
    use crate::runtime::{Kind, Settings};
    assert_eq!(good("").containers, Settings::default());
    assert_eq!(Settings::default().named().count(), 0);
    let config = good(
        "[containers]\ndocker = []\ncri = [\"a.sock\", \"/run/k3s/containerd/containerd.sock\"]\n",
    );
    let named: Vec<_> = config.containers.named().collect();
    let expected = [
        "/etc/ringfence/a.sock",
        "/run/k3s/containerd/containerd.sock",
    ]
    .map(|path| (Kind::Cri, Path::new(path)));
    assert_eq!(named, expected);
    assert_ne!(
        good("[containers]\ndocker = []\n").containers,
        Settings::default()
    );
}

#[test]
fn bad_sockets_of_runtimes_are_refused() {
    for (value, expected) in [
        (
            "\"/run/docker.sock\"",
            "write `docker = [\"/run/docker.sock\"]`",
        ),
        ("7", "a list of paths"),
        ("[7]", "a list of paths"),
        ("[\"\"]", "empty"),
        ("[\"/a\", \"/a\"]", "twice"),
    ] {
        let found = problems(&format!("[containers]\ndocker = {value}\n"));
        let [problem] = found.as_slice() else {
            panic!("{value}: {found:?}");
        };
        assert_eq!(problem.line, 2, "{value}");
        assert!(problem.to_string().contains(expected), "{problem}");
    }
    let unknown = problems("[containers]\ncrio = []\n");
    assert!(
        unknown
            .first()
            .unwrap()
            .to_string()
            .contains("did you mean `cri`?"),
        "{unknown:?}"
    );
}

#[test]
fn rate_of_hashing_is_a_size_that_lets_it_go_on() {
    for (text, expected) in [("", 64 << 20), ("hash-rate = \"1 MiB\"\n", 1 << 20)] {
        let config = good(&format!("[agent]\n{text}"));
        assert_eq!(config.agent.hash_rate, expected, "{text}");
    }
    for text in ["0", "\"1 KiB\"", "\"slow\""] {
        let found = problems(&format!("[agent]\nhash-rate = {text}\n"));
        let named = |problem: &Problem| problem.message.contains("agent.hash-rate");
        assert!(found.iter().any(named), "{text}: {found:?}");
    }
}

#[test]
fn limit_of_hashing_is_a_size() {
    for (text, expected) in [
        ("", 512 << 20),
        ("hash-limit = 0\n", 0),
        ("hash-limit = \"2 GiB\"\n", 2 << 30),
    ] {
        let config = good(&format!("[agent]\n{text}"));
        assert_eq!(config.agent.hash_limit, expected, "{text}");
    }
    let found = problems("[agent]\nhash-limit = \"much\"\n");
    assert!(
        found
            .iter()
            .any(|problem| problem.message.contains("agent.hash-limit")),
        "{found:?}"
    );
}

#[test]
fn failsafe_multiplies_ports_by_networks() {
    let config = good(
        "[failsafe]\ninbound = [{ ports = [\"22/tcp\", \"8000-8100/udp\"], from = [\"10.1.2.3/8\", \"fd00::1\"] }]\n",
    );
    let [first, second, third, _] = config.failsafe.as_slice() else {
        panic!("{:?}", config.failsafe);
    };
    assert_eq!(
        (
            first.prefix,
            first.first_port,
            first.last_port,
            first.protocol
        ),
        (104, 22, 22, 6)
    );
    assert_eq!(
        first.address,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 0]
    );
    assert_eq!(second.prefix, 128);
    assert_eq!(
        (third.first_port, third.last_port, third.protocol),
        (8000, 8100, 17)
    );
}

#[test]
fn bad_failsafe_entries_are_refused() {
    let found = problems(
        "[failsafe]\ninbound = [\n{ ports = [\"22\"], from = [\"10.0.0.0/33\"] },\n{ ports = [], from = [\"::/0\"] },\n]\n",
    );
    let lines: Vec<usize> = found.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [3, 3, 4], "{found:?}");
    assert_eq!(
        problems("[failsafe]\ninbound = [{ ports = [\"22/tcp\"], form = [] }]\n").len(),
        1
    );
    let many: Vec<String> = (0..33).map(|n| format!("\"10.0.0.{n}\"")).collect();
    let text = format!(
        "[failsafe]\ninbound = [{{ ports = [\"22/tcp\"], from = [{}] }}]\n",
        many.join(",")
    );
    assert!(
        problems(&text)
            .iter()
            .any(|problem| problem.message.contains("33 entries"))
    );
}

#[test]
fn controller_must_be_reachable_safely() {
    let with = |keys: &str| format!("[controller]\n{keys}\n");
    let tls = "\nca = \"ca\"\ncert = \"cert\"\nkey = \"key\"";
    assert_eq!(problems(&with("")).len(), 1);
    assert_eq!(problems(&with("endpoints = []")).len(), 1);
    let several = "endpoints = [\n\"http://10.0.0.1:1\",\n\"c:1\",\n\"ftp://c\",\n\"https://localhost\",\n\"unix:c\"]";
    let found = problems(&with(several));
    let lines: Vec<usize> = found.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7], "{found:?}");
    for keys in [
        "",
        "\ncert = \"a\"",
        "\nca = \"a\"",
        "\ncert = \"a\"\nkey = \"a\"",
    ] {
        let found = problems(&with(&format!("endpoints = [\"https://c:1\"]{keys}")));
        let [problem] = found.as_slice() else {
            panic!("{keys}: {found:?}");
        };
        assert!(problem.remedy.contains("all three"), "{problem}");
    }
    for (endpoint, keys) in [
        ("http://127.0.0.1:1", ""),
        ("http://[::1]:1", ""),
        ("http://localhost:1", ""),
        ("unix:/run/ringfence-controller/controller.sock", ""),
        ("https://c:1", tls),
    ] {
        let config = good(&with(&format!("endpoints = [\"{endpoint}\"]{keys}")));
        let shown = config
            .controller
            .unwrap()
            .endpoints()
            .first()
            .unwrap()
            .to_string();
        assert_eq!(shown, endpoint);
    }
}

#[test]
fn refusals_are_silent_unless_told_otherwise() {
    let expected = Refusal {
        local: LocalRefusal::Eperm,
        remote: RemoteRefusal::Drop,
        rate: 100,
    };
    assert_eq!(good("").refusal, expected);
    let text = "[refusal]\nlocal = \"econnrefused\"\nremote = \"prohibited\"\nrate = 1";
    let expected = Refusal {
        local: LocalRefusal::Econnrefused,
        remote: RemoteRefusal::Prohibited,
        rate: 1,
    };
    assert_eq!(good(text).refusal, expected);
    for (text, part) in [
        ("remote = \"reject\"", "drop, reset, prohibited"),
        ("local = \"reset\"", "eperm, econnrefused"),
        ("rate = 0", "from 1 to 10000"),
        ("rate = 10001", "from 1 to 10000"),
        ("remot = \"reset\"", "remote"),
    ] {
        let found = problems(&format!("[refusal]\n{text}"));
        let [problem] = found.as_slice() else {
            panic!("{text}: {found:?}");
        };
        assert!(format!("{problem:?}").contains(part), "{text}: {problem:?}");
    }
}
