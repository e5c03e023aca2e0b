//! Parts 2 and 3: a version that refuses everybody is seen at once and nobody suffers; a healthy
//! version beside one that crashes shows no error.

use std::time::{Duration, Instant};

use anyhow::Result;
use tidegate_core::counts::SecondRecord;
use tidegate_example_service::Behaviour;
use tidegate_wire::switch::EndpointState;

use super::super::{Bound, Context, Figures, rounds};
use super::fates::Service;
use super::rig::{HOST, Instance, Rig};
use super::samples;
use crate::load::{Load, LoadOptions};
use crate::stage::{Project, Stage, free_address, wait_until};

/// A second, and what it takes to hand it to a reader.
const SHOWN_S: f64 = 1.1;

pub(super) fn refuses(context: &Context, figures: &mut Figures) -> Result<()> {
    let (mut slowest, mut wrong, mut failed, mut requests) = (0.0_f64, 0, 0, 0);
    let (mut first_share, mut v1_errors, mut v1_answers) = (100.0_f64, 0, 0);
    for round in 0..context.count(10, 2) {
        let name = |end: &str| context.folder.join(format!("refuses-{round}{end}"));
        let mut rig = Rig::start(&context.binaries, &name("-switch.log"))?;
        let service = Service::start(&context.binaries, rig.folder(), "a", "v1")?;
        let one = |name: &str, version, address| Instance {
            name: name.into(),
            generation: 1,
            version,
            address,
            state: EndpointState::Ready,
        };
        // Nobody listens there.
        let dead = free_address()?;
        rig.instances(&[one("a", "v1", service.address), one("b", "v2", dead)])?;
        rig.weights(5_000, 5_000)?;
        let begun = Instant::now();
        let load = Load::start(LoadOptions {
            host: HOST.into(),
            ..LoadOptions::new(rig.listen, name(".log"))
        })?;
        let (first, at) = rig.first_record_of("v2")?;
        // The first request of all is at most this old, so its first one is not older.
        slowest = slowest.max(at.duration_since(begun).as_secs_f64());
        first_share = first_share.min(share(&first));
        wait_until(Duration::from_secs(5), "some more seconds", || {
            (begun.elapsed() >= Duration::from_secs(3)).then_some(())
        })?;
        let report = load.stop()?;
        let records = rig.records()?;
        for record in &records {
            context.note("refuses-records.jsonl", record)?;
        }
        wrong += records.iter().filter(|r| r.version == "v2" && r.errors() != r.n).count();
        let v1 = || records.iter().filter(|r| r.version == "v1");
        v1_errors += v1().map(SecondRecord::errors).sum::<u32>();
        requests += report.lines.len();
        failed += report.tally().failed;
        v1_answers += report.lines.iter().filter(|line| line.answered_by("v1")).count();
    }
    figures.add(
        "2: errors in the first second of a refusing version",
        first_share,
        "%",
        Bound::Exactly(100.0),
    );
    figures.exactly("2: its records below 100 % errors", wrong, 0);
    figures.add("2: from the first request to that record", slowest, "s", Bound::AtMost(SHOWN_S));
    figures.exactly("2: its users failed", usize::try_from(failed)?, 0);
    figures.exactly("2: requests answered by the old version", v1_answers, requests);
    figures.exactly("2: errors of the old version", usize::try_from(v1_errors)?, 0);
    Ok(())
}

fn share(record: &SecondRecord) -> f64 {
    f64::from(record.errors()) / f64::from(record.n) * 100.0
}

/// Half of the requests go to the crashing one until somebody has seen enough.
const UNJUDGED: &str = "
      steps:
        - setWeight: 50
        - pause: {}
      progressDeadline: 60s";

pub(super) fn crashes(context: &Context, figures: &mut Figures) -> Result<()> {
    let stage = Stage::keeping(&context.binaries, &context.folder)?;
    stage.write_project(&Project { canary: UNJUDGED.into(), bake: "0s".into() })?;
    rounds::first(&stage, "v1")?;
    let crash = Behaviour { crash_after: Some(15), ..Behaviour::default() };
    stage.artifact("v2", &crash)?;
    let log = context.folder.join("crashes.log");
    let load = stage.load(100.0, &log)?;
    rounds::accept(&stage, "v2")?;
    wait_until(Duration::from_secs(30), "the canary has its share", || {
        let rollout = stage.environment("production").ok()?["rollout"].clone();
        (rollout["weight"]["observed"] == 50.0).then_some(())
    })?;
    let begun = Instant::now();
    let lasts = Duration::from_secs(context.count(40, 12).into());
    wait_until(lasts + Duration::from_secs(5), "the crashing version had its time", || {
        (begun.elapsed() >= lasts).then_some(())
    })?;
    stage.tidegate(&["abort"])?;
    let ended = stage.ended("v2", rounds::ROUND_BOUND)?;
    let report = load.stop()?;
    let read = samples::read(&stage, &ended.id)?;
    for record in read.records() {
        context.note("crashes-records.jsonl", record)?;
    }
    let of = |version| {
        let mine = read.records().filter(move |record| record.version == version);
        mine.fold((0_usize, 0_usize), |(n, k), r| (n + r.n as usize, k + r.errors() as usize))
    };
    let ((healthy, bad), (crashing, crashed)) = (of("v1"), of("v2"));
    figures.at_least("3: requests of the healthy version", healthy, 100);
    figures.exactly("3: errors of the healthy version", bad, 0);
    figures.note("3: requests of the crashing version", crashing as f64, "");
    figures.at_least("3: errors of the crashing version", crashed, 5);
    let blamed = report.lines.iter().filter(|line| line.failed() && line.version == "v1").count();
    figures.exactly("3: failed answers in the healthy version's name", blamed, 0);
    Ok(())
}
