//! Following a release or a rollout until it is as far as is asked. Whoever follows holds nothing:
//! ending it, in whatever way, changes nothing about the release.

mod feed;
mod interrupt;
mod target;

use std::time::Duration;

use tidegate_journal::Reader;
use tidegate_wire::api::{Event, Rollout, VerbAccepted, VerbRequest};
use tidegate_wire::home::Home;

pub(crate) use feed::Feed;
pub(crate) use interrupt::Interrupts;
pub(crate) use target::{Release, Target, reached};

use crate::cli::{Follow, Output};
use crate::client::ANSWER;
use crate::clock::{self, Deadline};
use crate::exit::{Exit, Failure};
use crate::output::live::{self, Live};
use crate::output::{Printer, is_ci, line, outcome};
use crate::source::{self, encode};
use crate::{documents, principal};

/// A rollout that is held for less than this is not said to be: what blocks it may be over as fast
/// as it came, such as a host that is started again.
const HELD: Duration = Duration::from_secs(2);

/// What to follow and how.
pub(crate) struct Following<'a> {
    /// Where it is printed.
    pub(crate) printer: &'a Printer,
    /// The home.
    pub(crate) home: &'a Home,
    /// What.
    pub(crate) target: Target,
    /// Until when.
    pub(crate) follow: Follow,
    /// What an interrupt does.
    pub(crate) abort_on_interrupt: bool,
    rollouts: Vec<Rollout>,
    live: Option<Live>,
}

impl<'a> Following<'a> {
    /// Follows a target; the terminal decides about the form.
    pub(crate) fn new(
        printer: &'a Printer,
        home: &'a Home,
        target: Target,
        follow: Follow,
        abort_on_interrupt: bool,
    ) -> Self {
        let live = printer.is_live().then(Live::default);
        Self { printer, home, target, follow, abort_on_interrupt, rollouts: Vec::new(), live }
    }

    /// Follows until the end is reached, the time is over or somebody interrupts.
    ///
    /// # Errors
    /// If the home cannot be read any more; what is known is printed.
    pub(crate) async fn run(
        mut self,
        mut feed: Feed,
        mut interrupts: Interrupts,
    ) -> Result<Exit, Failure> {
        let deadline = self.follow.timeout.map_or_else(Deadline::never, Deadline::after);
        let wait = Duration::from_millis(if self.live.is_some() { 400 } else { 1000 });
        let mut abort = false;
        let mut held = Deadline::after(HELD);
        let (mut fresh, mut drained) = (Vec::new(), false);
        self.recall()?;
        loop {
            // The documents are read after the events, so they are never older.
            self.refresh(&feed).await?;
            let last_shown = self.show_all(&fresh);
            self.draw();
            let reached = self.target.reached(self.follow.until, &self.rollouts);
            if reached != Some(Exit::Held) {
                held = Deadline::after(HELD);
            }
            match reached {
                Some(Exit::Held) if held.passed() => return Ok(self.end(Exit::Held)),
                // What has happened up to this end belongs to the story, and nothing behind it.
                Some(exit) if exit != Exit::Held && (last_shown || drained) => {
                    return Ok(self.end(exit));
                }
                Some(_) | None => {}
            }
            if self.printer.is_closed() {
                return Ok(Exit::Detached);
            }
            if deadline.passed() {
                self.printer.hint(&format!("--timeout passed; it goes on. {}", self.come_back()));
                return Ok(Exit::Timeout);
            }
            if abort {
                abort = !self.abort(&feed).await?;
            }
            let at_end = reached.is_some_and(|exit| exit != Exit::Held);
            let patience = if at_end { Duration::ZERO } else { deadline.left(wait) };
            fresh.clear();
            tokio::select! {
                events = feed.next(patience) => {
                    fresh = events?;
                    drained = fresh.is_empty();
                }
                () = interrupts.next() => {
                    if !self.abort_on_interrupt {
                        return Ok(self.detach());
                    }
                    // The second interrupt detaches.
                    self.abort_on_interrupt = false;
                    abort = true;
                    self.printer.progress("interrupted: aborting the release");
                }
            }
        }
    }

    /// Shows events up to the one that ends the story; true if that was among them.
    fn show_all(&mut self, events: &[Event]) -> bool {
        for event in events {
            self.show(event);
            if self.target.is_last(event, self.follow.until, &self.rollouts) {
                return true;
            }
        }
        false
    }

    /// What the journal knows of a release from before.
    fn recall(&mut self) -> Result<(), Failure> {
        let Target::Release(release) = &mut self.target else { return Ok(()) };
        let Some(reader) = source::journal(self.home)? else { return Ok(()) };
        let id = tidegate_core::release::stream_id(&release.service, &release.version);
        let Some(project) = release.stream.split('/').next() else { return Ok(()) };
        let stream = tidegate_core::StreamId::new(project, "release", &id);
        for envelope in reader.read_stream(&stream, 0, usize::MAX)? {
            if let Ok(data) = serde_json::from_str(&envelope.data) {
                release.fold(&data, envelope.reason.as_ref());
            }
        }
        Ok(())
    }

