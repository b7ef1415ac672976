//! What loads, and what is said about what does not.

use std::path::Path;

use super::{Config, DEFAULT_LISTEN, Listen};

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/c.toml"), text).map_err(|error| error.to_string())
}

fn error(text: &str) -> String {
    parse(text).err().unwrap_or_default()
}

#[test]
fn everything_has_a_default() {
    let Ok(config) = parse("") else {
        panic!("the defaults are valid");
    };
    assert_eq!(
        config.listen,
        [Listen::Unix(
            "/run/ringfence-controller/controller.sock".into()
        )]
    );
    assert_eq!(
        config.policy_dir,
        Path::new("/etc/ringfence/controller/policy.d")
    );
    assert_eq!(config.state_dir, Path::new("/var/lib/ringfence-controller"));
}

#[test]
fn the_example_loads_with_and_without_its_comments() {
    let example = include_str!("../../../config/controller.toml");
    let config = parse(example);
    assert_eq!(config, parse(""), "the example shows the defaults");
    // Every key stands in it, if only in a comment.
    let all: String = example
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line))
        .fold(String::new(), |all, line| all + line + "\n");
    let Ok(config) = parse(&all) else {
        panic!("{}", error(&all));
    };
    assert!(config.tls.is_some());
    for key in [
        "listen",
        "max-agents",
        "verify-host",
        "policy-dir",
        "state-dir",
    ] {
        assert!(all.lines().any(|line| line.starts_with(key)), "{key}");
    }
}

#[test]
fn the_default_socket_is_the_one_of_the_unit() {
    let unit = include_str!("../../../config/systemd/ringfence-controller.service");
    let directory = unit
        .lines()
        .find_map(|line| line.strip_prefix("RuntimeDirectory="));
    let expected = format!(
        "unix:/run/{}/controller.sock",
        directory.unwrap_or_default()
    );
    assert_eq!(DEFAULT_LISTEN, expected);
}

#[test]
fn paths_start_at_the_file() {
    let text = "[store]\npolicy-dir = \"policy.d\"\nstate-dir = \"/var/s\"\n";
    let Ok(config) = parse(text) else {
        panic!("{}", error(text));
    };
    assert_eq!(config.policy_dir, Path::new("/etc/policy.d"));
    assert_eq!(config.state_dir, Path::new("/var/s"));

    let text = "[tls]\ncert = \"c.pem\"\nkey = \"/k.pem\"\nclient-ca = \"ca/ca.pem\"\n";
    let tls = parse(text).ok().and_then(|config| config.tls);
    let Some(tls) = tls else {
        panic!("has certificates");
    };
    assert_eq!(tls.cert, Path::new("/etc/c.pem"));
    assert_eq!(tls.key, Path::new("/k.pem"));
    assert_eq!(tls.client_ca, Path::new("/etc/ca/ca.pem"));
    assert!(tls.verify_host);
}

#[test]
fn several_addresses_are_several() {
    let text = "[server]\nlisten = [\"unix:/a\", \"[::1]:8443\"]\n";
    let config = parse(text);
    assert_eq!(config.map(|config| config.listen.len()), Ok(2));
}

#[test]
fn errors_name_line_and_remedy() {
    let cases = [
        (
            "\n[server]\nlisen = \"x\"",
            "/etc/c.toml:3: unknown key \"lisen\"; did you mean \"listen\"?",
        ),
        (
            "[sever]\n",
            "/etc/c.toml:1: unknown table \"sever\"; did you mean \"server\"?",
        ),
        (
            "[server]\nqqq = 1",
            "/etc/c.toml:2: unknown key \"qqq\"; known are listen, max-agents",
        ),
        (
            "server = 1",
            "/etc/c.toml:1: server is a table; write [server]",
        ),
        (
            "[server]\nlisten = 1",
            "/etc/c.toml:2: [server] listen: expected an address",
        ),
        (
            "[server]\nlisten = []",
            "/etc/c.toml:2: [server] listen is empty",
        ),
        (
            "[server]\nlisten = \"localhost:1\"",
            "/etc/c.toml:2: [server] listen: \"localhost:1\" is not an address",
        ),
        (
            "[server]\nlisten = \"unix:a\"",
            "/etc/c.toml:2: [server] listen: \"unix:a\" needs an absolute path",
        ),
        (
            "[server]\nlisten = \"0.0.0.0:8443\"",
            "/etc/c.toml:2: [server] listen: \"0.0.0.0:8443\" would serve policy in the clear",
        ),
        (
            "[server]\nmax-agents = 0",
            "/etc/c.toml:2: [server] max-agents can't be 0; write a number",
        ),
        (
            "[store]\n\npolicy-dir = \"\"",
            "/etc/c.toml:3: [store] policy-dir is empty",
        ),
        (
            "[store]\n\nstate-dir = 7",
            "/etc/c.toml:3: [store] state-dir: invalid type",
        ),
        (
            "[tls]\ncert = \"c\"",
            "/etc/c.toml:1: [tls] has no client-ca",
        ),
        ("[server\n", "/etc/c.toml:1: "),
    ];
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn every_problem_is_reported_with_its_line() {
    let text = "[server]\nlisten = [\"unix:a\", \"x\"]\nmax-agent = 1\nmax-agents = -1\n[tls]\ncert = 3\nkey = \"k\"\n[stor]\n";
    let error = error(text);
    let lines: Vec<&str> = error.lines().collect();
    let told = [
        "/etc/c.toml:2: [server] listen: \"unix:a\"",
        "/etc/c.toml:2: [server] listen: \"x\"",
        "/etc/c.toml:3: unknown key \"max-agent\"",
        "/etc/c.toml:4: [server] max-agents can't be -1",
        "/etc/c.toml:5: [tls] has no client-ca",
        "/etc/c.toml:6: [tls] cert: invalid type",
        "/etc/c.toml:8: unknown table \"stor\"",
    ];
    assert_eq!(lines.len(), told.len(), "{error}");
    for (line, told) in lines.iter().zip(told) {
        assert!(line.starts_with(told), "{line}");
    }
}
