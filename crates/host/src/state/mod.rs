//! What a host must not forget: whose it is, the fences, the documents, the fallback.

pub(crate) mod files;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_core::capacity::{CapacityDoc, FallbackReport};
use tidegate_core::{Digest, Epoch, Fence};
use tidegate_wire::error::{ErrorBody, OTHER_HOME, STALE_FENCE};

/// The content of `host/state.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HostState {
    /// The home that this host belongs to, from the first claim on.
    pub(crate) home: Option<String>,
    /// The highest epoch seen.
    pub(crate) epoch: Epoch,
    /// Nothing of this epoch or a lower one passes: a fallback was decided in it.
    pub(crate) shut: Option<Epoch>,
    /// The engine has unfinished work and is restarted when it dies.
    pub(crate) work_open: bool,
    /// By lane.
    pub(crate) lanes: BTreeMap<String, LaneState>,
}

/// One lane's document and what became of its fallback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LaneState {
    /// The fence of the document.
    pub(crate) fence: Fence,
    /// The digest of the document's JSON.
    pub(crate) digest: Digest,
    /// The document.
    pub(crate) doc: CapacityDoc,
    /// The fallback has been decided and the switch has not taken it yet.
    pub(crate) fallback_pending: Option<FallbackReport>,
    /// The switch has refused the fallback for good, in its words: it has something newer.
    pub(crate) fallback_refused: Option<String>,
    /// The fallback is in force.
    pub(crate) fallback_applied: Option<FallbackReport>,
}

/// A refusal on its way to the caller.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// The document.
    pub(crate) body: Box<ErrorBody>,
}

impl Refusal {
    pub(crate) fn new(status: u16, body: ErrorBody) -> Self {
        Self { status, body: Box::new(body) }
    }

    /// 422 `impossible`.
    pub(crate) fn impossible(message: impl Into<String>, on: impl Into<String>, fix: &str) -> Self {
        let body = ErrorBody::new(tidegate_wire::error::IMPOSSIBLE, message, on).fix(fix);
        Self::new(422, body)
    }

    /// 500 `cannotStore`: the disk says no.
    pub(crate) fn io(
        message: impl Into<String>,
        on: impl Into<String>,
        e: &std::io::Error,
    ) -> Self {
        let body = ErrorBody::new("cannotStore", message, on)
            .cause(e.to_string())
            .fix("check owner, rights and free space of the home folder, then try again");
        Self::new(500, body)
    }
}

/// What a new document does to a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in force already.
    Same,
    /// It is newer.
    Newer,
}

impl HostState {
    /// A claim: first of a home, or of the owner's epoch or a higher one.
    pub(crate) fn check_claim(&self, home: &str, epoch: Epoch) -> Result<(), Refusal> {
        if let Some(owner) = &self.home
            && owner != home
        {
            return Err(other_home(owner));
        }
        self.check_epoch(epoch)
    }

    /// Anything but a claim: the home has to have claimed this host before.
    pub(crate) fn check_owner(&self, home: &str, epoch: Epoch) -> Result<(), Refusal> {
        match &self.home {
            Some(owner) if owner == home => self.check_epoch(epoch),
            Some(owner) => Err(other_home(owner)),
            None => Err(Refusal::new(
                409,
                ErrorBody::new(OTHER_HOME, "no home has claimed this host yet", "nobody")
                    .fix("claim it first"),
            )),
        }
    }

    fn check_epoch(&self, epoch: Epoch) -> Result<(), Refusal> {
        if epoch < self.epoch {
            let message =
                format!("epoch {} is over: this host has accepted epoch {}", epoch.0, self.epoch.0);
            return Err(stale_epoch(message, self.epoch));
        }
        match self.shut {
            Some(shut) if epoch <= shut => Err(stale_epoch(
                format!(
                    "epoch {} is shut: this host heard nothing for too long and has put the \
                     fallback in force",
                    epoch.0
                ),
                self.epoch,
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a document under this fence may replace the lane's.
    pub(crate) fn check_document(
        &self,
        lane: &str,
        fence: Fence,
        digest: &Digest,
    ) -> Result<Verdict, Refusal> {
        if fence.seq == u64::MAX {
            return Err(Refusal::impossible(
                "this sequence is reserved for shutting an epoch",
                format!("lane {lane}"),
                "use a lower one",
            ));
        }
        let Some(known) = self.lanes.get(lane) else { return Ok(Verdict::Newer) };
        if fence > known.fence {
            return Ok(Verdict::Newer);
        }
        if fence == known.fence && *digest == known.digest {
            return Ok(Verdict::Same);
        }
        let message = if fence == known.fence {
            format!("another document is in force under the fence {fence}")
        } else {
            format!("the fence {fence} is below {}, which is in force", known.fence)
        };
        let body = ErrorBody::new(STALE_FENCE, message, format!("lane {lane}"))
            .cause(format!("fence {}", known.fence))
            .fix("send the newest document under the newest fence");
        Err(Refusal::new(409, body))
    }
}

fn other_home(owner: &str) -> Refusal {
    let body = ErrorBody::new(
        OTHER_HOME,
        format!("this host belongs to the home {owner}"),
        format!("home {owner}"),
    )
    .fix("use that home, or take this host over with `tidegate home adopt`");
    Refusal::new(409, body)
}

/// `on` names the epoch in the form `epoch N`: the next owner needs a higher one.
fn stale_epoch(message: String, highest: Epoch) -> Refusal {
    let body = ErrorBody::new(STALE_FENCE, message, format!("epoch {}", highest.0))
        .fix("end; the next owner of the home takes an epoch above this one");
    Refusal::new(409, body)
}
