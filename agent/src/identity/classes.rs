//! Numbers for sets that the kernel compares: a class number follows from what the class means.
//!
//! So it is the same whatever the order in which classes come up and after a restart or an upgrade, and the maps
//! never hold a number whose meaning is changing while they are being written.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher as _},
};

use ringfence_common::abi::executable::{GROUPED, MEMBER};

use super::stable::Stable;

/// Which numbers a class may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Without `GROUPED`.
    Plain,
    /// With `GROUPED` and without `MEMBER` bits.
    Grouped,
}

impl Form {
    /// The number of this form that is like another one.
    fn fit(self, number: u32) -> u32 {
        match self {
            Self::Plain => number & !GROUPED,
            Self::Grouped => number & !MEMBER | GROUPED,
        }
    }

    /// The one after it.
    fn next(self, number: u32) -> u32 {
        let step = match self {
            Self::Plain => 1,
            Self::Grouped => MEMBER + 1,
        };
        self.fit(number.wrapping_add(step))
    }
}

/// Gives numbers to meanings, never 0.
#[derive(Clone, Debug)]
pub(super) struct Classes<M> {
    numbers: HashMap<M, u32>,
    meanings: HashMap<u32, M>,
}

impl<M: Clone + Eq + Hash> Classes<M> {
    /// Without any class.
    pub fn new() -> Self {
        Self {
            numbers: HashMap::new(),
            meanings: HashMap::new(),
        }
    }

    /// The number of a meaning, and whether it is a new one.
    pub fn number(&mut self, meaning: &M, form: Form) -> (u32, bool) {
        if let Some(number) = self.numbers.get(meaning) {
            return (*number, false);
        }
        let mut hasher = Stable::new();
        meaning.hash(&mut hasher);
        let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
        let mut number = form.fit(u32::from_le_bytes([a, b, c, d]));
        while number == 0 || self.meanings.contains_key(&number) {
            number = form.next(number);
        }
        let _ = self.numbers.insert(meaning.clone(), number);
        let _ = self.meanings.insert(number, meaning.clone());
        (number, true)
    }

    /// Every class.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &M)> {
        self.meanings
            .iter()
            .map(|(number, meaning)| (*number, meaning))
    }
}
