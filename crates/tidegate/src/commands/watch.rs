//! `watch`: follow a rollout until it ends.

use tidegate_core::StreamId;
use tidegate_journal::Reader;
use tidegate_wire::api::Rollout;
use tidegate_wire::home::Home;

use super::{Context, block_on};
use crate::cli::{Common, WatchArgs};
use crate::client::{Engine, revive};
use crate::exit::{Exit, Failure};
use crate::follow::{Feed, Following, Interrupts, Release, Target};
use crate::source::{self, Source};
use crate::{documents, home};

/// Follows.
pub(super) fn run(context: &Context, args: &WatchArgs) -> Result<Exit, Failure> {
    let place = context.place()?;
    block_on(async {
        let interrupts = Interrupts::new().map_err(|error| {
            Failure::unreachable("noSignals", "signals cannot be taken", "")
                .cause(error.to_string())
        })?;
        let engine = engine(context, &place.home).await?;
        let source = match &engine {
            Some(engine) => Source::Engine(engine.clone()),
            None => Source::open(&place.home).await?,
        };
        let (target, stream) = match &args.id {
            Some(id) => rollout(&place.home, &source.rollout(id).await?)?,
            None => match open_release(&place.home, &context.common)? {
                Some(stream) => (Target::Release(Release::of(&stream)), Some(stream)),
                None => {
                    let status = source.status(&place.home, &place.order).await?;
                    let all = status.environments.into_iter().filter_map(|lane| lane.rollout);
                    match open(all.collect(), &context.common)? {
                        Some(found) => rollout(&place.home, &found)?,
                        None => return Ok(nothing(context)),
                    }
                }
            },
        };
        let since = match (args.since, &stream) {
            (Some(since), _) => since,
            (None, Some(stream)) => before(&place.home, stream)?,
            (None, None) => 0,
        };
        Following::new(
            &context.printer,
            &place.home,
            target,
            args.follow.clone(),
            args.abort_on_interrupt,
        )
        .run(Feed::new(&place.home, engine, since), interrupts)
        .await
    })
}

/// The engine; started if there is unfinished work. If instances should run and their host is gone
/// (after a reboot), that is brought back as well.
async fn engine(context: &Context, home: &Home) -> Result<Option<Engine>, Failure> {
    let found = Engine::find(home).await;
    let Some(reader) = source::journal(home)? else { return Ok(None) };
    let serving = source::environments(&reader)?.iter().any(|lane| lane.stable.is_some());
    let revived = serving && home::living(home, "host").is_none();
    if revived {
        home::prepare(home)?;
        revive(home).await?;
        context.printer.progress("host and switch are back");
    }
    match found {
        Some((engine, _)) => Ok(Some(engine)),
        None if revived || source::is_open(&reader)? => {
            home::prepare(home)?;
            Engine::ensure(home).await.map(Some)
        }
        None => Ok(None),
    }
}

/// The only rollout in progress; one that moves is meant before those that bake.
///
/// # Errors
/// Several: named in the refusal (exit code 2).
pub(super) fn open(all: Vec<Rollout>, common: &Common) -> Result<Option<Rollout>, Failure> {
    let mut open: Vec<Rollout> = all
        .into_iter()
        .filter(|rollout| !documents::is_over(rollout) && is_meant(rollout, common))
        .collect();
    if open.iter().any(moves) {
        open.retain(moves);
    }
    match open.len() {
        0 | 1 => Ok(open.pop()),
        _ => Err(several(&open)),
    }
}

fn moves(rollout: &Rollout) -> bool {
    rollout.outcome.as_deref() != Some("promoted")
}

/// Whether a rollout is of the environment and service that are named.
pub(super) fn is_meant(rollout: &Rollout, common: &Common) -> bool {
    common.environment.as_ref().is_none_or(|name| *name == rollout.environment)
        && common.service.as_ref().is_none_or(|name| rollout.services.contains(name))
}

/// The refusal of a verb without a name.
pub(super) fn several(open: &[Rollout]) -> Failure {
    open.iter().fold(
        Failure::input("whichRollout", "several rollouts are in progress; name one", ""),
        |failure, rollout| {
            failure.fix(format!(
                "{}  {} {} in {}",
                rollout.id,
                rollout.services.join(", "),
                rollout.version,
                rollout.environment
            ))
        },
    )
}

fn nothing(context: &Context) -> Exit {
    context.printer.progress("nothing is in progress");
    context.printer.hint("`tidegate status` shows what runs, `tidegate history` what was");
    Exit::Done
}

fn rollout(home: &Home, rollout: &Rollout) -> Result<(Target, Option<StreamId>), Failure> {
    let stream = match source::journal(home)? {
        Some(reader) => source::find_stream(&reader, "rollout", &rollout.id)?,
        None => None,
    };
    Ok((Target::Rollout(rollout.id.clone()), stream.map(|(stream, _)| stream)))
}

/// The only release that is under way, unless an environment is named: then its rollout is meant.
fn open_release(home: &Home, common: &Common) -> Result<Option<StreamId>, Failure> {
    if common.environment.is_some() {
        return Ok(None);
    }
    let Some(reader) = source::journal(home)? else { return Ok(None) };
    let mut open: Vec<StreamId> = reader
        .views("release", true, usize::MAX)?
        .into_iter()
        .map(|row| row.stream)
        .filter(|stream| {
            common.service.as_ref().is_none_or(|name| Release::of(stream).service == *name)
        })
        .collect();
    match open.len() {
        1 => Ok(open.pop()),
        _ => Ok(None),
    }
}

/// The sequence before the first event of a stream: its whole story is shown.
fn before(home: &Home, stream: &StreamId) -> Result<u64, Failure> {
    let Some(reader) = source::journal(home)? else { return Ok(0) };
    let first = reader.read_stream(stream, 0, 1)?;
    Ok(first.first().map_or(0, |event| event.seq.saturating_sub(1)))
}
