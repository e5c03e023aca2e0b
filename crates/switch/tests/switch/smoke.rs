//! The first things that must work.

use tidegate_wire::switch::EndpointState::Ready;

use super::support::backend::Backend;
use super::support::client::Browser;
use super::support::rig::Rig;

#[tokio::test]
async fn requests_reach_the_version_that_has_the_weight_and_are_counted() {
    let rig = Rig::start().await;
    let (old, new) = (Backend::good("v1").await, Backend::good("v2").await);
    rig.endpoints(&[("a", "v1", old.address, Ready), ("b", "v2", new.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let mut browser = Browser::new(rig.listen);
    for _ in 0..10 {
        let answer = browser.get("/").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "v1"));
    }
    rig.weights(&[("v2", 10_000), ("v1", 0)]).await;
    for _ in 0..10 {
        let answer = browser.post("/echo", "hello").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    }
    let sums = rig.sums().await;
    assert_eq!((sums["v1"].n, sums["v1"].k, sums["v2"].n, sums["v2"].k), (10, 0, 10, 0));
    assert_eq!((old.seen().len(), new.seen().len()), (10, 10));
    assert_eq!((old.connections(), new.connections()), (1, 1));
}
