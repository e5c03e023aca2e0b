//! Seconds, sequences, history, and that every request is explained.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::switch::EndpointState::Ready;
use tidegate_wire::switch::History;

use super::support::PATIENCE;
use super::support::backend::{Backend, Behaviour};
use super::support::client::{Browser, raw};
use super::support::rig::{LANE, Rig};

/// A small generator, so that a failing seed can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % sides
    }
}

fn faulty(dice: &mut Dice) -> Behaviour {
    let idle = Duration::from_millis(u64::from(20 + dice.roll(60)));
    match dice.roll(9) {
        0 => Behaviour::Closes,
        1 => Behaviour::Swallows,
        2 => Behaviour::Silent,
        3 => Behaviour::Garbage,
        4 => Behaviour::CutsBody,
        5 => Behaviour::Status(500),
        6 => Behaviour::Good { work: Duration::from_millis(u64::from(dice.roll(5))), idle },
        7 => Behaviour::Status(404),
        _ => Behaviour::HugeHead,
    }
}

#[tokio::test]
async fn the_counts_explain_every_request_whatever_the_instances_do() {
    for seed in 1..=4 {
        let dice = &mut Dice(seed);
        let rig = Rig::start().await;
        let mut backends = Vec::new();
        for at in 0..4 {
            let version = if at < 2 { "v1" } else { "v2" };
            let behaviour = if at == 0 {
                Behaviour::Good { work: Duration::ZERO, idle: Duration::from_secs(60) }
            } else {
                faulty(dice)
            };
            backends.push((at.to_string(), version, Backend::start(version, behaviour).await));
        }
        let all: Vec<_> =
            backends.iter().map(|(i, v, b)| (i.as_str(), *v, b.address, Ready)).collect();
        rig.endpoints(&all).await;
        let mut doc = rig.doc(&[("v2", 5_000), ("v1", 5_000)]);
        doc.errors.timeout_ms = 100;
        rig.apply(doc).await;

        let (mut sent, mut good, mut posts) = (0, 0, Vec::new());
        let mut browsers: Vec<_> = (0..4).map(|_| Browser::new(rig.listen)).collect();
        for turn in 0..60 {
            if turn == 30 {
                backends[dice.roll(4) as usize].2.kill();
            }
            let browser = &mut browsers[dice.roll(4) as usize];
            let post = dice.roll(2) == 0;
            sent += 1;
            let answer =
                if post { browser.post("/", "body").await } else { browser.get("/").await };
            if let Ok(answer) = answer {
                good += u64::from(answer.status == 200);
                if post {
                    posts.push(answer.id);
                }
            }
        }
        raw(rig.listen, b"rubbish\r\n\r\n").await;
        sent += 1;

        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for (_, _, backend) in &backends {
            for (id, count) in backend.seen() {
                *seen.entry(id).or_default() += count;
            }
        }
        assert!(posts.iter().all(|id| seen.get(id).is_none_or(|count| *count <= 1)), "{seed}");
        let refused = rig.report().await.refused;
        let sums = rig.sums().await;
        let explained: u64 =
            sums.values().map(|sum| sum.n + sum.client_gone + sum.cutover).sum::<u64>() + refused;
        assert_eq!(explained, sent, "seed {seed}: {sums:?}");
        assert_eq!(refused, 1, "seed {seed}");
        let whole: u64 = sums.values().map(|sum| sum.ok).sum();
        assert!(whole + sums.values().map(|sum| sum.connect).sum::<u64>() >= good, "seed {seed}");
        let (k, n) = sums.values().fold((0, 0), |(k, n), sum| (k + sum.k, n + sum.n));
        assert!(k <= n, "seed {seed}: {sums:?}");
    }
}

