//! What deserves a second look in the policy in force, as this host stands.

use std::{collections::HashSet, path::Path, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};
use ringfence_common::abi::{Identity, rule::SELECTED};
use ringfence_policy::{
    compile::{Compiled, Table},
    model::{Document, Identities, PolicySet, Workload, Workloads},
};

use crate::{
    identity::{Inventory, Tie},
    runtime::{RuntimeState, State},
};

/// Names that a line lists at most.
const NAMES: usize = 8;
/// Workloads that get a line of their own at most.
const LINES: usize = 32;

/// The policy in force, and where it takes hold.
#[derive(Clone, Copy)]
pub struct InForce<'a> {
    /// The policy.
    pub set: &'a PolicySet,
    /// Identity of each workload.
    pub identities: &'a Identities,
    /// Tables.
    pub compiled: &'a Compiled,
    /// Documents of the policy directory.
    pub local: &'a [Document],
    /// Cgroups of each workload.
    pub cgroups: &'a Inventory,
}

/// Cgroups whose container is not known, and why. What starts a moment ago is not worth a word, so a runtime
/// must have failed.
#[must_use]
pub fn containers<'a>(
    waiting: impl Iterator<Item = &'a Path>,
    runtimes: &[RuntimeState],
) -> Option<String> {
    let failed: Vec<String> = runtimes
        .iter()
        .filter_map(|runtime| match &runtime.state {
            State::Failed(why) => Some(format!("{}: {why}", runtime.socket.display())),
            State::Absent | State::Ok => None,
        })
        .collect();
    let waiting: Vec<String> = waiting.map(|path| path.display().to_string()).collect();
    let first = waiting.first().filter(|_| !failed.is_empty())?;
    Some(format!(
        "{} containers are not told apart, and what they do is refused, because a container runtime does not answer \
         ({}); the first is {first}",
        waiting.len(),
        failed.join("; "),
    ))
}

/// What [`unmatched`] found, kept while nothing changes that it looks at.
#[derive(Debug, Default)]
pub struct Unmatched {
    found: Vec<String>,
    workloads: Workloads,
    tables: OrdMap<Identity, Arc<Table>>,
    cgroups: Inventory,
    files: Vec<String>,
}

impl Unmatched {
    /// Looks again where that can tell something else.
    pub fn update(&mut self, policy: &InForce<'_>) {
        let files = policy.local.iter().map(|it| it.name.as_str());
        let tables = &policy.compiled.tables;
        let same = self.workloads.is(&policy.set.workloads)
            && self.files.iter().map(String::as_str).eq(files.clone())
            && self.cgroups == *policy.cgroups
            && self.tables.diff(tables).all(|item| match item {
                DiffItem::Update { old, new } => selected(old.1) == selected(new.1),
                DiffItem::Add(..) | DiffItem::Remove(..) => false,
            });
        if !same {
            self.found = unmatched(policy);
            self.workloads = policy.set.workloads.clone();
            self.cgroups = policy.cgroups.clone();
            self.files = files.map(str::to_owned).collect();
        }
        self.tables.clone_from(tables);
    }

    /// One line each.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.found
    }
}

/// Workloads that a policy selects and that match no cgroup at present. Those of the policy directory,
/// which was written for this host, get a line each; the controller sends every host those of all hosts.
fn unmatched(policy: &InForce<'_>) -> Vec<String> {
    let files: HashSet<&str> = policy.local.iter().map(|it| it.name.as_str()).collect();
    let absent = policy
        .set
        .workloads
        .iter()
        .filter(|workload| is_selected(policy, workload) && !has_cgroup(policy, workload));
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        absent.partition(|workload| files.contains(workload.file.as_str()));
    let mut warnings: Vec<String> = here
        .iter()
        .take(LINES)
        .map(|workload| {
            format!(
                "{}:{}: workload {:?} matches no cgroup at present, so its policies guard nothing; if it should be \
                 running, correct `match`",
                workload.file, workload.line, workload.name
            )
        })
        .collect();
    let rest = here.get(LINES..).unwrap_or_default();
    warnings.extend(summary(rest, "more workloads match no cgroup at present"));
    let controllers =
        "workloads of the controller's policy match no cgroup of this host at present";
    warnings.extend(summary(&elsewhere, controllers));
    warnings
}

