//! Parsing again at the price of what has changed.
//!
//! A document is cut before each line `[[workload]]` and `[[policy]]`. Each block is a document of its own that says the
//! same there: a header of the top level ends whatever came before, and a cut inside a string or a list leaves a block
//! that is not TOML. What the blocks do not make a valid set of, for whatever reason, is parsed whole: every error comes
//! from there.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{Contents, Diagnostic, check::Named, check::ties, parse_whole, read, report::Report};
use crate::model::{Document, Peer, Policy, PolicySet, Workload, Workloads};

/// Beyond so many, a list is sorted anew.
const FEW: usize = 64;

/// A valid set with what it was read from.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// Workloads and policies.
    pub set: PolicySet,
    /// By name.
    documents: HashMap<String, Arc<Cut>>,
}

/// A document in blocks.
#[derive(Debug)]
struct Cut {
    text: Arc<str>,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
struct Block {
    range: Range<usize>,
    /// Lines before it.
    above: usize,
    declares: Declared,
}

/// What a block declares.
#[derive(Clone, Debug)]
enum Declared {
    Nothing,
    Workload(Arc<Workload>),
    Policy(Arc<Policy>),
}

/// What differs from the set before.
#[derive(Default)]
struct Difference {
    gone: Contents,
    new: Contents,
}

impl Parsed {
    /// Parses and validates documents together, in which much is as it was.
    ///
    /// # Errors
    /// As [`super::parse`].
    pub fn next(&self, documents: &[Document]) -> Result<Self, Vec<Diagnostic>> {
        if let Some(next) = self.in_blocks(documents) {
            return Ok(next);
        }
        parse_whole(documents).map(|set| Self {
            set,
            documents: HashMap::new(),
        })
    }

