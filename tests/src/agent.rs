//! An agent bound to a sandbox.

use std::{
    cell::Cell,
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitStatus,
};

use nix::sys::signal::Signal;
use ringfence_proto::v1::{Flow, GetStatusResponse};

use crate::{
    Actor, Sandbox,
    client::Client,
    daemon::{Daemon, Ended},
    flows,
    metrics::Metrics,
    poll::{poll, until},
};

/// Ports of the calls that mark a place in the flow log.
const FENCES: std::ops::Range<u16> = 61_000..65_000;

/// What differs from test to test in the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Lines of the section `[agent]`.
    pub agent: String,
    /// More sections.
    pub sections: String,
    /// What the traffic tool is told before the program's path; `run` where it is empty.
    pub launcher: Vec<OsString>,
}

/// A running agent, and what it is made of.
pub struct Agent {
    daemon: Daemon,
    launcher: Vec<OsString>,
    dir: PathBuf,
    config: PathBuf,
    metrics: SocketAddr,
    client: Client,
    fence: Actor,
    fences: Cell<u16>,
}

impl Agent {
    /// Starts one that enforces `policy`.
    #[track_caller]
    #[must_use]
    pub fn start(sandbox: &Sandbox, policy: &str) -> Self {
        Self::start_with(sandbox, &Options::default(), policy)
    }

    /// The same with options.
    #[track_caller]
    #[must_use]
    pub fn start_with(sandbox: &Sandbox, options: &Options, policy: &str) -> Self {
        Self::try_start(sandbox, options, policy)
            .unwrap_or_else(|ended| panic!("the agent ended, {}\n{}", ended.status, ended.log))
    }

    /// The same where it may not come to be.
    ///
    /// # Errors
    /// It ended before it was ready.
    pub fn try_start(sandbox: &Sandbox, options: &Options, policy: &str) -> Result<Self, Ended> {
        let dir = sandbox.files().join("agent");
        let policies = dir.join("policy.d");
        fs::create_dir_all(&policies).unwrap();
        fs::write(policies.join("policy.toml"), policy).unwrap();
        let metrics = free_address();
        let config = dir.join("agent.toml");
        fs::write(&config, configuration(sandbox, options, metrics)).unwrap();
        let launcher = options.launcher.clone();
        let daemon = Daemon::launch(&launcher, "ringfence", &arguments(&config), &dir)?;
        Ok(Self {
            daemon,
            launcher,
            client: Client::new(&dir.join("agent.sock")),
            config,
            dir,
            metrics,
            fence: sandbox.actor("fence"),
            fences: Cell::new(FENCES.start),
        })
    }

    /// Its process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Its unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its directory of policy documents.
    #[must_use]
    pub fn policy_dir(&self) -> PathBuf {
        self.dir.join("policy.d")
    }

