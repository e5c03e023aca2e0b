//! A direct line to host and switch: what they have accepted, and whether they refuse what an
//! owner of yesterday would still say.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use serde::Serialize;
use tidegate_core::capacity::{CapacityDoc, Fallback, FallbackAction};
use tidegate_core::spec::ErrorSpec;
use tidegate_core::traffic::TrafficDoc;
use tidegate_core::{Epoch, Fence};
use tidegate_ipc::{Client, Reply};
use tidegate_wire::error::STALE_FENCE;
use tidegate_wire::home::Home;
use tidegate_wire::host::{Capacity, Contact, HostReport};
use tidegate_wire::switch::{SwitchReport, Table};

use crate::stage::Stage;

const BOUND: Duration = Duration::from_secs(5);

const LANE: &str = "production/web";

/// A sequence that no owner has reached: what is refused is refused for its epoch.
const SEQ: u64 = 1 << 40;

/// What host and switch have accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epochs {
    pub(super) host: Epoch,
    pub(super) switch: Epoch,
}

/// Which late commands were refused as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refusals {
    pub(super) capacity: bool,
    pub(super) contact: bool,
    pub(super) table: bool,
}

/// Speaks to both sockets.
pub(super) struct Line {
    runtime: tokio::runtime::Runtime,
    host: Client,
    switch: Client,
}

impl Line {
    pub(super) fn open(stage: &Stage) -> Result<Self> {
        let home = Home::new(stage.home());
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            host: Client::new(&home.socket("host")),
            switch: Client::new(&home.socket("switch")),
        })
    }

    pub(super) fn epochs(&self) -> Result<Epochs> {
        let observe = "/v1/observe?after=0&waitMs=0";
        self.runtime.block_on(async {
            let host: HostReport = self.host.get(observe, BOUND).await?;
            let switch: SwitchReport = self.switch.get(observe, BOUND).await?;
            Ok(Epochs { host: host.epoch, switch: switch.epoch })
        })
    }

    /// Says, in the name of the owner with the `old` epochs, that nothing shall run and nothing
    /// shall be served.
    pub(super) fn late(&self, stage: &Stage, old: &Epochs) -> Result<Refusals> {
        let home = self.identity()?;
        let address = stage.address().to_string();
        let capacity = Capacity {
            home: home.clone(),
            fence: Fence { epoch: old.host, seq: SEQ },
            doc: CapacityDoc {
                lane: LANE.into(),
                versions: Vec::new(),
                fallback: Fallback { after_ms: 600_000, action: FallbackAction::Stay },
            },
        };
        let contact = Contact { home: home.clone(), epoch: old.host, work_open: false };
        let table = Table {
            home,
            fence: Fence { epoch: old.switch, seq: SEQ },
            doc: TrafficDoc {
                lane: LANE.into(),
                listen: address,
                routes: Vec::new(),
                weights: Vec::new(),
                sticky_cookie: None,
                errors: ErrorSpec { status: vec![(500, 599)], timeout_ms: 60_000 },
                seed: 0,
            },
            shut: false,
        };
        Ok(Refusals {
            capacity: stale(&self.post(&self.host, "/v1/capacity", &capacity)?),
            contact: stale(&self.post(&self.host, "/v1/contact", &contact)?),
            table: stale(&self.post(&self.switch, "/v1/table", &table)?),
        })
    }

    fn post(&self, to: &Client, path: &str, body: &impl Serialize) -> Result<Reply> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        Ok(self.runtime.block_on(to.request("POST", path, body, BOUND))?)
    }

    /// The home's identity: a host that is spoken to in another home's name says whose it is.
    fn identity(&self) -> Result<String> {
        let stranger = Contact { home: "stranger".into(), epoch: Epoch(0), work_open: false };
        let reply = self.post(&self.host, "/v1/contact", &stranger)?;
        let text = String::from_utf8_lossy(&reply.body);
        if reply.status != 409 {
            bail!("the host takes a stranger's word ({}): {text}", reply.status);
        }
        let owner = owner_in(&reply.body);
        owner.with_context(|| format!("no owner is named in {text}"))
    }
}

/// The home that a refusal names: `on` says `home IDENTITY`.
fn owner_in(body: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    document["error"]["on"].as_str()?.strip_prefix("home ").map(str::to_owned)
}

fn stale(reply: &Reply) -> bool {
    let code = serde_json::from_slice::<serde_json::Value>(&reply.body)
        .map(|document| document["error"]["code"] == STALE_FENCE);
    reply.status == 409 && code.unwrap_or(false)
}

/// Lines of host.log and switch.log that speak of a refused fence.
pub(super) fn logged(stage: &Stage) -> usize {
    let home = Home::new(stage.home());
    let logs = ["host", "switch"].map(|role| home.log(role));
    let texts = logs.iter().map(|path| std::fs::read(path).unwrap_or_default());
    texts
        .map(|text| {
            let text = String::from_utf8_lossy(&text).into_owned();
            text.lines().filter(|line| line.contains(STALE_FENCE)).count()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Reply, owner_in, stale};

    #[test]
    fn only_a_stale_fence_is_the_refusal_that_is_meant() {
        let reply = |status, code: &str| Reply {
            status,
            body: Bytes::from(format!(r#"{{"error":{{"code":"{code}"}}}}"#)),
        };
        assert!(stale(&reply(409, "staleFence")));
        assert!(!stale(&reply(409, "otherHome")));
        assert!(!stale(&reply(200, "staleFence")));
        assert!(!stale(&Reply { status: 409, body: Bytes::from("staleFence") }));
    }

    #[test]
    fn an_owner_is_found_in_a_refusal() {
        let refusal = br#"{"error":{"code":"otherHome","on":"home h-01"}}"#;
        assert_eq!(owner_in(refusal).as_deref(), Some("h-01"));
        assert_eq!(owner_in(br#"{"error":{"on":"nobody"}}"#), None);
    }
}
