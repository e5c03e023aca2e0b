//! Which round is disturbed how: all of it from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::super::Chance;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Target {
    Engine,
    Host,
    Switch,
    /// All three at once.
    All,
}

impl Target {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Engine => "the engine",
            Self::Host => "the host",
            Self::Switch => "the switch",
            Self::All => "all three",
        }
    }

    /// How many, in a full and in a short run.
    const fn wanted(self, short: bool) -> usize {
        match (self, short) {
            (Self::Engine, false) => 200,
            (Self::Host, false) => 50,
            (Self::Switch | Self::All, false) => 20,
            (Self::Engine, true) => 6,
            (Self::Host, true) => 3,
            (Self::Switch | Self::All, true) => 1,
        }
    }

    /// At most so many in one canary, so that a canary can also be killed twice.
    const fn in_a_round(self) -> u64 {
        match self {
            Self::Engine => 2,
            Self::Host | Self::Switch | Self::All => 1,
        }
    }
}

const TARGETS: [Target; 4] = [Target::Engine, Target::Host, Target::Switch, Target::All];

/// A kill: of whom, and how long after the acceptance of the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kill {
    pub(super) target: Target,
    pub(super) at: Duration,
}

/// A canary and its kills, in order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) good: bool,
    pub(super) kills: Vec<Kill>,
}

/// What is still to be done.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    chance: Chance,
    spans: BTreeMap<bool, Duration>,
    wanted: BTreeMap<Target, usize>,
    left: BTreeMap<Target, usize>,
    rounds: usize,
    rounds_max: usize,
}

impl Plan {
    /// `spans`: how long an undisturbed round of each kind takes; kills fall evenly into that.
    pub(super) fn new(seed: u64, short: bool, spans: &BTreeMap<bool, Duration>) -> Self {
        let wanted: BTreeMap<Target, usize> =
            TARGETS.iter().map(|target| (*target, target.wanted(short))).collect();
        Self {
            chance: Chance::new(seed, 1),
            spans: spans.clone(),
            left: wanted.clone(),
            rounds: 0,
            // A kill in the last moments may come too late and is repeated; not for ever.
            rounds_max: wanted.values().sum::<usize>() * 2,
            wanted,
        }
    }

    /// How many kills of whom are wanted.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (Target, usize)> {
        self.wanted.iter().map(|(target, wanted)| (*target, *wanted))
    }

    /// The next round; none when all kills have landed or too many came too late.
    pub(super) fn next(&mut self) -> Option<Round> {
        let open: Vec<Target> =
            self.left.iter().filter(|(_, left)| **left > 0).map(|(target, _)| *target).collect();
        if open.is_empty() || self.rounds >= self.rounds_max {
            return None;
        }
        // Good and bad take turns for each target, so that both are hit by all.
        let drawn = self.chance.below(u64::try_from(open.len()).unwrap_or(1));
        let target = *open.get(usize::try_from(drawn).unwrap_or(0))?;
        let good = self.rounds.is_multiple_of(2);
        self.rounds += 1;
        let left = self.left.get(&target).copied().unwrap_or(0);
        let most = target.in_a_round().min(u64::try_from(left).unwrap_or(1));
        let number = 1 + self.chance.below(most);
        let span = self.spans.get(&good).copied().unwrap_or_default();
        let mut kills: Vec<Kill> =
            (0..number).map(|_| Kill { target, at: self.chance.up_to(span) }).collect();
        kills.sort_by_key(|kill| kill.at);
        Some(Round { good, kills })
    }

    /// Which kills hit a rollout in progress.
    pub(super) fn landed(&mut self, killed: &[(Target, bool)]) {
        for (target, inside) in killed {
            if let Some(left) = self.left.get_mut(target).filter(|_| *inside) {
                *left = left.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Duration, Plan, Round, Target};

    fn spans() -> BTreeMap<bool, Duration> {
        BTreeMap::from([(true, Duration::from_secs(4)), (false, Duration::from_secs(2))])
    }

    fn play(seed: u64, short: bool, inside: impl Fn(usize) -> bool) -> Vec<Round> {
        let mut plan = Plan::new(seed, short, &spans());
        let mut rounds = Vec::new();
        while let Some(round) = plan.next() {
            let landed: Vec<(Target, bool)> =
                round.kills.iter().map(|kill| (kill.target, inside(rounds.len()))).collect();
            plan.landed(&landed);
            rounds.push(round);
        }
        rounds
    }

    fn count(rounds: &[Round], target: Target) -> usize {
        rounds.iter().flat_map(|round| &round.kills).filter(|kill| kill.target == target).count()
    }

    #[test]
    fn a_full_run_has_all_kills_in_good_and_bad_canaries() {
        let rounds = play(1, false, |_| true);
        let counts = [Target::Engine, Target::Host, Target::Switch, Target::All]
            .map(|target| count(&rounds, target));
        assert_eq!(counts, [200, 50, 20, 20]);
        let good = rounds.iter().filter(|round| round.good).count();
        assert!(good.abs_diff(rounds.len() - good) <= 1);
    }

    #[test]
    fn kills_fall_into_the_span_of_their_kind_and_in_order() {
        for round in play(2, false, |_| true) {
            let span = spans()[&round.good];
            assert!(round.kills.iter().all(|kill| kill.at <= span));
            assert!(round.kills.is_sorted_by_key(|kill| kill.at));
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_run_and_another_one_another() {
        assert_eq!(play(3, true, |_| true), play(3, true, |_| true));
        assert_ne!(play(3, false, |_| true), play(4, false, |_| true));
    }

    #[test]
    fn a_kill_that_came_too_late_is_repeated_and_not_for_ever() {
        let punctual = play(5, true, |_| true);
        let late_once = play(5, true, |round| round != 0);
        assert!(late_once.len() > punctual.len());
        assert_eq!(play(5, true, |_| false).len(), 22);
    }
}
