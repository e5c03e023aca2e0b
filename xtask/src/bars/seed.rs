//! Chance that can be repeated: everything random in a bar comes from its seed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// A source of random choices.
#[derive(Debug, Clone)]
pub struct Chance(Pcg64Mcg);

impl Chance {
    /// The source for one purpose of a seed; another purpose is another source.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mixed = seed ^ purpose.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(Pcg64Mcg::seed_from_u64(mixed))
    }

    /// One of the numbers below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.next_u64() % bound }
    }

    /// A time from 0 up to `most`, in whole milliseconds.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(self.below(most + 1))
    }

    /// Puts a list into a random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let bound = u64::try_from(last + 1).unwrap_or(u64::MAX);
            let other = usize::try_from(self.below(bound)).unwrap_or(0);
            list.swap(last, other);
        }
    }
}

/// A seed for those who do not name one.
pub(super) fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) ^ since.as_secs()
}

#[cfg(test)]
mod tests {
    use super::Chance;
    use std::time::Duration;

    #[test]
    fn the_same_seed_makes_the_same_choices_and_another_purpose_others() {
        let draw = |seed, purpose| {
            let mut chance = Chance::new(seed, purpose);
            [chance.below(1000), chance.below(1000), chance.below(1000)]
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn times_lie_within_their_bound_and_reach_both_ends() {
        let mut chance = Chance::new(1, 1);
        let most = Duration::from_millis(3);
        let drawn: Vec<Duration> = (0..200).map(|_| chance.up_to(most)).collect();
        assert!(drawn.iter().all(|time| *time <= most));
        assert!(drawn.contains(&Duration::ZERO) && drawn.contains(&most));
    }

    #[test]
    fn a_shuffled_list_has_the_same_things_in_another_order() {
        let mut list: Vec<u32> = (0..50).collect();
        Chance::new(3, 1).shuffle(&mut list);
        assert_ne!(list, (0..50).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..50).collect::<Vec<_>>());
    }
}
