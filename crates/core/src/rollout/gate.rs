//! Measurements by effects: answers, limits, and when to ask again.

use serde_json::json;

use super::event::{CheckVerdict, Event, Measurement};
use super::flow::Flow;
use super::state::check_key;
use crate::machine::Outcome as EffectOutcome;
use crate::spec::NoDataPolicy;

/// A measurement that could not be made is tried again after this, not after the interval.
pub(super) const ERROR_RETRY_MS: u64 = 2_000;

impl Flow<'_> {
    /// The answer of a measurement, by its effect's key (`check-gate-3-smoke`).
    pub(super) fn measured(&mut self, key: &str, outcome: &EffectOutcome) {
        let Some((gate, number, check)) = parse(key) else { return };
        let wanted = if gate { self.waits_for_gate(&check) } else { self.state.is_watched() };
        let current = self
            .state
            .checks
            .get(&check_key(&check, gate))
            .is_some_and(|c| c.under_way && c.asked == number);
        if !current {
            return;
        }
        let (result, text) = match outcome {
            EffectOutcome::Applied(value) => (
                Measurement::Pass,
                value.get("detail").and_then(|d| d.as_str()).unwrap_or("passed").to_owned(),
            ),
            EffectOutcome::Failed(reason) => (Measurement::Fail, reason.text.clone()),
            EffectOutcome::Refused(reason)
            | EffectOutcome::Unknown(reason)
            | EffectOutcome::Unreachable(reason) => (Measurement::Error, reason.text.clone()),
        };
        self.emit(Event::Measured { check: check.clone(), number, gate, result, text });
        if wanted {
            self.judge(&check, gate);
        }
    }

    fn judge(&mut self, check: &str, gate: bool) {
        let Some(spec) = self.state.check(check).cloned() else { return };
        let Some(state) = self.state.checks.get(&check_key(check, gate)).cloned() else { return };
        let evidence = json!({
            "passes": state.passes, "failures": state.failures, "errorsInARow": state.errors,
        });
        if state.failures > spec.failure_limit {
            self.check_failed(check, CheckVerdict::Fail, state.text, evidence);
        } else if state.errors >= spec.consecutive_error_limit.max(1) {
            if spec.source_down == NoDataPolicy::Fail {
                self.check_failed(check, CheckVerdict::SourceDown, state.text, evidence);
            } else if state.errors == spec.consecutive_error_limit.max(1) {
                let text = format!("{check} cannot be measured: {}", state.text);
                self.emit(Event::CheckDecided {
                    check: check.to_owned(),
                    verdict: CheckVerdict::SourceDown,
                    text,
                    evidence,
                });
            }
        } else if gate && state.passes > 0 && state.passes + state.failures >= spec.count {
            self.gate_passed(check, state.text, evidence);
        }
    }

    /// Whether a watching check that is measured by effects cannot be measured and says to hold.
    pub(super) fn source_down(&self) -> Option<String> {
        self.state.watching().iter().find_map(|name| {
            let spec = self.state.check(name)?;
            let state = self.state.checks.get(&check_key(name, false))?;
            let down = state.errors >= spec.consecutive_error_limit.max(1);
            (down && spec.source_down != NoDataPolicy::Continue)
                .then(|| format!("{name} cannot be measured: {}", state.text))
        })
    }
}

/// `check-gate-3-smoke` → (true, 3, "smoke").
fn parse(key: &str) -> Option<(bool, u32, String)> {
    let rest = key.strip_prefix("check-")?;
    let (place, rest) = rest.split_once('-')?;
    let (number, check) = rest.split_once('-')?;
    Some((place == "gate", number.parse().ok()?, check.to_owned()))
}
