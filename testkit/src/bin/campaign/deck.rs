//! Draws from a set of cards in a random order that a seed repeats: each card once before any comes again.

/// A shuffled set of cards that is shuffled anew when it is used up.
#[derive(Debug)]
pub struct Deck<T> {
    cards: Vec<T>,
    drawn: usize,
    state: u64,
}

impl<T: Copy> Deck<T> {
    /// All of `cards`, in the order of `seed`. There must be at least one.
    pub fn new(cards: &[T], seed: u64) -> Self {
        Self { cards: cards.to_vec(), drawn: cards.len(), state: seed }
    }

    /// The next card.
    pub fn draw(&mut self) -> Option<T> {
        if self.drawn == self.cards.len() {
            self.shuffle();
        }
        let card = self.cards.get(self.drawn).copied();
        self.drawn += 1;
        card
    }

    fn shuffle(&mut self) {
        for last in (1..self.cards.len()).rev() {
            let chosen = self.random() % (last as u64 + 1);
            self.cards.swap(last, usize::try_from(chosen).unwrap_or(0));
        }
        self.drawn = 0;
    }

    /// SplitMix64: enough to shuffle, and the same everywhere.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_card_comes_once_before_any_comes_again() {
        let mut deck = Deck::new(&[1, 2, 3, 4, 5], 9);
        for _ in 0..4 {
            let mut drawn: Vec<i32> = (0..5).filter_map(|_| deck.draw()).collect();
            drawn.sort_unstable();
            assert_eq!(drawn, [1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn a_seed_repeats_its_order() {
        let order = |seed| {
            let mut deck = Deck::new(&[1, 2, 3, 4, 5, 6, 7, 8], seed);
            (0..24).filter_map(|_| deck.draw()).collect::<Vec<i32>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