/// That there is no policy, if so.
#[must_use]
pub fn no_policy(local: &[Document], directory: &Path, controller: Option<bool>) -> Option<String> {
    let directory = directory.display();
    match controller {
        None if local.is_empty() => Some(format!(
            "there is no policy: {directory} does not exist or holds no .toml file, and no controller is configured"
        )),
        Some(false) if local.is_empty() => Some(format!(
            "there is no policy yet: the controller has sent none, and {directory} does not exist or holds no .toml file"
        )),
        None | Some(_) => None,
    }
}

/// Ties: a line each, and one for all pairs of workloads that differ in the groups that they ask for.
#[must_use]
pub fn ties<'a>(ties: impl Iterator<Item = &'a Tie>) -> Vec<String> {
    let (groups, others): (Vec<&Tie>, Vec<&Tie>) = ties.partition(|tie| tie.by_group);
    let mut warnings: Vec<String> = others
        .iter()
        .map(|tie| {
            format!(
                "{tie}: such processes are of no workload and not allowed; make one of them more specific"
            )
        })
        .collect();
    if let Some(first) = groups.first() {
        let more = match groups.len() - 1 {
            0 => String::new(),
            1 => ", and so does one more pair of workloads with groups".to_owned(),
            more => format!(", and so do {more} more pairs of workloads with groups"),
        };
        warnings.push(format!(
            "{first}{more}: a process in the groups of two such workloads is of neither and not allowed; if there may be \
             any, make one more specific or add a workload for both groups"
        ));
    }
    warnings
}

fn is_selected(policy: &InForce<'_>, workload: &Workload) -> bool {
    let identity = policy.identities.get(&workload.name);
    let table = identity.and_then(|identity| policy.compiled.tables.get(identity));
    table.is_some_and(|table| selected(table))
}

/// By drafts and enforced policies.
fn selected(table: &Table) -> bool {
    table.header.draft & SELECTED != 0
}

fn has_cgroup(policy: &InForce<'_>, workload: &Workload) -> bool {
    policy.cgroups.of(&workload.name).next().is_some()
}

