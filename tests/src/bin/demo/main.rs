//! `ringfence-demo`: a policy allows, blocks and revokes, and every claim is checked.
//!
//! Everything happens in a cgroup and a network namespace made for it, and is gone afterwards. The exit
//! code is 0 only if all of it held.

mod acts;
mod cast;
mod ledger;
mod report;
mod story;

use std::process::ExitCode;

use report::Report;
use ringfence_tests::{Sandbox, scene};

fn main() -> ExitCode {
    let mut report = Report::new();
    if !scene::is_root() {
        report.say("The demo needs root: `sudo -E env \"PATH=$PATH\" cargo xtask demo`.");
        return ExitCode::FAILURE;
    }
    let sandbox = Sandbox::new("demo");
    story::tell(&sandbox, &mut report);
    let _held = report.check("nothing is left behind", || {
        let left = sandbox.remove();
        let seen = "processes, cgroups, pins, namespace and files are gone".to_owned();
        if left.is_empty() {
            Ok(seen)
        } else {
            Err(format!("{left:?}"))
        }
    });
    report.finish()
}
