//! What is parsed and compiled again after a change is what a new agent would make of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use time::Duration;

use crate::{
    compile::{Compilation, Compiled, Context, compile},
    model::{Document, Identities, PolicySet},
    oracle::SplitMix64,
    parse::{Diagnostic, Lint, Parsed, lint, parse_whole},
};

const APPS: [&str; 3] = ["a", "b", "c"];
const FILES: [&str; 4] = ["a.toml", "b.toml", "c.toml", "d.toml"];
const NAMES: usize = 6;

/// Documents of blocks that come, go and change.
struct Editor {
    rng: SplitMix64,
    files: BTreeMap<&'static str, Vec<String>>,
    context: Context,
    shift: u32,
}

impl Editor {
    fn workload(&mut self) -> String {
        let name = self.rng.below(NAMES);
        // Some tie, as they match the same processes.
        let uid = if self.rng.chance(2) { 0 } else { name };
        let self_too = self.rng.chance(90);
        format!(
            "[[workload]]\nname = \"w{name}\"\nlabels = {{ app = \"{}\" }}\nmatch = {{ uid = {uid} }}\nallow-self = {self_too}\n",
            self.rng.pick(&APPS)
        )
    }

    fn policy(&mut self) -> String {
        let name = self.rng.below(2 * NAMES);
        let app = self.rng.pick(&APPS);
        let mut text =
            format!("[[policy]]\nname = \"p{name}\"\napplies-to = {{ app = \"{app}\" }}\n");
        if self.rng.chance(20) {
            text += "mode = \"draft\"\n";
        }
        for key in ["not-before", "not-after"] {
            if self.rng.chance(15) {
                let year = if key == "not-before" { 2025 } else { 2026 };
                let minute = self.rng.below(50);
                writeln!(text, "{key} = {year}-12-31T23:{minute:02}:00Z").unwrap();
            }
        }
        for _ in 0..self.rng.below(3) {
            let section = self.rng.pick(&["egress", "deny-egress"]);
            let peer = match self.rng.below(4) {
                0 => format!("{{ workload = \"w{}\" }}", self.rng.below(NAMES)),
                1 => format!("{{ labels = {{ app = \"{}\" }} }}", self.rng.pick(&APPS)),
                2 => format!("{{ cidr = \"10.{}.0.0/16\" }}", self.rng.below(3)),
                _ => "{ entity = \"world\" }".to_owned(),
            };
            let port = 1 + self.rng.below(5);
            let rule = format!("to = [{peer}]\nports = [\"{port}/tcp\"]");
            writeln!(text, "[[policy.{section}]]\n{rule}").unwrap();
        }
        text
    }

    /// What is hard to cut, or no policy at all.
    fn odd(&mut self) -> String {
        let odd = [
            "# [[policy]]\n[[ policy ]]\nname = \"spaces\"\napplies-to = { app = \"a\" }\n[[policy.listen]]\n",
            "[[workload]]\nname = \"text\"\nlabels = { app = \"\"\"\n[[policy]]\n\"\"\" }\nmatch = { uid = 77 }\n",
            "[[workload]]\nname = \"list\"\nlabels = { app = \"a\" }\n[workload.match]\nuid = 78\n",
            "[[policy]]\nname = \"typo\"\naplies-to = { app = \"a\" }\n",
            "[[policy]]\nname = \"open\napplies-to = 1\n",
            "[policy.x]\n",
            "[[policy.egress]]\nports = [\"9/tcp\"]\n",
            "[workload.labels]\nmore = \"x\"\n",
            "\n\n# a comment\n\n",
            "workload = []\n",
            "other = 1\r\n",
        ];
        self.rng.pick(&odd).to_owned()
    }

    fn edit(&mut self) {
        let file = self.rng.pick(&FILES);
        let block = match self.rng.below(10) {
            0..4 => self.workload(),
            4..9 => self.policy(),
            _ => self.odd(),
        };
        let roll = self.rng.below(20);
        let blocks = self.files.entry(file).or_default();
        let at = self.rng.below(blocks.len() + 1);
        match roll {
            0 => drop(self.files.remove(file)),
            1 => {
                self.context.now += Duration::minutes(7);
                self.context.boot_now_ns += 7 * 60_000_000_000;
            }
            // The wall clock was set.
            2 => self.context.boot_now_ns += 1,
            3 => self.context.deny_unselected ^= true,
            4 => self.shift ^= 1,
            5..8 => blocks.insert(at, block),
            8..12 if at < blocks.len() => drop(blocks.remove(at)),
            _ => match blocks.get_mut(at) {
                Some(old) => *old = block,
                None => blocks.push(block),
            },
        }
        self.mend();
    }

    /// Takes back most of what is said twice, so that many sets are valid.
    fn mend(&mut self) {
        if self.rng.chance(15) {
            return;
        }
        let mut seen = BTreeSet::new();
        for blocks in self.files.values_mut() {
            blocks.retain(|block| seen.insert(block.lines().take(2).collect::<String>()));
        }
        let odd = |block: &String| !block.contains("name = \"w") && !block.contains("name = \"p");
        if self.rng.chance(60) {
            for blocks in self.files.values_mut() {
                blocks.retain(|block| !odd(block));
            }
        }
    }