fn summary(workloads: &[&Arc<Workload>], what: &str) -> Option<String> {
    if workloads.is_empty() {
        return None;
    }
    let names: Vec<&str> = workloads
        .iter()
        .take(NAMES)
        .map(|it| it.name.as_str())
        .collect();
    let more = if workloads.len() > NAMES { ", …" } else { "" };
    Some(format!(
        "{} {what}: {}{more}",
        workloads.len(),
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use ringfence_policy::{
        compile::{Context, compile, derive_identities},
        parse::parse,
    };
    use time::OffsetDateTime;

    use super::*;

    fn document(name: &str, workloads: std::ops::Range<usize>, policy: &str) -> Document {
        let workload = |n: usize| {
            format!(
                "[[workload]]\nname = \"w{n}\"\nlabels = {{ app = \"w\" }}\nmatch = {{ cgroup = \"/w{n}/**\" }}\n"
            )
        };
        Document {
            name: name.to_owned(),
            text: (workloads.map(workload).collect::<String>() + policy).into(),
        }
    }

    fn warnings(documents: &[Document], local: &[Document], matching: &[&str]) -> Vec<String> {
        let set = parse(documents).unwrap();
        let identities = derive_identities(&set).unwrap();
        let context = Context {
            now: OffsetDateTime::UNIX_EPOCH,
            boot_now_ns: 1,
            deny_unselected: false,
        };
        let cgroups = Inventory::new([], [(1, "/somewhere", matching)]);
        unmatched(&InForce {
            set: &set,
            identities: &identities,
            compiled: &compile(&set, &identities, &context).unwrap(),
            local,
            cgroups: &cgroups,
        })
    }

    const POLICY: &str = "[[policy]]\nname = \"w\"\napplies-to = { app = \"w\" }\n[[policy.egress]]\nports = [\"1/tcp\"]\n";

    #[test]
    fn a_selected_workload_without_a_cgroup_is_told_where_it_was_written() {
        let documents = [document("/etc/p.toml", 0..2, POLICY)];
        let found = warnings(&documents, &documents, &["w0"]);
        let [line] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert!(line.starts_with("/etc/p.toml:5: workload \"w1\""), "{line}");
        assert!(warnings(&documents, &documents, &["w0", "w1"]).is_empty());
        let unselected = [document("/etc/p.toml", 0..2, "")];
        assert!(warnings(&unselected, &unselected, &[]).is_empty());
    }

    #[test]
    fn what_was_found_is_found_again_when_anything_changes_that_it_tells_of() {
        let documents = [document("/etc/p.toml", 0..2, POLICY)];
        let set = parse(&documents).unwrap();
        let identities = derive_identities(&set).unwrap();
        let context = Context {
            now: OffsetDateTime::UNIX_EPOCH,
            boot_now_ns: 1,
            deny_unselected: false,
        };
        let compiled = compile(&set, &identities, &context).unwrap();
        let cgroups = Inventory::new([], [(1, "/somewhere", &["w0"][..])]);
        let now = InForce {
            set: &set,
            identities: &identities,
            compiled: &compiled,
            local: &documents,
            cgroups: &cgroups,
        };
        let mut kept = Unmatched::default();
        kept.update(&now);
        assert_eq!(kept.lines().len(), 1);
        let both = Inventory::new([], [(1, "/somewhere", &["w0", "w1"][..])]);
        kept.update(&InForce {
            cgroups: &both,
            ..now
        });
        assert!(kept.lines().is_empty());
        kept.update(&now);
        let mut unselected = compiled.clone();
        let without = |(identity, table): (&Identity, &Arc<Table>)| {
            let mut table = Table::clone(table);
            table.header.draft = 0;
            (*identity, Arc::new(table))
        };
        unselected.tables = compiled.tables.iter().map(without).collect();
        kept.update(&InForce {
            compiled: &unselected,
            ..now
        });
        assert!(kept.lines().is_empty());
        kept.update(&now);
        assert_eq!(kept.lines().len(), 1);
        // Those of a controller are one line, which says so.
        kept.update(&InForce { local: &[], ..now });
        assert!(kept.lines().iter().all(|line| line.contains("controller")));
    }

    #[test]
    fn workloads_of_other_hosts_are_one_line() {
        let local = [document("/etc/p.toml", 0..40, POLICY)];
        let documents = [local.to_vec(), vec![document("c.toml", 100..200, "")]].concat();
        let found = warnings(&documents, &local, &[]);
        assert_eq!(found.len(), LINES + 2, "{found:#?}");
        let [.., more, controllers] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert!(more.starts_with("8 more workloads"), "{more}");
        assert!(
            controllers.starts_with("100 workloads of the controller"),
            "{controllers}"
        );
        assert!(controllers.ends_with("w107, …"), "{controllers}");
    }

    #[test]
    fn ties_by_group_are_one_line() {
        let tie = |first: &str, by_group| Tie {
            first: first.to_owned(),
            second: "z".to_owned(),
            place: "processes".to_owned(),
            by_group,
        };
        let shown = ties([].iter());
        assert!(shown.is_empty(), "{shown:?}");
        let list = [
            tie("a", true),
            tie("b", false),
            tie("c", true),
            tie("d", true),
        ];
        let shown = ties(list.iter());
        let [cgroup, group] = shown.as_slice() else {
            panic!("{shown:?}");
        };
        assert!(cgroup.contains("\"b\" and \"z\""), "{cgroup}");
        for part in ["\"a\" and \"z\"", "2 more pairs", "not allowed"] {
            assert!(group.contains(part), "{part}: {group}");
        }
    }

    #[test]
    fn a_host_without_a_policy_is_told_why() {
        let directory = Path::new("/etc/ringfence/policy.d");
        let alone = no_policy(&[], directory, None).unwrap();
        assert!(
            alone.contains("/etc/ringfence/policy.d") && alone.contains("no controller"),
            "{alone}"
        );
        assert!(
            no_policy(&[], directory, Some(false))
                .unwrap()
                .contains("has sent none")
        );
        assert_eq!(no_policy(&[], directory, Some(true)), None);
        let local = [document("/etc/p.toml", 0..1, "")];
        assert_eq!(no_policy(&local, directory, None), None);
    }
}