    /// Asks it.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its state.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> GetStatusResponse {
        self.client.status().unwrap()
    }

    /// Scrapes it.
    #[track_caller]
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics::scrape(self.metrics)
    }

    /// Puts `policy` into its policy directory, without telling it.
    pub fn write_policy(&self, policy: &str) {
        let path = self.policy_dir().join("policy.toml");
        let new = path.with_extension("new");
        fs::write(&new, policy).unwrap();
        fs::rename(&new, &path).unwrap();
    }

    /// SIGHUP.
    pub fn reload(&self) {
        self.daemon.signal(Signal::SIGHUP);
    }

    /// Replaces its policy and waits until it is in force.
    #[track_caller]
    pub fn set_policy(&self, policy: &str) {
        let before = self.status().generation;
        self.write_policy(policy);
        self.reload();
        until("the new policy is in force", || {
            let status = self.status();
            assert!(status.policy_error.is_empty(), "{}", status.policy_error);
            status.generation > before
        });
    }

    /// Replaces its policy by one that is not valid, and returns why it was refused.
    #[track_caller]
    #[must_use]
    pub fn refuse_policy(&self, policy: &str) -> String {
        self.write_policy(policy);
        self.reload();
        let error = poll(|| Some(self.status().policy_error).filter(|error| !error.is_empty()));
        error.unwrap_or_else(|| panic!("the policy was not refused"))
    }

    /// The flow log up to now, without the fences.
    ///
    /// A call that is refused by nobody listening leaves one record. When that is there, so is every
    /// record of what was before it.
    #[track_caller]
    #[must_use]
    pub fn log(&self) -> Vec<Flow> {
        let mut flows = self.log_with_fences();
        flows.retain(|flow| !flows::is_call_to(flow, &FENCES));
        flows
    }

    /// The flow log up to now.
    #[track_caller]
    #[must_use]
    pub fn log_with_fences(&self) -> Vec<Flow> {
        let port = self.fences.get();
        self.fences.set(port + 1);
        let outcome = self.fence.tcp(&format!("127.0.0.1:{port}"), &[]);
        assert!(outcome.failed("connect", "ECONNREFUSED"), "{outcome:?}");
        let fenced = poll(|| {
            let flows = self.client.flows(Vec::new()).unwrap();
            let there = flows
                .iter()
                .any(|flow| flows::is_call_to(flow, &(port..port + 1)));
            there.then_some(flows)
        });
        fenced.unwrap_or_else(|| panic!("the record of a call to port {port} does not come"))
    }

    /// The records that are `wanted`, once there are `number` of them and no more are under way.
    #[track_caller]
    #[must_use]
    pub fn settled(&self, number: usize, wanted: impl Fn(&Flow) -> bool) -> Vec<Flow> {
        let select = |mut flows: Vec<Flow>| {
            flows.retain(|flow| !flows::is_call_to(flow, &FENCES) && wanted(flow));
            flows
        };
        // The last packets of a connection may follow the end of its processes.
        let _in_time = poll(|| {
            let flows = self.client.flows(Vec::new()).unwrap();
            (select(flows).len() >= number).then_some(())
        });
        select(self.log_with_fences())
    }

    /// Panics unless the flow log holds exactly these lines, in any order.
    #[track_caller]
    pub fn assert_log(&self, expected: &[String]) {
        self.assert_log_of(expected, |_| true);
    }

    /// The same for those records that are `wanted`.
    #[track_caller]
    pub fn assert_log_of(&self, expected: &[String], wanted: impl Fn(&Flow) -> bool) {
        let flows = self.settled(expected.len(), wanted);
        let mut found: Vec<_> = flows.iter().map(flows::line).collect();
        let mut expected = expected.to_vec();
        found.sort();
        expected.sort();
        assert!(
            found == expected,
            "flow log\nexpected:\n  {}\nfound:\n  {}\nlosses: {:?}",
            expected.join("\n  "),
            found.join("\n  "),
            self.status().counts
        );
    }

    /// Panics unless metrics, kernel counters and flow log agree, and nothing was lost.
    #[track_caller]
    pub fn assert_counters(&self) {
        let log = self.log_with_fences();
        self.metrics().assert_agree(&log);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again, as it was configured.
    #[track_caller]
    pub fn restart(&mut self) {
        self.try_restart()
            .unwrap_or_else(|ended| panic!("no restart, {}\n{}", ended.status, ended.log));
    }

    /// The same where it may not come to be.
    ///
    /// # Errors
    /// It ended before it was ready.
    pub fn try_restart(&mut self) -> Result<(), Ended> {
        let arguments = arguments(&self.config);
        self.daemon = Daemon::launch(&self.launcher, "ringfence", &arguments, &self.dir)?;
        Ok(())
    }

    /// Another configuration for the next start.
    pub fn configure(&mut self, sandbox: &Sandbox, options: &Options) {
        self.launcher.clone_from(&options.launcher);
        let text = configuration(sandbox, options, self.metrics);
        fs::write(&self.config, text).unwrap();
    }

    /// SIGTERM; returns how it ended.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.daemon.signal(Signal::SIGTERM);
        self.daemon.wait()
    }
}

impl Drop for Agent {
    /// A failing test shows what was recorded.
    #[expect(clippy::print_stderr, reason = "a failing test shows what it knows")]
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(flows) = self.client.flows(Vec::new())
        {
            let lines: Vec<_> = flows.iter().map(flows::line).collect();
            eprintln!("--- flow log\n{}\n---", lines.join("\n"));
        }
    }
}

fn arguments(config: &Path) -> [OsString; 3] {
    ["agent".into(), "--config".into(), config.into()]
}

fn configuration(sandbox: &Sandbox, options: &Options, metrics: SocketAddr) -> String {
    let root = if options.agent.contains("cgroup-root") {
        String::new()
    } else {
        format!("cgroup-root = \"{}\"\n", sandbox.guarded().display())
    };
    let policies = if options.agent.contains("policy-dir") {
        ""
    } else {
        "policy-dir = \"policy.d\"\n"
    };
    format!(
        "[agent]\n{root}{policies}state-dir = \"state\"\npin-dir = \"{}\"\n{}\n\n\
         [api]\nunix = \"agent.sock\"\n\n[metrics]\nlisten = \"{metrics}\"\n\n\
         [log]\nlevel = \"debug\"\n\n{}\n",
        sandbox.pins().display(),
        options.agent,
        options.sections,
    )
}

/// An address on loopback that nobody uses.
#[must_use]
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}
