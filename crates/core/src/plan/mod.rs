//! Plans: what a release will do, before it does anything.
//!
//! [`moves`] is the plan that a rollout executes; [`make`] is the same for people: each step, its
//! undo and how fast, the point of no return, and what happens if Tidegate dies there.

mod refuse;

use serde::{Deserialize, Serialize};

pub use refuse::{refusals, warnings};

use crate::digest::Digest;
use crate::rollout::RolloutKind;
use crate::spec::{
    Canary, EnvironmentSpec, LostAction, ProjectSpec, ReleaseRef, ServiceSpec, Step,
};
use crate::traffic::FULL_WEIGHT;

/// The steps that a rollout executes; promotion to all traffic follows them. Without a version
/// before there is nobody to share traffic with: weights and pauses fall away. An undo has none.
#[must_use]
pub fn moves(kind: RolloutKind, has_previous: bool, strategy: &Canary) -> Vec<Step> {
    match kind {
        RolloutKind::Undo => Vec::new(),
        RolloutKind::Release | RolloutKind::Retry => strategy
            .steps
            .iter()
            .filter(|step| match step {
                Step::SetWeight { .. } | Step::Pause { .. } => has_previous,
                Step::Analysis { .. } | Step::Run { .. } => true,
            })
            .cloned()
            .collect(),
    }
}

/// Names of the checks that a strategy uses, as watch or as gate.
#[must_use]
pub fn checks_of(strategy: &Canary) -> Vec<String> {
    let mut names = strategy.analysis.clone();
    for step in &strategy.steps {
        if let Step::Analysis { checks } = step {
            names.extend(checks.iter().cloned());
        }
    }
    names.sort();
    names.dedup();
    names
}

/// `kind: Plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// `tidegate/v1`.
    pub api_version: String,
    /// `Plan`.
    pub kind: String,
    /// The project.
    pub project: String,
    /// The service.
    pub service: String,
    /// What goes out.
    pub version: String,
    /// Its digest.
    pub release: Digest,
    /// Digest of everything below: what is approved is what runs.
    pub digest: Digest,
    /// In order.
    pub steps: Vec<PlanStep>,
    /// Why it cannot work; nothing is started then.
    pub refusals: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// One step for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStep {
    /// From 1.
    pub n: u32,
    /// Where.
    pub environment: String,
    /// What is done.
    pub action: String,
    /// How it is taken back.
    pub undo: String,
    /// How long that takes, in seconds; none: not known.
    pub undo_seconds: Option<f64>,
    /// Whether the step cannot be taken back by Tidegate.
    pub point_of_no_return: bool,
    /// What happens if Tidegate dies there and stays dead.
    pub if_we_die_here: String,
    /// At least so long, in seconds, where it is known.
    pub duration_seconds: Option<f64>,
}

/// A version that runs in an environment now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StableRef {
    /// Its name.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
}

/// The plan of a release through environments in order. `stable` tells what runs in one now.
#[must_use]
pub fn make(
    project: &ProjectSpec,
    environments: &[&str],
    service: &str,
    release: &ReleaseRef,
    stable: &dyn Fn(&str) -> Option<StableRef>,
) -> Plan {
    let mut plan = Plan {
        api_version: "tidegate/v1".to_owned(),
        kind: "Plan".to_owned(),
        project: project.project.clone(),
        service: service.to_owned(),
        version: release.version.clone(),
        release: release.digest.clone(),
        digest: Digest::default(),
        steps: Vec::new(),
        refusals: Vec::new(),
        warnings: Vec::new(),
    };
    let spec = project.services.iter().find(|s| s.name == service);
    for name in environments {
        plan.refusals.extend(refusals(project, name, service));
        let environment = project.environments.iter().find(|e| e.name == **name);
        let (Some(environment), Some(spec)) = (environment, spec) else { continue };
        plan.warnings.extend(warnings(project, environment, spec));
        let old = stable(name);
        environment_steps(&mut plan, environment, spec, release, old.as_ref());
    }
    plan.refusals.dedup();
    plan.warnings.dedup();
    let content = (&plan.steps, &plan.refusals, release, project);
    plan.digest = Digest::of_json(&content).unwrap_or_default();
    plan
}

struct Writer<'a> {
    plan: &'a mut Plan,
    environment: &'a EnvironmentSpec,
    old: Option<&'a StableRef>,
    version: &'a str,
    shifted: bool,
}