    fn documents(&self) -> Vec<Document> {
        let one = |(name, blocks): (&&str, &Vec<String>)| Document {
            name: (*name).to_owned(),
            text: blocks.concat().into(),
        };
        self.files.iter().map(one).collect()
    }

    fn identities(&self, set: &PolicySet) -> Identities {
        let names = set.workloads.iter().map(|workload| workload.name.clone());
        names.zip(1000 + self.shift..).collect()
    }
}

fn whole(
    documents: &[Document],
    editor: &Editor,
) -> Result<(PolicySet, Identities, Compiled), Vec<Diagnostic>> {
    let set = parse_whole(documents)?;
    let identities = editor.identities(&set);
    let compiled = compile(&set, &identities, &editor.context).unwrap();
    Ok((set, identities, compiled))
}

/// How often something happened.
#[derive(Debug, Default)]
struct Counts {
    valid: usize,
    invalid: usize,
    same_workloads: usize,
    tables_kept: usize,
    tables_rebuilt: usize,
}

#[test]
fn a_change_gives_what_everything_anew_gives() {
    let mut counts = Counts::default();
    for seed in 0..60 {
        let mut editor = Editor {
            rng: SplitMix64::new(seed),
            files: BTreeMap::new(),
            context: super::context(),
            shift: 0,
        };
        let mut parsed = Parsed::default();
        let mut former = Compilation::default();
        let mut linted = Lint::default();
        for step in 0..120 {
            editor.edit();
            let documents = editor.documents();
            let wanted = whole(&documents, &editor);
            let next = match (parsed.next(&documents), &wanted) {
                (Ok(next), Ok(_)) => next,
                (Err(found), Err(wanted)) => {
                    assert_eq!(found, *wanted, "seed {seed}, step {step}");
                    counts.invalid += 1;
                    continue;
                }
                (found, _) => panic!("seed {seed}, step {step}: {found:?}\n{documents:#?}"),
            };
            let (set, identities, compiled) = wanted.unwrap();
            assert_eq!(next.set, set, "seed {seed}, step {step}");
            let same = next.set.workloads.is(&former.set.workloads);
            let identities = if *former.identities == identities {
                Arc::clone(&former.identities)
            } else {
                Arc::new(identities)
            };
            let after = former
                .next(next.set.clone(), identities, &editor.context)
                .unwrap();
            assert_eq!(
                *after.compiled, compiled,
                "seed {seed}, step {step}: {documents:#?}"
            );
            linted = linted.next(&next.set, editor.context.now);
            assert_eq!(
                linted.all(),
                lint(&set, editor.context.now),
                "seed {seed}, step {step}"
            );
            counts.valid += 1;
            counts.same_workloads += usize::from(same);
            for (identity, table) in &after.compiled.tables {
                let before = former.compiled.tables.get(identity);
                let kept = before.is_some_and(|before| Arc::ptr_eq(before, table));
                assert!(
                    kept || before != Some(table),
                    "an equal table is the same one"
                );
                counts.tables_kept += usize::from(kept);
                counts.tables_rebuilt += usize::from(!kept);
            }
            (parsed, former) = (next, after);
        }
    }
    let Counts {
        valid,
        invalid,
        same_workloads,
        tables_kept,
        tables_rebuilt,
    } = counts;
    let least = [valid, invalid, same_workloads, tables_kept, tables_rebuilt];
    assert!(least.iter().all(|number| *number > 300), "{counts:?}");
}

#[test]
fn a_change_of_one_rule_touches_one_table() {
    let text = |port: u16| {
        let one = |number: usize| {
            let port = if number == 3 { port } else { 1 };
            format!(
                "[[workload]]\nname = \"w{number}\"\nlabels = {{ app = \"{number}\" }}\nmatch = {{ uid = {number} }}\n\
                 [[policy]]\nname = \"p{number}\"\napplies-to = {{ app = \"{number}\" }}\n\
                 [[policy.egress]]\nto = [{{ workload = \"w0\" }}]\nports = [\"{port}/tcp\"]\n"
            )
        };
        let text: String = (0..50).map(one).collect();
        let name = "a.toml".to_owned();
        [Document {
            name,
            text: text.into(),
        }]
    };
    let parsed = Parsed::default().next(&text(1)).unwrap();
    let identities: Identities = (1000..)
        .zip(parsed.set.workloads.iter())
        .map(|(identity, workload)| (workload.name.clone(), identity))
        .collect();
    let identities = Arc::new(identities);
    let next = parsed.next(&text(2)).unwrap();
    assert!(next.set.workloads.is(&parsed.set.workloads));
    let same = next.set.policies.iter().zip(&parsed.set.policies);
    assert_eq!(same.filter(|(a, b)| Arc::ptr_eq(a, b)).count(), 49);
    let before = Compilation::default()
        .next(parsed.set, Arc::clone(&identities), &super::context())
        .unwrap();
    let after = before
        .next(next.set, identities, &super::context())
        .unwrap();
    let pairs = before
        .compiled
        .tables
        .values()
        .zip(after.compiled.tables.values());
    assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
}
