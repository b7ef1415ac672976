//! Single calls, and what must be recorded of them.

use ringfence_tests::{
    Actor, Agent,
    flows::{line, without_bytes},
    poll::until,
};

use crate::{cast::Server, ledger::Ledger};

/// Who calls whom, how and where.
pub fn about(caller: &str, server: &Server) -> String {
    format!(
        "{caller} -> {} {} {}",
        server.name, server.protocol, server.address
    )
}

/// Waits for the controller's generation.
pub fn in_force(agent: &Agent, generation: u64) {
    until("the controller's policy is in force", || {
        agent.status().controller_generation == generation
    });
}

/// Lets the agent judge an executable, so that its first call is not held until then.
pub fn get_to_know(agent: &Agent, actor: &Actor) {
    let asked = || {
        let what = [("what", "pending")];
        agent.metrics().sum("ringfence_detours_total", &what)
    };
    // The agent can look at the executable only while a process runs it.
    let _running = actor.serve(&["udp", "127.0.0.1:9001"]);
    until("the executable is known", || {
        let before = asked();
        let bound = actor.run(&["bind", "udp", "127.0.0.1:0"]);
        bound.ok() && asked() == before
    });
}

/// A call that must work.
pub fn passes(
    caller: &Actor,
    who: &str,
    server: &Server,
    draft: &str,
    ledger: &mut Ledger,
) -> Result<String, String> {
    let arguments = [
        "call",
        server.protocol,
        &server.address,
        "--send",
        "3",
        "--expect",
        "3",
    ];
    let outcome = caller.run(&arguments);
    ledger.passed(who, caller, outcome.pid, server, draft);
    if outcome.ok() {
        Ok("3 bytes each way".to_owned())
    } else {
        Err(format!("{outcome:?}"))
    }
}

/// A call that must end in EPERM.
pub fn refused(
    caller: &Actor,
    who: &str,
    server: &Server,
    peer: &str,
    ledger: &mut Ledger,
) -> Result<String, String> {
    let outcome = caller.run(&["call", server.protocol, &server.address]);
    ledger.refused(who, caller, outcome.pid, server, peer);
    let seen = format!(
        "{} in {} ms",
        outcome.error.as_deref().unwrap_or("connected"),
        outcome.took_ms
    );
    if outcome.failed("connect", "EPERM") {
        Ok(seen)
    } else {
        Err(seen)
    }
}

/// The line of a record; the bytes of a transfer that was cut depend on the moment.
pub fn comparable(record: &ringfence_proto::v1::Flow) -> String {
    let line = line(record);
    if record.revoked {
        without_bytes(&line)
    } else {
        line
    }
}