    fn in_blocks(&self, documents: &[Document]) -> Option<Self> {
        // A set that was parsed whole belongs to no blocks.
        let fresh = Self::default();
        let former = if self.documents.is_empty() {
            &fresh
        } else {
            self
        };
        let mut difference = Difference::default();
        let mut cuts = HashMap::with_capacity(documents.len());
        for document in documents {
            let before = former.documents.get(&document.name);
            let cut = match before {
                Some(before) if before.text == document.text => Arc::clone(before),
                _ => Arc::new(cut(document, before.map(Arc::as_ref), &mut difference)?),
            };
            if cuts.insert(document.name.clone(), cut).is_some() {
                return None;
            }
        }
        for (name, cut) in &former.documents {
            if !cuts.contains_key(name) {
                difference.gone.take(&cut.blocks);
            }
        }
        Some(Self {
            set: difference.applied_to(&former.set)?,
            documents: cuts,
        })
    }
}

impl Contents {
    fn take(&mut self, blocks: &[Block]) {
        for block in blocks {
            match &block.declares {
                Declared::Nothing => {}
                Declared::Workload(workload) => self.workloads.push(Arc::clone(workload)),
                Declared::Policy(policy) => self.policies.push(Arc::clone(policy)),
            }
        }
    }
}

impl Difference {
    /// The new set; nothing where it is not valid.
    fn applied_to(self, before: &PolicySet) -> Option<PolicySet> {
        let Self { gone, new } = self;
        let fewer = !gone.workloads.is_empty();
        let same = !fewer && new.workloads.is_empty();
        let checked = new.policies.clone();
        let workloads = if same {
            before.workloads.clone()
        } else {
            let list = merged(&before.workloads, &gone.workloads, new.workloads)?;
            Workloads::from(ties(&list).is_empty().then_some(list)?)
        };
        let policies = merged(&before.policies, &gone.policies, new.policies)?;
        let to_check = if fewer { &policies } else { &checked };
        let known = |policy: &Arc<Policy>| {
            let peers = policy.rules.iter().flat_map(|rule| &rule.peers).flatten();
            let mut named = peers.filter_map(|peer| match peer {
                Peer::Workload { name, .. } => Some(name),
                Peer::Labels { .. } | Peer::Cidr { .. } | Peer::Entity(_) => None,
            });
            named.all(|name| workloads.position(name).is_some())
        };
        to_check.iter().all(known).then_some(PolicySet {
            workloads,
            policies,
        })
    }
}

/// A list ordered by name without those that are gone and with those that are new; nothing where two have one name.
fn merged<T: Named>(before: &[Arc<T>], gone: &[Arc<T>], new: Vec<Arc<T>>) -> Option<Vec<Arc<T>>> {
    let place =
        |list: &[Arc<T>], item: &T| list.binary_search_by(|other| other.name().cmp(item.name()));
    let mut list: Vec<_> = before.to_vec();
    if gone.len() + new.len() > FEW {
        let mut stays = vec![true; list.len()];
        for item in gone {
            *stays.get_mut(place(&list, item).ok()?)? = false;
        }
        let mut stays = stays.into_iter();
        list.retain(|_| stays.next().unwrap_or(true));
        list.extend(new);
        list.sort_by(|a, b| a.name().cmp(b.name()));
        let twice = list.windows(2).any(|pair| match pair {
            [a, b] => a.name() == b.name(),
            _ => false,
        });
        return (!twice).then_some(list);
    }
    for item in gone {
        let _ = list.remove(place(&list, item).ok()?);
    }
    for item in new {
        list.insert(place(&list, &item).err()?, item);
    }
    Some(list)
}

/// Cuts and reads a document; what is as before is not read again. Nothing where it holds an error, or a block with
/// several declarations.
fn cut(document: &Document, before: Option<&Cut>, difference: &mut Difference) -> Option<Cut> {
    let Document { name, text } = document;
    let ranges = ranges(text);
    let former = before.map_or(&[][..], |before| &before.blocks);
    let same = |range: &Range<usize>, block: &Block| {
        before.and_then(|before| before.text.get(block.range.clone())) == text.get(range.clone())
    };
    let ahead = ranges.iter().zip(former);
    let ahead = ahead
        .take_while(|(range, block)| same(range, block))
        .count();
    let behind = ranges.iter().skip(ahead).rev();
    let behind = behind.zip(former.iter().skip(ahead).rev());
    let behind = behind
        .take_while(|(range, block)| same(range, block))
        .count();
    let mut above = 0;
    let mut blocks = Vec::with_capacity(ranges.len());
    let last = ranges.len() - behind;
    for (number, range) in ranges.iter().enumerate() {
        let kept = if number < ahead {
            former.get(number)
        } else if number >= last {
            former.get(number + former.len() - ranges.len())
        } else {
            None
        };
        let part = text.get(range.clone())?;
        let block = match kept {
            Some(kept) if kept.above == above => Block {
                range: range.clone(),
                ..kept.clone()
            },
            _ => {
                difference.gone.take(kept.map_or(&[], std::slice::from_ref));
                let block = read_block(name, range.clone(), above, part)?;
                difference.new.take(std::slice::from_ref(&block));
                block
            }
        };
        above += lines(part);
        blocks.push(block);
    }
    let middle = former.get(ahead..former.len() - behind);
    difference.gone.take(middle.unwrap_or_default());
    Some(Cut {
        text: Arc::clone(text),
        blocks,
    })
}

fn read_block(file: &str, range: Range<usize>, above: usize, text: &str) -> Option<Block> {
    let mut report = Report::new(file, above, text);
    let mut contents = Contents::default();
    read(&mut report, text, &mut contents);
    let Contents {
        mut workloads,
        mut policies,
        ..
    } = contents;
    let declares = match (workloads.pop(), policies.pop()) {
        (None, None) => Declared::Nothing,
        (Some(workload), None) => Declared::Workload(workload),
        (None, Some(policy)) => Declared::Policy(policy),
        (Some(_), Some(_)) => return None,
    };
    let all = report.found.is_empty() && workloads.is_empty() && policies.is_empty();
    all.then_some(Block {
        range,
        above,
        declares,
    })
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// Where a document is cut. Whole, where something else than comments comes before the first declaration.
fn ranges(text: &str) -> Vec<Range<usize>> {
    let is_header = |at: usize| {
        let line = text.get(at..).and_then(|rest| rest.lines().next());
        matches!(line, Some("[[workload]]" | "[[policy]]"))
    };
    let breaks = text.match_indices("\n[[").map(|(at, _)| at + 1);
    let starts: Vec<usize> = std::iter::once(0)
        .chain(breaks.filter(|at| is_header(*at)))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let first = starts.get(1).copied().unwrap_or(text.len());
    let head = text.get(..first).unwrap_or_default();
    let is_comment = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if !is_header(0) && !head.lines().all(is_comment) {
        return std::iter::once(0..text.len()).collect();
    }
    starts
        .iter()
        .copied()
        .zip(ends)
        .map(|(a, b)| a..b)
        .collect()
}
