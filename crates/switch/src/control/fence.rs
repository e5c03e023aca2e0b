//! What passes: the order of commands at this switch.

use tidegate_wire::error::{ErrorBody, OTHER_HOME, STALE_FENCE};
use tidegate_wire::host::Claim;
use tidegate_wire::switch::Table;
use tidegate_wire::{Digest, Epoch};

use super::store::{Durable, DurableLane};

/// What is to be done with a table that passes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passes {
    /// It is in force already: acknowledge it again.
    Again,
    /// This is the new state of its lane.
    New(Box<DurableLane>),
}

/// Checks a claim.
///
/// # Errors
/// `otherHome` or `staleFence` (for HTTP 409).
pub(crate) fn claim(state: &Durable, claim: &Claim) -> Result<(), Box<ErrorBody>> {
    owner(state, &claim.home)?;
    epoch(state, claim.epoch)
}

/// Checks a table against home, epoch and the lane's floor.
///
/// # Errors
/// `otherHome` or `staleFence` (for HTTP 409).
pub(crate) fn table(
    state: &Durable,
    table: &Table,
    digest: &Digest,
) -> Result<Passes, Box<ErrorBody>> {
    owner(state, &table.home)?;
    epoch(state, table.fence.epoch)?;
    let floor = if table.shut { table.fence.shut() } else { table.fence };
    let fresh =
        DurableLane { fence: table.fence, floor, digest: digest.clone(), doc: table.doc.clone() };
    let Some(lane) = state.lanes.get(&table.doc.lane) else {
        return Ok(Passes::New(Box::new(fresh)));
    };
    let same = table.fence == lane.fence && *digest == lane.digest;
    if same && floor == lane.floor {
        return Ok(Passes::Again);
    }
    // The host may shut the lane by the very table that is in force.
    if (same && table.shut) || table.fence > lane.floor {
        return Ok(Passes::New(Box::new(fresh)));
    }
    let what = if table.fence == lane.fence && lane.floor == lane.fence {
        "another table is in force under this fence"
    } else if lane.floor > lane.fence {
        "the host has applied the fallback and shut this epoch"
    } else {
        "a newer table is in force"
    };
    let message = format!(
        "table {} for {} refused: {what} (floor {})",
        table.fence, lane.doc.lane, lane.floor
    );
    Err(stale(message, &table.doc.lane))
}

fn owner(state: &Durable, home: &str) -> Result<(), Box<ErrorBody>> {
    match &state.home {
        Some(owner) if owner != home => Err(ErrorBody::new(
            OTHER_HOME,
            format!("this switch belongs to the home {owner}, not to {home}"),
            "switch",
        )
        .fix("stop that home's switch, or use another folder for this home")
        .into()),
        Some(_) | None => Ok(()),
    }
}

fn epoch(state: &Durable, epoch: Epoch) -> Result<(), Box<ErrorBody>> {
    if epoch < state.epoch {
        let message =
            format!("epoch {} is over: an owner with epoch {} has claimed", epoch.0, state.epoch.0);
        return Err(stale(message, "switch"));
    }
    Ok(())
}

fn stale(message: String, on: &str) -> Box<ErrorBody> {
    ErrorBody::new(STALE_FENCE, message, on)
        .fix("claim again with a higher epoch and read the state before sending anything")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::Fence;
    use tidegate_wire::spec::ErrorSpec;
    use tidegate_wire::traffic::TrafficDoc;

    fn message(epoch: u64, seq: u64, seed: u64, shut: bool) -> Table {
        let doc = TrafficDoc {
            lane: "prod/web".into(),
            listen: "127.0.0.1:1".into(),
            routes: Vec::new(),
            weights: Vec::new(),
            sticky_cookie: None,
            errors: ErrorSpec { status: vec![(500, 599)], timeout_ms: 1 },
            seed,
        };
        Table { home: "h".into(), fence: Fence::new(epoch, seq), doc, shut }
    }

    fn send(state: &mut Durable, message: &Table) -> &'static str {
        match table(state, message, &Digest::of_json(&message.doc).unwrap()) {
            Ok(Passes::Again) => "again",
            Ok(Passes::New(lane)) => {
                state.epoch = state.epoch.max(message.fence.epoch);
                state.lanes.insert(message.doc.lane.clone(), *lane);
                "new"
            }
            Err(error) if error.code == OTHER_HOME => "other",
            Err(_) => "stale",
        }
    }

    #[test]
    fn a_fence_passes_once_forwards_and_never_for_another_document() {
        let mut state = Durable { home: Some("h".into()), ..Durable::default() };
        let cases = [
            (message(1, 5, 0, false), "new"),
            (message(1, 5, 0, false), "again"),
            (message(1, 5, 1, false), "stale"),
            (message(1, 4, 0, false), "stale"),
            (message(1, 6, 1, false), "new"),
            (message(2, 1, 2, false), "new"),
            (message(1, 7, 2, false), "stale"),
            (Table { home: "x".into(), ..message(3, 1, 0, false) }, "other"),
        ];
        for (message, wanted) in cases {
            assert_eq!(send(&mut state, &message), wanted, "{}", message.fence);
        }
    }

    #[test]
    fn a_shut_lane_takes_nothing_more_of_its_epoch_and_everything_of_the_next() {
        let mut state = Durable { home: Some("h".into()), ..Durable::default() };
        let cases = [
            (message(1, 5, 0, false), "new"),
            (message(1, 9, 1, true), "new"),
            (message(1, 9, 1, true), "again"),
            (message(1, 9, 1, false), "stale"),
            (message(1, 10, 2, false), "stale"),
            (message(1, u64::MAX, 2, false), "stale"),
            (message(2, 1, 2, false), "new"),
            (message(2, 1, 2, true), "new"),
            (message(2, 2, 2, false), "stale"),
        ];
        for (message, wanted) in cases {
            assert_eq!(send(&mut state, &message), wanted, "{} {}", message.fence, message.shut);
        }
        let lane = &state.lanes["prod/web"];
        assert_eq!((lane.fence, lane.floor), (Fence::new(2, 1), Fence::new(2, u64::MAX)));
    }

    #[test]
    fn a_claim_is_refused_under_a_lower_epoch_and_of_another_home() {
        let state = Durable { home: Some("h".into()), epoch: Epoch(4), ..Durable::default() };
        let ask = |home: &str, epoch| Claim { home: home.into(), epoch: Epoch(epoch), protocol: 1 };
        assert!(claim(&state, &ask("h", 4)).is_ok());
        assert!(claim(&state, &ask("h", 5)).is_ok());
        assert_eq!(claim(&state, &ask("h", 3)).unwrap_err().code, STALE_FENCE);
        let other = claim(&state, &ask("x", 9)).unwrap_err();
        assert_eq!(other.code, OTHER_HOME);
        assert!(other.message.contains("home h"));
    }
}