impl Writer<'_> {
    fn push(&mut self, action: String, undo: String, undo_seconds: Option<f64>) -> &mut PlanStep {
        let dies = self.dies();
        let n = u32::try_from(self.plan.steps.len() + 1).unwrap_or(u32::MAX);
        self.plan.steps.push(PlanStep {
            n,
            environment: self.environment.name.clone(),
            action,
            undo,
            undo_seconds,
            point_of_no_return: false,
            if_we_die_here: dies,
            duration_seconds: None,
        });
        let last = self.plan.steps.len() - 1;
        &mut self.plan.steps[last]
    }

    fn dies(&self) -> String {
        let lost = &self.environment.if_engine_lost;
        let after = seconds_words(lost.after_ms);
        match (self.shifted, self.old, lost.canary) {
            (true, Some(old), LostAction::Rollback) => {
                format!("the host gives {} all traffic after {after}", old.version)
            }
            (true, Some(_), LostAction::Stay) => {
                "the traffic stays split as it is, until somebody decides".to_owned()
            }
            (true, None, _) => format!("{} goes on serving", self.version),
            (false, Some(old), _) => format!("{} goes on serving all traffic", old.version),
            (false, None, _) => "nothing is served yet".to_owned(),
        }
    }
}

fn environment_steps(
    plan: &mut Plan,
    environment: &EnvironmentSpec,
    service: &ServiceSpec,
    release: &ReleaseRef,
    old: Option<&StableRef>,
) {
    let version = release.version.as_str();
    let mut writer = Writer { plan, environment, old, version, shifted: false };
    let back = old.map_or_else(
        || "stop it; nothing is served then".to_owned(),
        |old| format!("all traffic to {}, one change of the switch's table", old.version),
    );
    let undo_s = Some(1.0);
    for step in moves(RolloutKind::Release, old.is_some(), &environment.strategy) {
        match step {
            Step::SetWeight { weight_bp } => {
                let count = share(service.instances, weight_bp);
                writer.shifted = true;
                let action = format!(
                    "start {count} of {version}, wait until ready, then give it {} %",
                    f64::from(weight_bp) / 100.0
                );
                writer.push(action, back.clone(), undo_s);
            }
            Step::Pause { duration_ms: Some(ms) } => {
                let action = format!("watch it for {}", seconds_words(ms));
                writer.push(action, back.clone(), undo_s).duration_seconds = Some(seconds(ms));
            }
            Step::Pause { duration_ms: None } => {
                writer.push("wait until somebody promotes".to_owned(), back.clone(), undo_s);
            }
            Step::Analysis { checks } => {
                let action = format!("pass {} against an instance of {version}", checks.join(", "));
                writer.push(action, back.clone(), undo_s);
            }
            Step::Run { name, command, .. } => {
                let action = format!("run {name} once: {}", command.join(" "));
                let undo = "not by Tidegate: it is never repeated and not undone".to_owned();
                writer.push(action, undo, None).point_of_no_return = true;
            }
        }
    }
    writer.shifted = true;
    let action = format!("{} of {version} ready, then all traffic to it", service.instances);
    writer.push(action, back.clone(), undo_s);
    let Some(old) = old else { return };
    let bake = environment.bake_ms;
    let step = writer.push(
        format!("bake {}: watched, {} stays warm", seconds_words(bake), old.version),
        back,
        undo_s,
    );
    step.duration_seconds = Some(seconds(bake));
    step.if_we_die_here = match environment.if_engine_lost.bake {
        LostAction::Stay => format!("{version} keeps all traffic"),
        LostAction::Rollback => format!("the host gives {} all traffic again", old.version),
    };
    let step = writer.push(
        format!(
            "stop {} after {}",
            old.version,
            seconds_words(environment.strategy.scale_down_delay_ms)
        ),
        format!("`tidegate undo`: start {} again, then all traffic to it", old.version),
        None,
    );
    step.if_we_die_here = format!("{version} keeps all traffic");
}

fn share(instances: u32, weight_bp: u32) -> u32 {
    let share = (u64::from(instances) * u64::from(weight_bp)).div_ceil(u64::from(FULL_WEIGHT));
    u32::try_from(share).unwrap_or(instances).max(1)
}

fn seconds(ms: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "durations are far below 2^52 ms")]
    let ms = ms as f64;
    ms / 1000.0
}

/// `90 s`, `5 min`, `1 h`: the largest unit that divides it.
fn seconds_words(ms: u64) -> String {
    match ms {
        _ if !ms.is_multiple_of(1000) => format!("{} s", seconds(ms)),
        _ if ms > 0 && ms.is_multiple_of(3_600_000) => format!("{} h", ms / 3_600_000),
        _ if ms > 0 && ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        _ => format!("{} s", ms / 1000),
    }
}
