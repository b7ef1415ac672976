//! A small generator of numbers, so that a case is its seed.

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    #[must_use]
    pub fn below(&mut self, end: usize) -> usize {
        let number = self.next_u64() % (end.max(1) as u64);
        usize::try_from(number).unwrap_or(0)
    }

    /// True in `percent` of 100 cases.
    #[must_use]
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When `items` is empty.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "support for tests; the lists are not empty"
    )]
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        let index = self.below(items.len());
        *items.get(index).expect("a list to pick from is not empty")
    }
}
