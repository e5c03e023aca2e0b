//! The verbs that steer: promote, pause, resume, abort, retry, undo.

use tidegate_journal::Reader;
use tidegate_wire::api::{Environment, Rollout, VerbAccepted, VerbRequest};

use super::watch::{is_meant, open, several};
use super::{Context, Place, block_on};
use crate::cli::{Output, PromoteArgs, RetryArgs, SteerArgs, UndoArgs};
use crate::client::Engine;
use crate::exit::{Exit, Failure};
use crate::follow::{Feed, Following, Interrupts, Target};
use crate::source::{self, Source, encode};
use crate::{documents, home, principal};

/// `promote`
pub(super) fn promote(context: &Context, args: &PromoteArgs) -> Result<Exit, Failure> {
    let request = VerbRequest { full: args.full, ..request(&args.steer) };
    let place = context.place()?;
    block_on(async {
        let rollout = rollout(context, &place, &args.steer).await?;
        let accepted = send(&place, &rollout_path(&rollout, "promote"), &request).await?.1;
        Ok(answered(context, "promote", &rollout.id, &accepted))
    })
}

/// `pause` and `resume`
pub(super) fn simple(context: &Context, args: &SteerArgs, verb: &str) -> Result<Exit, Failure> {
    let place = context.place()?;
    block_on(async {
        let rollout = rollout(context, &place, args).await?;
        let accepted = send(&place, &rollout_path(&rollout, verb), &request(args)).await?.1;
        Ok(answered(context, verb, &rollout.id, &accepted))
    })
}

/// `abort`: attached until the version before has all traffic.
pub(super) fn abort(context: &Context, args: &SteerArgs) -> Result<Exit, Failure> {
    let place = context.place()?;
    block_on(async {
        let rollout = rollout(context, &place, args).await?;
        let path = rollout_path(&rollout, "abort");
        act(context, &place, args, &path, "abort", request(args), &rollout.id).await
    })
}

/// `retry`: attached until it ends, with its exit code.
pub(super) fn retry(context: &Context, args: &RetryArgs) -> Result<Exit, Failure> {
    let place = context.place()?;
    block_on(async {
        let lane = lane(context, &place, args.steer.id.as_deref(), Wanted::Failed).await?;
        let path = lane_path(&place, &lane, "retry");
        let id = lane.rollout.map(|rollout| rollout.id).unwrap_or_default();
        act(context, &place, &args.steer, &path, "retry", request(&args.steer), &id).await
    })
}

/// `undo`: attached until the version before has all traffic.
pub(super) fn undo(context: &Context, args: &UndoArgs) -> Result<Exit, Failure> {
    let place = context.place()?;
    block_on(async {
        let lane = lane(context, &place, args.steer.id.as_deref(), Wanted::Any).await?;
        let path = lane_path(&place, &lane, "undo");
        let request = VerbRequest { to: args.to.clone(), ..request(&args.steer) };
        let id = lane.rollout.map(|rollout| rollout.id).unwrap_or_default();
        act(context, &place, &args.steer, &path, "undo", request, &id).await
    })
}

fn request(args: &SteerArgs) -> VerbRequest {
    VerbRequest {
        if_revision: args.if_revision,
        reason: args.reason.clone(),
        principal: principal::me(),
        request_id: principal::request_id(),
        ..VerbRequest::default()
    }
}

fn rollout_path(rollout: &Rollout, verb: &str) -> String {
    format!("/v1/rollouts/{}/{verb}", encode(&rollout.id))
}

fn lane_path(place: &Place, lane: &Environment, verb: &str) -> String {
    let query = place
        .project
        .as_ref()
        .map(|project| format!("?project={}", encode(project)))
        .unwrap_or_default();
    format!("/v1/lanes/{}/{}/{verb}{query}", encode(&lane.name), encode(&lane.service))
}

/// The rollout that is meant: by name, or the only one in progress.
async fn rollout(context: &Context, place: &Place, args: &SteerArgs) -> Result<Rollout, Failure> {
    let source = Source::open(&place.home).await?;
    if let Some(id) = &args.id {
        return source.rollout(id).await;
    }
    let status = source.status(&place.home, &place.order).await?;
    let all: Vec<Rollout> = status.environments.into_iter().filter_map(|e| e.rollout).collect();
    let last = all.iter().filter(|r| is_meant(r, &context.common)).map(|r| r.id.clone()).next();
    open(all, &context.common)?.ok_or_else(|| {
        let failure = Failure::refused("nothingOpen", "nothing is in progress", "");
        match last {
            Some(last) => {
                failure.fix(format!("the last rollout was {last}: tidegate explain {last}"))
            }
            None => failure.fix("`tidegate release VERSION` starts one"),
        }
    })
}

