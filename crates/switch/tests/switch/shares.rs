//! Weights: exact shares, no aliasing, users that stay where they are.

use std::collections::BTreeMap;

use tidegate_wire::switch::EndpointState::Ready;

use super::support::backend::{Backend, Behaviour};
use super::support::client::Browser;
use super::support::rig::Rig;

async fn two() -> (Rig, [Backend; 2]) {
    let rig = Rig::start().await;
    let old = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nv1";
    let new = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nv2";
    let backends = [
        Backend::start("v1", Behaviour::Raw(old)).await,
        Backend::start("v2", Behaviour::Raw(new)).await,
    ];
    rig.endpoints(&[
        ("a", "v1", backends[0].address, Ready),
        ("b", "v2", backends[1].address, Ready),
    ])
    .await;
    (rig, backends)
}

#[tokio::test]
async fn ten_thousand_requests_have_the_shares_and_no_period_sees_only_one_version() {
    let (rig, _backends) = two().await;
    rig.weights(&[("v2", 1_250), ("v1", 8_750)]).await;
    let mut browser = Browser::new(rig.listen);
    let mut seen = Vec::new();
    for _ in 0..10_000 {
        seen.push(browser.get("/").await.unwrap().body == "v2");
    }
    let new = seen.iter().filter(|new| **new).count();
    assert!((1_240..=1_260).contains(&new), "{new}");
    for period in [2, 3, 5] {
        for phase in 0..period {
            let mine = seen.iter().skip(phase).step_by(period);
            let share = mine.clone().filter(|new| **new).count() * 10_000 / mine.count();
            assert!((900..1_600).contains(&share), "period {period} phase {phase}: {share}");
        }
    }
    let sums = rig.sums().await;
    assert_eq!((sums["v2"].n, sums["v1"].n), (new as u64, 10_000 - new as u64));
}

#[tokio::test]
async fn raising_the_weight_moves_users_only_from_the_old_version_to_the_new_one() {
    let (rig, _backends) = two().await;
    let mut users: Vec<_> = (0..200).map(|_| Browser::new(rig.listen)).collect();
    let mut before: BTreeMap<usize, String> = BTreeMap::new();
    for weight in [0, 1_000, 2_000, 5_000, 10_000] {
        let mut doc = rig.doc(&[("v2", weight), ("v1", 10_000 - weight)]);
        doc.sticky_cookie = Some("tg".into());
        rig.apply(doc).await;
        let mut moved = 0;
        for (user, browser) in users.iter_mut().enumerate() {
            for turn in 0..2 {
                let answer = browser.get("/").await.unwrap();
                if let Some(set) = answer.headers.get("set-cookie") {
                    assert!(weight == 0 && turn == 0, "a cookie is set once");
                    let set = set.to_str().unwrap();
                    browser.cookie = set.split(';').next().map(str::to_owned);
                }
                let was = before.insert(user, answer.body.clone());
                if was.as_deref().is_some_and(|was| was != answer.body) {
                    assert_eq!((was.as_deref(), answer.body.as_str()), (Some("v1"), "v2"));
                    assert_eq!(turn, 0, "nobody moves while the weights stay");
                    moved += 1;
                }
            }
        }
        let new = before.values().filter(|version| *version == "v2").count();
        let wanted = weight as usize * 200 / 10_000;
        assert!(new.abs_diff(wanted) <= 30, "{new} of 200 users at {weight}, {moved} moved");
    }
}

#[tokio::test]
async fn a_table_that_serves_nobody_answers_503_and_counts_for_no_version() {
    let (rig, _backends) = two().await;
    rig.weights(&[("v1", 0), ("v2", 0)]).await;
    let answer = Browser::new(rig.listen).get("/").await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("prod/web is not being served"));
    assert!(rig.sums().await.is_empty());
    assert_eq!(rig.report().await.refused, 1);
}
