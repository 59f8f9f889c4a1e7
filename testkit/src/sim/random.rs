//! Randomness from one seed: the same seed draws the same numbers on every machine.

use std::cell::RefCell;
use std::rc::Rc;

use election::Entropy;

/// Steps the state of splitmix64.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A splitmix64 generator: small, fast, and good enough to choose faults with.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    #[cfg(test)]
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another generator of the same seed: draws of one do not move the other.
    pub fn stream(seed: u64, stream: u64) -> Self {
        Self(Self(seed ^ stream.wrapping_mul(GAMMA)).draw())
    }

    /// 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end`, without it; 0 where `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.draw()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number from `low` to `high`, with both.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `permille` of 1000 draws.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// An index into something of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// One of them; `items` is not empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())]
    }
}

/// The randomness of the kernel, which a copied process shares with nobody: clones of a machine go on drawing from the
/// same source and so diverge, while what they had drawn before stays equal.
#[derive(Clone, Debug)]
pub struct Kernel(Rc<RefCell<Random>>);

impl Kernel {
    /// The kernel of one history.
    pub fn new(random: Random) -> Self {
        Self(Rc::new(RefCell::new(random)))
    }
}

impl Entropy for Kernel {
    fn bits(&mut self) -> u64 {
        self.0.borrow_mut().draw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_draws_the_same_and_bounds_hold() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        for _ in 0..1000 {
            assert_eq!(one.draw(), two.draw());
            let number = one.between(3, 9);
            assert!((3..=9).contains(&number));
            assert_eq!(number, two.between(3, 9));
        }
        assert_eq!(one.below(0), 0);
    }
}
