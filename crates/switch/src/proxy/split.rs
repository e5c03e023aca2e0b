//! Which share a request falls into: shuffled blocks of all points, never round robin, because a
//! page that fetches two things in turn would alias with it.

use std::sync::{Mutex, PoisonError};

use rand_core::Rng as _;
use rand_pcg::Pcg32;
use tidegate_wire::Fence;
use tidegate_wire::traffic::{FULL_WEIGHT, VersionWeight};

/// Points are handed out so that each one comes exactly once in a block of 10,000.
#[derive(Debug)]
pub(crate) struct Split {
    block: Mutex<Block>,
}

#[derive(Debug)]
struct Block {
    random: Pcg32,
    order: Vec<u16>,
    next: usize,
}

impl Split {
    /// The same seed and fence give the same points in the same order.
    pub(crate) fn new(seed: u64, fence: Fence) -> Self {
        let stream = fence.epoch.0.rotate_left(32) ^ fence.seq;
        let full = u16::try_from(FULL_WEIGHT).unwrap_or(u16::MAX);
        let order: Vec<u16> = (0..full).collect();
        let next = order.len();
        Self { block: Mutex::new(Block { random: Pcg32::new(seed, stream), order, next }) }
    }

    /// The next point, 0 to 9,999.
    pub(crate) fn point(&self) -> u16 {
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        if block.next >= block.order.len() {
            block.shuffle();
        }
        let point = block.order.get(block.next).copied().unwrap_or_default();
        block.next += 1;
        point
    }
}

impl Block {
    /// Fisher and Yates.
    fn shuffle(&mut self) {
        self.next = 0;
        for last in (1..self.order.len()).rev() {
            let among = u64::try_from(last + 1).unwrap_or(u64::MAX);
            // The bias of a 64-bit remainder over at most 10,000 is below 10^-15.
            let other = usize::try_from(self.random.next_u64() % among).unwrap_or_default();
            self.order.swap(last, other);
        }
    }
}

/// The index of the version that owns `point`: the first one owns the lowest points. `None` where
/// the weights do not reach so far.
pub(crate) fn owner<'a>(
    weights: impl Iterator<Item = &'a VersionWeight>,
    point: u16,
) -> Option<usize> {
    let mut reached = 0;
    for (index, weight) in weights.enumerate() {
        reached += weight.weight_bp;
        if u32::from(point) < reached {
            return Some(index);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::Digest;

    fn weights(shares: &[u32]) -> Vec<VersionWeight> {
        let weight = |weight_bp: &u32| VersionWeight {
            version: weight_bp.to_string(),
            digest: Digest::default(),
            weight_bp: *weight_bp,
        };
        shares.iter().map(weight).collect()
    }

    #[test]
    fn every_block_has_the_exact_shares_and_its_own_order() {
        let split = Split::new(42, Fence::new(1, 1));
        let weights = weights(&[37, 1_250, 8_713]);
        let mut orders = Vec::new();
        for _ in 0..3 {
            let mut counts = [0_u32; 3];
            let order: Vec<u16> = (0..FULL_WEIGHT).map(|_| split.point()).collect();
            for point in &order {
                counts[owner(weights.iter(), *point).unwrap()] += 1;
            }
            assert_eq!(counts, [37, 1_250, 8_713]);
            orders.push(order);
        }
        assert_ne!(orders[0], orders[1]);
        assert_ne!(orders[1], orders[2]);
        let again = Split::new(42, Fence::new(1, 1));
        assert!(orders[0].iter().all(|point| *point == again.point()));
        let other = Split::new(42, Fence::new(1, 2));
        assert!(orders[0].iter().any(|point| *point != other.point()));
    }

    #[test]
    fn a_client_with_any_short_period_sees_both_versions_in_fair_shares() {
        let split = Split::new(7, Fence::new(1, 1));
        let weights = weights(&[5_000, 5_000]);
        let seen: Vec<usize> =
            (0..10_000).map(|_| owner(weights.iter(), split.point()).unwrap()).collect();
        for period in [2, 3, 5, 10, 100] {
            for phase in 0..period {
                let mine: Vec<_> = seen.iter().skip(phase).step_by(period).collect();
                let first = mine.iter().filter(|version| ***version == 0).count();
                let share = 100 * first / mine.len();
                assert!((25..=75).contains(&share), "period {period}: {share} %");
            }
        }
    }

    #[test]
    fn raising_the_first_version_moves_points_only_to_it() {
        let (before, after) = (weights(&[1_000, 9_000]), weights(&[2_000, 8_000]));
        for point in 0..10_000 {
            let pair = (owner(before.iter(), point), owner(after.iter(), point));
            let moved = (1_000..2_000).contains(&point);
            assert_eq!(pair == (Some(1), Some(0)), moved);
            assert!(moved || pair.0 == pair.1);
        }
        assert_eq!(owner(weights(&[0, 0]).iter(), 0), None);
        assert_eq!(owner(weights(&[0, 10_000]).iter(), 0), Some(1));
    }
}
