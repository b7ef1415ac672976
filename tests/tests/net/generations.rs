//! Policy changes in quick succession on a busy machine: each comes into force, and whole.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use ringfence_agent::datapath::{Datapath, Options, Tables, lock, mount};
use ringfence_policy::{
    compile::{Compiled, compile},
    oracle,
};
use ringfence_tests::Sandbox;

const CHANGES: usize = 200;

#[test]
fn every_change_comes_into_force_whole_on_a_busy_machine() {
    let sandbox = Sandbox::new("generations");
    let options = Options {
        pin_dir: sandbox.pins(),
        cgroup_root: sandbox.guarded().to_path_buf(),
        events_buffer: 1 << 20,
        flow_entries: 4096,
        answering: ringfence_common::abi::Answering::default(),
        debug: false,
    };
    mount::bpffs(&options.pin_dir).unwrap();
    let lock = lock::pins(&options.pin_dir).unwrap();
    let mut datapath = Datapath::open(options, lock).unwrap();
    let policies: Vec<Compiled> = (0..7)
        .map(|seed| {
            let (set, identities, context, _) = oracle::random_case(seed);
            compile(&set, &identities, &context).unwrap()
        })
        .collect();
    let busy = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..4 {
            let _ = scope.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = change(&mut datapath, &policies);
        busy.store(false, Ordering::Relaxed);
        result.unwrap();
    });
    drop(datapath);
    assert_eq!(sandbox.remove(), Vec::<std::path::PathBuf>::new());
}

fn change(datapath: &mut Datapath, policies: &[Compiled]) -> Result<(), String> {
    for (number, policy) in (0..CHANGES).zip(policies.iter().cycle()) {
        let fail = |error| format!("change {number}: {error}");
        let _ = datapath.tables.apply(policy).map_err(fail)?;
        // As the next process would find it.
        let found = Tables::open(&datapath.directory())
            .and_then(|tables| tables.in_force())
            .map_err(fail)?;
        let all: BTreeSet<_> = found.keys().chain(policy.tables.keys()).collect();
        for identity in all {
            let (held, wanted) = (found.get(identity), policy.tables.get(identity));
            if held != wanted {
                return Err(format!(
                    "change {number}, identity {identity}: {held:?} is not {wanted:?}"
                ));
            }
        }
    }
    Ok(())
}
