//! Draws without putting back, until the bag is empty and is filled again.

use kvorum_replication::random::Random;

#[derive(Clone, Debug)]
pub(super) struct Bag<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Copy> Bag<T> {
    pub(super) fn new(all: Vec<T>) -> Self {
        Self { all, left: Vec::new() }
    }

    /// One of those that were not drawn yet; `None` if there never was any.
    pub(super) fn draw(&mut self, random: &mut Random) -> Option<T> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
        }
        if self.left.is_empty() {
            return None;
        }
        let place = random.below(self.left.len() as u64);
        Some(self.left.swap_remove(usize::try_from(place).expect("it is below a length")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_before_anything_comes_again() {
        let mut bag = Bag::new(vec![1, 2, 3, 4]);
        let mut random = Random::new(1);
        for _ in 0..10 {
            let mut drawn: Vec<_> = (0..4).filter_map(|_| bag.draw(&mut random)).collect();
            drawn.sort_unstable();
            assert_eq!(drawn, [1, 2, 3, 4]);
        }
        assert_eq!(Bag::<u8>::new(Vec::new()).draw(&mut random), None);
    }
}
