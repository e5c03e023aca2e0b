//! What every driver that has capacity or traffic must do, whatever is behind it.

use std::fmt::Debug;

use tidegate_core::{Epoch, Fence};
use tidegate_drivers::traits::{Capacity, TargetError, Traffic};
use tidegate_engine::effects::Job;

use crate::doubles::{World, capacity_doc, traffic_doc};

/// One of the two traits, with documents that differ by a number and the fence that is observed.
trait Subject<D> {
    fn put<'a>(&'a self, fence: Fence, doc: &'a D) -> Job<'a, Result<Fence, TargetError>>;
    fn seen<'a>(&'a self, lane: &'a str) -> Job<'a, Result<Option<Fence>, TargetError>>;
}

struct ByCapacity<T>(T);
struct ByTraffic<T>(T);

impl<T: Capacity> Subject<tidegate_core::capacity::CapacityDoc> for ByCapacity<T> {
    fn put<'a>(
        &'a self,
        fence: Fence,
        doc: &'a tidegate_core::capacity::CapacityDoc,
    ) -> Job<'a, Result<Fence, TargetError>> {
        self.0.converge(fence, doc)
    }

    fn seen<'a>(&'a self, lane: &'a str) -> Job<'a, Result<Option<Fence>, TargetError>> {
        Box::pin(async move { Ok(self.0.observe(lane).await?.and_then(|lane| lane.fence)) })
    }
}

impl<T: Traffic> Subject<tidegate_core::traffic::TrafficDoc> for ByTraffic<T> {
    fn put<'a>(
        &'a self,
        fence: Fence,
        doc: &'a tidegate_core::traffic::TrafficDoc,
    ) -> Job<'a, Result<Fence, TargetError>> {
        self.0.converge(fence, doc)
    }

    fn seen<'a>(&'a self, lane: &'a str) -> Job<'a, Result<Option<Fence>, TargetError>> {
        Box::pin(async move { Ok(self.0.observe(lane).await?.and_then(|lane| lane.fence)) })
    }
}

fn overtaken<T: Debug>(result: &Result<T, TargetError>) -> bool {
    matches!(result, Err(TargetError::Overtaken(reason)) if reason.code == "staleFence")
}

/// `owner` makes a driver for the same target with this home and epoch.
async fn conforms<D, S: Subject<D>>(doc: impl Fn(&str, u64) -> D, owner: impl Fn(&str, u64) -> S) {
    let lane = "test/web";
    let first = owner("h-one", 3);
    assert_eq!(first.seen(lane).await, Ok(None), "an unknown lane is no error");
    let fence = Fence::new(3, 10);
    assert_eq!(first.put(fence, &doc(lane, 1)).await, Ok(fence));
    assert_eq!(first.put(fence, &doc(lane, 1)).await, Ok(fence), "twice is once");
    assert!(overtaken(&first.put(fence, &doc(lane, 2)).await), "one fence, one document");
    assert!(overtaken(&first.put(Fence::new(3, 9), &doc(lane, 3)).await), "never backwards");
    assert_eq!(first.seen(lane).await, Ok(Some(fence)), "a refusal changes nothing");
    let other = Fence::new(3, 1);
    assert_eq!(first.put(other, &doc("test/api", 1)).await, Ok(other), "lanes are apart");

    let stranger = owner("h-two", 99);
    match stranger.put(Fence::new(99, 1), &doc(lane, 4)).await {
        Err(TargetError::Refused(reason)) => assert_eq!(reason.code, "otherHome"),
        other => panic!("another home: {other:?}"),
    }

    let second = owner("h-one", 4);
    assert_eq!(second.seen(lane).await, Ok(Some(fence)), "what was there is still there");
    // The claim alone shuts the first one out, before the second has sent any document.
    let late = first.put(Fence::new(3, 11), &doc(lane, 5)).await;
    assert_eq!(late, Err(TargetError::Superseded(Epoch(4))));
    let fence = Fence::new(4, 1);
    assert_eq!(second.put(fence, &doc(lane, 6)).await, Ok(fence), "a new epoch counts anew");
    assert_eq!(second.seen(lane).await, Ok(Some(fence)));
}

#[tokio::test]
async fn the_host_conforms_to_capacity() {
    let world = World::new();
    conforms(capacity_doc, |home, epoch| ByCapacity(world.driver_of(home, epoch))).await;
}

#[tokio::test]
async fn the_switch_conforms_to_traffic() {
    let world = World::new();
    conforms(traffic_doc, |home, epoch| ByTraffic(world.driver_of(home, epoch))).await;
}
