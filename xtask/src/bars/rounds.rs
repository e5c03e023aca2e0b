//! What bars that drive one canary after another on one home have in common.

use std::time::Duration;

use anyhow::{Result, bail};
use tidegate_example_service::Behaviour;

use super::Figures;
use crate::stage::{Census, DAEMONS, Ended, Holding, Stage, wait_until};

/// Longest that a canary of some seconds may take, kills included.
pub(super) const ROUND_BOUND: Duration = Duration::from_secs(90);

/// The outcome of a good version.
pub(super) const PROMOTED: &str = "promoted";

/// The outcome of a bad one.
pub(super) const ROLLED_BACK: &str = "rolledBack";

/// A version that fails half of its requests: nobody has to look twice.
pub(super) fn bad() -> Behaviour {
    Behaviour { errors: 0.5, ..Behaviour::default() }
}

/// Makes the artifact of a version, good or bad.
pub(super) fn prepare(stage: &Stage, version: &str, good: bool) -> Result<()> {
    stage.artifact(version, &if good { Behaviour::default() } else { bad() })
}

/// Asks for a release and returns as soon as it is accepted.
pub(super) fn accept(stage: &Stage, version: &str) -> Result<()> {
    let ran = stage.tidegate(&["release", version, "--to", "production", "--no-wait"])?;
    // Acceptance of something that then waits for a person would be 4; nothing here does.
    if ran.code != 0 {
        bail!("not accepted: {ran}");
    }
    Ok(())
}

/// The first version, which has nothing to be compared with.
pub(super) fn first(stage: &Stage, version: &str) -> Result<()> {
    prepare(stage, version, true)?;
    let ran = stage.tidegate(&["release", version, "--to", "production", "--until", "ended"])?;
    if ran.code != 0 {
        bail!("the first version is not promoted: {ran}");
    }
    Ok(())
}

/// What a kind of version has to come to: outcome and stable version.
pub(super) fn expected<'a>(good: bool, version: &'a str, before: &'a str) -> (&'a str, &'a str) {
    if good { (PROMOTED, version) } else { (ROLLED_BACK, before) }
}

/// Who is there between two rollouts: one instance, its shim, and one of each daemon. Waits until
/// what is being stopped has ended, at most for some seconds; what is left then is shown.
pub(super) fn settled(stage: &Stage) -> Census {
    let mut last = Census::default();
    let settled = wait_until(Duration::from_secs(15), "nothing is left over", || {
        last = stage.census();
        (last.surplus(1) == 0).then(|| last.clone())
    });
    settled.unwrap_or(last)
}

/// What was left over, and how memory and descriptors have grown since `before`.
pub(super) fn compare(before: &Census, after: &Census, figures: &mut Figures) {
    figures.exactly("processes left over, zombies included", after.surplus(1), 0);
    for role in DAEMONS {
        let (before, after) = (before.holding.get(role), after.holding.get(role));
        if let (Some(before), Some(after)) = (before, after) {
            figures.note(&format!("{role}: memory at the start"), before.resident_mib, "MiB");
            figures.note(&format!("{role}: memory at the end"), after.resident_mib, "MiB");
            let open = |holding: &Holding| holding.descriptors as f64;
            figures.note(&format!("{role}: descriptors at the start"), open(before), "");
            figures.note(&format!("{role}: descriptors at the end"), open(after), "");
        }
    }
}

/// Whether a rollout ended as its kind has to.
pub(super) fn right(ended: &Ended, good: bool, version: &str, before: &str) -> bool {
    (ended.outcome.as_str(), ended.stable.as_str()) == expected(good, version, before)
}

#[cfg(test)]
mod tests {
    use super::{expected, right};
    use crate::stage::Ended;

    #[test]
    fn a_rollout_is_right_only_with_outcome_and_stable_version() {
        assert_eq!(expected(true, "v3", "v2"), ("promoted", "v3"));
        assert_eq!(expected(false, "v3", "v2"), ("rolledBack", "v2"));
        let ended = |outcome: &str, stable: &str| Ended {
            outcome: outcome.into(),
            stable: stable.into(),
            id: "r".into(),
            document: serde_json::Value::Null,
        };
        assert!(right(&ended("promoted", "v3"), true, "v3", "v2"));
        assert!(!right(&ended("promoted", "v2"), true, "v3", "v2"));
        assert!(right(&ended("rolledBack", "v2"), false, "v3", "v2"));
        assert!(!right(&ended("rolledBack", "v3"), false, "v3", "v2"));
        assert!(!right(&ended("held", "v2"), false, "v3", "v2"));
    }
}