/// Which lanes a verb means where none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Every lane that has a rollout.
    Any,
    /// Lanes whose last rollout did not end promoted.
    Failed,
}

/// The lane that is meant: of the rollout that is named, or by environment and service, or the
/// only one.
async fn lane(
    context: &Context,
    place: &Place,
    id: Option<&str>,
    wanted: Wanted,
) -> Result<Environment, Failure> {
    let source = Source::open(&place.home).await?;
    let named = match id {
        Some(id) => Some(source.rollout(id).await?),
        None => None,
    };
    let status = source.status(&place.home, &place.order).await?;
    let mut lanes: Vec<Environment> = status
        .environments
        .into_iter()
        .filter(|lane| match (&named, &lane.rollout) {
            (Some(named), Some(_)) => {
                lane.name == named.environment && named.services.contains(&lane.service)
            }
            (None, Some(rollout)) => is_meant(rollout, &context.common),
            (_, None) => false,
        })
        .collect();
    if lanes.len() > 1 {
        // What is in progress is meant before what is over, and what failed before what did not.
        narrow(&mut lanes, |rollout| !documents::is_over(rollout));
        narrow(&mut lanes, |rollout| {
            wanted == Wanted::Any || rollout.outcome.as_deref() != Some("promoted")
        });
    }
    match (lanes.len(), lanes.pop()) {
        (1, Some(lane)) => Ok(lane),
        (0, _) | (_, None) => {
            Err(Failure::refused("nothingReleased", "nothing was released there", "")
                .fix("`tidegate status` shows what runs"))
        }
        (_, Some(last)) => {
            lanes.push(last);
            let rollouts: Vec<Rollout> = lanes.into_iter().filter_map(|l| l.rollout).collect();
            Err(several(&rollouts).fix("or name --environment and --service"))
        }
    }
}

/// Keeps the lanes for which this holds, if there are any.
fn narrow(lanes: &mut Vec<Environment>, keep: impl Fn(&Rollout) -> bool) {
    let holds = |lane: &Environment| lane.rollout.as_ref().is_some_and(&keep);
    if lanes.iter().any(holds) {
        lanes.retain(holds);
    }
}

async fn send(
    place: &Place,
    path: &str,
    request: &VerbRequest,
) -> Result<(Engine, VerbAccepted), Failure> {
    home::prepare(&place.home)?;
    let engine = Engine::ensure(&place.home).await?;
    let accepted = engine.post(path, request).await?;
    Ok((engine, accepted))
}

fn answered(context: &Context, verb: &str, id: &str, accepted: &VerbAccepted) -> Exit {
    let printer = &context.printer;
    match printer.output {
        Output::Text => {
            let id = accepted.rollout.as_deref().unwrap_or(id);
            printer.answer(&accepted.no_op.as_ref().map_or_else(
                || format!("{verb} {id}: accepted, revision {}", accepted.revision),
                |text| format!("{verb} {id}: {text}"),
            ));
        }
        Output::Json | Output::Jsonl => {
            printer.document(&documents::with_kind("VerbAccepted", accepted));
        }
    }
    Exit::Done
}

/// Sends a verb and follows what it does.
async fn act(
    context: &Context,
    place: &Place,
    args: &SteerArgs,
    path: &str,
    verb: &str,
    request: VerbRequest,
    id: &str,
) -> Result<Exit, Failure> {
    let interrupts = Interrupts::new().map_err(|error| {
        Failure::unreachable("noSignals", "signals cannot be taken", "").cause(error.to_string())
    })?;
    let before = match source::journal(&place.home)? {
        Some(reader) => reader.last_seq()?,
        None => 0,
    };
    let (engine, accepted) = send(place, path, &request).await?;
    if context.common.no_wait {
        return Ok(answered(context, verb, id, &accepted));
    }
    if let Some(text) = &accepted.no_op {
        context.printer.progress(text);
    }
    let rollout = accepted.rollout.clone().unwrap_or_else(|| id.to_owned());
    let target = Target::Rollout(rollout);
    let exit = Following::new(&context.printer, &place.home, target, args.follow.clone(), false)
        .run(Feed::new(&place.home, Some(engine), before), interrupts)
        .await?;
    // Who asks for the way back gets what was asked when the way back is done.
    Ok(match (verb, exit) {
        ("abort" | "undo", Exit::Undone) => Exit::Done,
        (_, exit) => exit,
    })
}