#[tokio::test]
async fn a_reader_gets_each_record_once_and_learns_that_an_empty_second_is_closed() {
    let rig = Rig::start().await;
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let empty = rig.batch(0, 0, Duration::ZERO).await;
    assert!(empty.records.is_empty());
    let epoch = empty.switch_epoch;
    let mut browser = Browser::new(rig.listen);
    let (mut after, mut total, mut last) = (0, 0, 0);
    for round in 1..=2 {
        browser.get("/").await.unwrap();
        let batch = rig.batch(epoch, after, PATIENCE).await;
        assert!(!batch.records.is_empty(), "it waits until the second is closed");
        for record in &batch.records {
            assert_eq!((record.switch_epoch, record.seq), (epoch, after + 1));
            assert!(record.second >= last && record.second <= batch.closed_second);
            last = record.second;
            after = record.seq;
            total += record.n;
        }
        assert_eq!(total, round);
    }
    let quiet = rig.batch(epoch, after, Duration::from_millis(1_100)).await;
    assert!(quiet.records.is_empty() && quiet.closed_second > last);
    assert_eq!(quiet.first, 1, "what was read is kept for another reader");
}

#[tokio::test]
async fn a_restarted_switch_has_a_higher_epoch_and_starts_its_sequence_again() {
    let mut rig = Rig::start().await;
    let backend = Backend::good("v1").await;
    rig.endpoints(&[("a", "v1", backend.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    Browser::new(rig.listen).get("/").await.unwrap();
    let before = rig.records().await;
    rig.leave().await.unwrap().unwrap();
    rig.launch().await;
    let after = rig.batch(before[0].switch_epoch, before[0].seq, Duration::ZERO).await;
    assert!(after.switch_epoch > before[0].switch_epoch);
    assert!(after.records.is_empty());
    Browser::new(rig.listen).get("/").await.unwrap();
    assert_eq!(rig.records().await[0].seq, 1);
}

#[tokio::test]
async fn history_is_on_disk_when_the_switch_leaves_and_adds_up_after_it_came_back() {
    let mut rig = Rig::start().await;
    let bad = Backend::start("v1", Behaviour::Status(500)).await;
    rig.endpoints(&[("a", "v1", bad.address, Ready)]).await;
    rig.weights(&[("v1", 10_000)]).await;
    let mut sent = 0;
    for _ in 0..2 {
        for _ in 0..5 {
            Browser::new(rig.listen).get("/").await.unwrap();
            sent += 1;
        }
        rig.leave().await.unwrap().unwrap();
        rig.launch().await;
    }
    let path = format!("/v1/history?lane={LANE}&since=0");
    let history: History = rig.client.get(&path, PATIENCE).await.unwrap();
    let n: u64 = history.blocks.iter().map(|block| block.n).sum();
    let k: u64 = history.blocks.iter().map(|block| block.k).sum();
    assert_eq!((n, k), (sent, sent));
    let other: History =
        rig.client.get("/v1/history?lane=prod/other&since=0", PATIENCE).await.unwrap();
    assert!(other.blocks.is_empty());
}

#[tokio::test]
async fn many_clients_at_once_are_counted_to_the_last_one() {
    let rig = Rig::start().await;
    let backends = [Backend::good("v1").await, Backend::good("v2").await];
    rig.endpoints(&[
        ("a", "v1", backends[0].address, Ready),
        ("b", "v2", backends[1].address, Ready),
    ])
    .await;
    rig.weights(&[("v2", 3_000), ("v1", 7_000)]).await;
    let listen = Arc::new(rig.listen);
    let clients: Vec<_> = (0..32)
        .map(|_| {
            let listen = Arc::clone(&listen);
            tokio::spawn(async move {
                let mut browser = Browser::new(*listen);
                for _ in 0..50 {
                    assert_eq!(browser.post("/", "x").await.unwrap().status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let sums = rig.sums().await;
    assert_eq!(sums["v1"].ok + sums["v2"].ok, 1_600);
    assert_eq!(backends[0].seen().len() as u64, sums["v1"].n);
    assert_eq!(backends[1].seen().len() as u64, sums["v2"].n);
    assert_eq!(rig.in_flight("v1").await + rig.in_flight("v2").await, 0);
}
