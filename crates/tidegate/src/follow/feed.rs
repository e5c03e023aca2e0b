//! Events in order, without a gap or a repeat, over the death of any engine.

use std::time::Duration;

use tidegate_ipc::IpcError;
use tidegate_wire::api::Event;
use tidegate_wire::home::Home;

use crate::client::{ANSWER, Engine};
use crate::exit::Failure;
use crate::source;

/// Events that are asked for at once.
const LIMIT: usize = 500;

/// Where to read on.
pub(crate) struct Feed {
    home: Home,
    engine: Option<Engine>,
    seq: u64,
}

impl Feed {
    /// Everything after `seq`, from the engine if one is given.
    pub(crate) fn new(home: &Home, engine: Option<Engine>, seq: u64) -> Self {
        Self { home: home.clone(), engine, seq }
    }

    /// The engine, if it answered the last time.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// The next events; none if nothing happened for `wait`. Dropping the future loses nothing.
    /// An engine that is gone is started again if there is unfinished work.
    ///
    /// # Errors
    /// If neither engine nor journal can be read.
    pub(crate) async fn next(&mut self, wait: Duration) -> Result<Vec<Event>, Failure> {
        if let Some(engine) = &self.engine {
            let path =
                format!("/v1/events?since={}&limit={LIMIT}&waitMs={}", self.seq, wait.as_millis());
            match engine.lines(&path, wait + ANSWER).await {
                Ok(events) => return Ok(self.take(events)),
                Err(IpcError::Connect { .. } | IpcError::Lost { .. }) => self.engine = None,
                Err(error @ (IpcError::Status { .. } | IpcError::Body { .. })) => {
                    return Err(Failure::from_ipc(&error));
                }
            }
        }
        self.without_engine(wait).await
    }

    async fn without_engine(&mut self, wait: Duration) -> Result<Vec<Event>, Failure> {
        let open = match source::journal(&self.home)? {
            None => false,
            Some(reader) => {
                let events = source::events(&reader, self.seq, LIMIT)?;
                if !events.is_empty() {
                    return Ok(self.take(events));
                }
                source::is_open(&reader)?
            }
        };
        if let Some((engine, _)) = Engine::find(&self.home).await {
            self.engine = Some(engine);
        } else if open {
            // The host restarts a dead engine too; whoever comes second sees the other and leaves.
            self.engine = Some(Engine::ensure(&self.home).await?);
        } else {
            tokio::time::sleep(wait.min(Duration::from_millis(500))).await;
        }
        Ok(Vec::new())
    }

    fn take(&mut self, events: Vec<Event>) -> Vec<Event> {
        let mut fresh: Vec<Event> =
            events.into_iter().filter(|event| event.seq > self.seq).collect();
        fresh.sort_by_key(|event| event.seq);
        fresh.dedup_by_key(|event| event.seq);
        if let Some(last) = fresh.last() {
            self.seq = last.seq;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn event(seq: u64) -> Event {
        Event {
            api_version: String::new(),
            kind: String::new(),
            seq,
            at: String::new(),
            stream: String::new(),
            event: String::new(),
            data: Value::Null,
            reason: None,
        }
    }

    #[test]
    fn an_event_that_comes_twice_is_given_out_once_and_in_order() {
        let mut feed = Feed::new(&Home::new("/nowhere"), None, 3);
        let seen = |events: Vec<Event>| events.iter().map(|e| e.seq).collect::<Vec<_>>();
        assert_eq!(seen(feed.take(vec![event(2), event(5), event(4)])), [4, 5]);
        assert_eq!(seen(feed.take(vec![event(4), event(5), event(5), event(6)])), [6]);
        assert_eq!(feed.seq, 6);
    }
}
