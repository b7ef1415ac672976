//! What the kernel programs may cost: instructions, verified instructions, stack and memory of maps, against
//! `tests/budget.toml` and against the kernel's limits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::indexing_slicing, reason = "registers are four bits")]

mod file;
mod stack;

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use file::{Budget, Program};
use ringfence_tests::{
    Agent, kernel,
    policy::workloads,
    scene,
    scene::{is_root, skip},
};

/// `BPF_COMPLEXITY_LIMIT_INSNS` and `MAX_BPF_STACK` (include/linux/bpf.h, filter.h).
const MOST_VERIFIED: u32 = 1_000_000;
const MOST_STACK: u32 = 512;
/// Names that the kernel keeps are shorter.
const KERNEL_NAME: usize = 15;
/// A rise by this part of a figure is not one that matters: a compiler of another day, another layout of a map's memory.
const TOLERANCE: u64 = 50;

#[test]
fn programs_keep_within_the_limits_of_the_kernel() {
    scene("budget-limits", |sandbox| {
        let _agent = Agent::start(sandbox, &workloads(&["web"]));
        let measured = measured(sandbox);
        for (name, program) in &measured.programs {
            assert!(program.verified < MOST_VERIFIED, "{name}: {program:?}");
            assert!(program.stack <= MOST_STACK, "{name}: {program:?}");
        }
    });
}

#[test]
fn stack_keeps_within_the_budget() {
    if env::var_os("RINGFENCE_BLESS_BUDGET").is_some() {
        return;
    }
    let budget = Budget::read();
    let rises: Vec<_> = stacks()
        .into_iter()
        .filter_map(|(name, stack)| {
            let accepted = budget
                .programs
                .get(short(&name))
                .map_or(0, |program| program.stack);
            rise(&format!("{name}: stack"), stack.into(), accepted.into(), 0)
        })
        .collect();
    assert_none(&rises);
}

/// Also what `cargo xtask test --bless-budget` runs: it writes the file instead.
#[test]
fn figures_keep_within_the_budget() {
    if !is_root() {
        skip("needs root");
        return;
    }
    let blessing = env::var_os("RINGFENCE_BLESS_BUDGET").is_some();
    let here = (kernel::series(), processors());
    if !blessing {
        let budget = Budget::read();
        if here != (budget.kernel.clone(), budget.processors) {
            skip(&format!(
                "the budget is of Linux {} with {} processors, this is {} with {}; only the kernel's limits and the stack are checked",
                budget.kernel, budget.processors, here.0, here.1
            ));
            return;
        }
    }
    scene("budget", |sandbox| {
        let _agent = Agent::start(sandbox, &workloads(&["web"]));
        let measured = measured(sandbox);
        if blessing {
            measured.write();
        } else {
            assert_none(&rises(&Budget::read(), &measured));
        }
    });
}

fn measured(sandbox: &ringfence_tests::Sandbox) -> Budget {
    let stacks: BTreeMap<String, u32> = stacks()
        .into_iter()
        .map(|(name, stack)| (short(&name).to_owned(), stack))
        .collect();
    // Of a program that this kernel can't load, the stack is known all the same.
    let unloaded = stacks.iter().map(|(name, stack)| {
        let figures = Program {
            stack: *stack,
            ..Program::default()
        };
        (name.clone(), figures)
    });
    let loaded = kernel::programs(&sandbox.pins())
        .into_iter()
        .map(|program| {
            let stack = stacks.get(&program.name).copied();
            let figures = Program {
                instructions: program.instructions,
                verified: program.verified,
                stack: stack.unwrap_or_else(|| panic!("{} is not in the object", program.name)),
            };
            (program.name, figures)
        });
    let maps = kernel::maps(&sandbox.pins()).into_iter();
    let budget = Budget {
        kernel: kernel::series(),
        processors: processors(),
        programs: unloaded.chain(loaded).collect(),
        maps: maps.map(|map| (map.name, map.memory)).collect(),
    };
    let loads = budget.programs.values().filter(|it| it.verified > 0);
    let loads = loads.count();
    assert!(loads > 10 && budget.maps.len() > 10, "{budget:?}");
    budget
}

/// What is larger than accepted, or not accepted yet.
fn rises(budget: &Budget, measured: &Budget) -> Vec<String> {
    let mut found = Vec::new();
    for (name, program) in &measured.programs {
        let accepted = budget.programs.get(name).copied().unwrap_or_default();
        for (what, now, then) in [
            ("instructions", program.instructions, accepted.instructions),
            ("verified instructions", program.verified, accepted.verified),
        ] {
            found.extend(rise(
                &format!("{name}: {what}"),
                now.into(),
                then.into(),
                TOLERANCE,
            ));
        }
    }
    for (name, memory) in &measured.maps {
        let accepted = budget.maps.get(name).copied().unwrap_or(0);
        found.extend(rise(
            &format!("{name}: bytes"),
            *memory,
            accepted,
            TOLERANCE,
        ));
    }
    found
}

/// `part`: a rise by one of so many parts does not count; 0 = every rise does.
fn rise(what: &str, now: u64, accepted: u64, part: u64) -> Option<String> {
    let room = accepted.checked_div(part).unwrap_or(0);
    (now > accepted + room).then(|| format!("{what}: {now}, accepted are {accepted}"))
}

#[track_caller]
fn assert_none(rises: &[String]) {
    assert!(
        rises.is_empty(),
        "more than tests/budget.toml accepts:\n  {}\nMake it less, or accept it with `cargo xtask test --bless-budget` and say in the message of the commit why it has to be",
        rises.join("\n  ")
    );
}

/// Bytes of stack by program, from the object that the agent embeds.
fn stacks() -> BTreeMap<String, u32> {
    let path = env::var_os("RINGFENCE_BPF_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/ringfence.o"),
        PathBuf::from,
    );
    let object = fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo xtask build` makes it", path.display())
    });
    stack::of_object(&object)
}

fn short(name: &str) -> &str {
    name.get(..KERNEL_NAME).unwrap_or(name)
}

fn processors() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

#[test]
fn a_rise_is_named_and_a_fall_is_not() {
    let budget = |instructions, memory| Budget {
        programs: BTreeMap::from([(
            "connect4".to_owned(),
            Program {
                instructions,
                verified: 10,
                stack: 32,
            },
        )]),
        maps: BTreeMap::from([("FLOWS".to_owned(), memory)]),
        ..Budget::default()
    };
    let accepted = budget(1_000, 4_096);
    assert_eq!(
        rises(&accepted, &budget(1_020, 4_096)),
        Vec::<String>::new()
    );
    assert_eq!(rises(&accepted, &budget(900, 1)), Vec::<String>::new());
    let named = rises(&accepted, &budget(1_021, 8_192));
    let expected = [
        "connect4: instructions: 1021, accepted are 1000",
        "FLOWS: bytes: 8192, accepted are 4096",
    ];
    assert_eq!(named, expected);
    assert_eq!(rises(&Budget::default(), &accepted).len(), 3);
}