    /// Reads the rollouts of the target again.
    async fn refresh(&mut self, feed: &Feed) -> Result<(), Failure> {
        let within = ANSWER;
        match (&self.target, feed.engine()) {
            (Target::Rollout(id), Some(engine)) => {
                // An engine that dies now is noticed by the feed.
                if let Ok(rollout) =
                    engine.get(&format!("/v1/rollouts/{}", encode(id)), within).await
                {
                    self.rollouts = vec![rollout];
                }
            }
            (Target::Rollout(id), None) => {
                if let Some(reader) = source::journal(self.home)? {
                    self.rollouts = vec![source::find_rollout(&reader, id)?];
                }
            }
            (Target::Release(release), engine) => {
                let status: Option<tidegate_wire::api::Status> = match engine {
                    Some(engine) => engine.get("/v1/status", within).await.ok(),
                    None => None,
                };
                let environments = match status {
                    Some(status) => status.environments,
                    None => match source::journal(self.home)? {
                        Some(reader) => source::environments(&reader)?,
                        None => return Ok(()),
                    },
                };
                self.rollouts = environments
                    .into_iter()
                    .filter(|lane| lane.service == release.service)
                    .filter_map(|lane| lane.rollout)
                    .filter(|rollout| rollout.version == release.version)
                    .collect();
                self.rollouts.sort_by(|a, b| a.started_at.cmp(&b.started_at));
            }
        }
        Ok(())
    }

    fn show(&mut self, event: &Event) {
        if let Target::Release(release) = &mut self.target {
            if event.stream == release.stream {
                release.fold(&event.data, event.reason.as_ref());
            }
            release.notice(event);
        }
        match self.printer.output {
            // Every event of the home, so that `seq` has no holes.
            Output::Jsonl => self.printer.document(event),
            Output::Json => {
                if self.target.concerns(event, &self.rollouts) {
                    self.printer.progress(&line::event_line(event, is_ci()));
                }
            }
            Output::Text => {
                if self.live.is_none()
                    && !self.printer.is_quiet()
                    && self.target.concerns(event, &self.rollouts)
                {
                    self.printer.answer(&line::event_line(event, is_ci()));
                }
            }
        }
    }

    fn draw(&mut self) {
        if let Some(live) = &mut self.live {
            let frame = live::frame(&self.rollouts, clock::now_ms(), live::columns());
            if !frame.is_empty() {
                live.draw(&frame);
            }
        }
    }

    fn last(&self) -> Option<&Rollout> {
        match &self.target {
            Target::Rollout(id) => self.rollouts.iter().find(|rollout| rollout.id == *id),
            Target::Release(_) => self.rollouts.last(),
        }
    }

    fn end(&self, exit: Exit) -> Exit {
        match (self.last(), self.printer.output) {
            (Some(rollout), Output::Text) => {
                for line in outcome::lines(rollout, exit) {
                    self.printer.answer(&line);
                }
                if let Some(next) = outcome::next(rollout, exit) {
                    self.printer.hint(&format!("  {next}"));
                }
            }
            (Some(rollout), Output::Json) => {
                self.printer.document(&documents::with_kind("Rollout", rollout));
            }
            (None, Output::Text) => {
                if let Target::Release(release) = &self.target {
                    let why = release.reason.as_ref().map_or("", |reason| reason.text.as_str());
                    self.printer.answer(
                        format!("{} ended without a rollout {why}", release.version).trim_end(),
                    );
                }
            }
            (None, Output::Json) | (_, Output::Jsonl) => {}
        }
        exit
    }

    fn come_back(&self) -> String {
        let id = self.last().map(|rollout| format!(" {}", rollout.id)).unwrap_or_default();
        format!("Come back: tidegate watch{id}")
    }

    fn detach(&self) -> Exit {
        let id = self.last().map(|rollout| format!(" {}", rollout.id)).unwrap_or_default();
        if !self.printer.is_quiet() {
            self.printer.stderr(&format!("detached; it goes on. Come back:  tidegate watch{id}"));
            self.printer.stderr(&format!("                      Stop it:    tidegate abort{id}"));
        }
        Exit::Detached
    }

    /// Aborts what is followed; false if there is no rollout yet.
    async fn abort(&self, feed: &Feed) -> Result<bool, Failure> {
        let (Some(rollout), Some(engine)) = (self.last(), feed.engine()) else { return Ok(false) };
        let request = VerbRequest {
            reason: Some("interrupted".to_owned()),
            principal: principal::me(),
            request_id: principal::request_id(),
            ..VerbRequest::default()
        };
        let path = format!("/v1/rollouts/{}/abort", encode(&rollout.id));
        let accepted: VerbAccepted = engine.post(&path, &request).await?;
        if let Some(text) = accepted.no_op {
            self.printer.progress(&text);
        }
        Ok(true)
    }
}
