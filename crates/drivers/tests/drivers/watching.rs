//! What the process driver sees, and what it says without being asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_core::{Digest, Epoch, Fence};
use tidegate_drivers::ProcessDriver;
use tidegate_drivers::process::LOCAL;
use tidegate_engine::effects::{Driver, Report, Seen};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::doubles::{World, second, until};

struct Watching {
    seen: Receiver<Report>,
    task: JoinHandle<Epoch>,
}

fn watch(driver: &Arc<ProcessDriver>) -> Watching {
    let (reports, seen) = channel(64);
    let driver = Arc::clone(driver);
    Watching {
        seen,
        task: tokio::spawn(async move { driver.watch(LOCAL, Epoch(5), reports).await }),
    }
}

impl Watching {
    async fn next<T>(&mut self, what: &str, mut take: impl FnMut(Seen) -> Option<T>) -> T {
        let next = timeout(Duration::from_secs(15), async {
            loop {
                let report = self.seen.recv().await.unwrap();
                assert_eq!(report.target, LOCAL);
                if let Some(taken) = take(report.seen) {
                    return taken;
                }
            }
        });
        next.await.unwrap_or_else(|_| panic!("not seen within 15 s: {what}"))
    }

    async fn seqs(&mut self) -> Vec<(u64, u64)> {
        self.next("samples", |seen| match seen {
            Seen::Samples(records) => {
                Some(records.iter().map(|r| (r.switch_epoch, r.seq)).collect())
            }
            Seen::Capacity(_) | Seen::Traffic(_) | Seen::Silence(..) => None,
        })
        .await
    }
}

#[tokio::test]
async fn changes_at_host_and_switch_are_seen_and_nothing_else() {
    let world = World::new();
    let driver = Arc::new(world.driver(5));
    let mut watching = watch(&driver);
    let set = |double: &crate::doubles::Double, seq| {
        double.lock().lanes.insert("test/web".into(), (Fence::new(5, seq), Digest::of(b"")));
        double.changed();
    };
    for seq in [1, 2] {
        set(&world.host.double, seq);
        let lane = watching
            .next("capacity", |seen| match seen {
                Seen::Capacity(lane) => Some(lane),
                Seen::Traffic(_) | Seen::Samples(_) | Seen::Silence(..) => None,
            })
            .await;
        assert_eq!(lane.fence, Some(Fence::new(5, seq)));
        set(&world.switch.double, seq);
        let lane = watching
            .next("traffic", |seen| match seen {
                Seen::Traffic(lane) => Some(lane),
                Seen::Capacity(_) | Seen::Samples(_) | Seen::Silence(..) => None,
            })
            .await;
        assert_eq!(lane.fence, Some(Fence::new(5, seq)));
    }
    let observed = world.host.double.heard("observe");
    assert!(observed < 8, "long polls, not fast ones: {observed}");
    assert_eq!(world.host.double.lock().heard[0], "claim 5", "claimed before anything is read");
    assert_eq!(world.switch.double.lock().heard[0], "claim 5");
}

#[tokio::test]
async fn counts_come_once_and_a_new_life_of_the_switch_starts_again() {
    let mut world = World::new();
    let driver = Arc::new(world.driver(5));
    let count = |world: &World, life, seq| {
        world.switch.double.lock().records.push(second(life, seq));
        world.switch.double.changed();
    };
    count(&world, 1, 1);
    let mut watching = watch(&driver);
    assert_eq!(watching.seqs().await, [(1, 1)]);
    count(&world, 1, 2);
    assert_eq!(watching.seqs().await, [(1, 2)]);
    world.switch.renew();
    count(&world, 2, 1);
    assert_eq!(watching.seqs().await, [(2, 1)]);
    count(&world, 2, 2);
    assert_eq!(watching.seqs().await, [(2, 2)]);
    // The same process reads from the start when it watches anew; whoever stores them drops them.
    watching.task.abort();
    let mut watching = watch(&driver);
    assert_eq!(watching.seqs().await, [(2, 1), (2, 2)]);
}

#[tokio::test]
async fn the_host_hears_every_second_whether_work_is_open() {
    let world = World::new();
    let driver = world.driver(5);
    let heard = |what| world.host.double.heard(what);
    driver.set_open(true).await;
    assert_eq!(world.host.double.lock().heard, ["claim 5", "contact true"]);
    until("again and again", || heard("contact true") >= 3).await;
    driver.set_open(false).await;
    assert_eq!(heard("contact false"), 1, "it is told at once");
    let all = world.host.double.lock().heard.clone();
    assert_eq!(all.last().unwrap(), "contact false", "and nothing else follows");
    driver.set_open(true).await;
    assert_eq!(world.host.double.lock().heard.last().unwrap(), "contact true");
}

#[tokio::test]
async fn nobody_starts_a_host_to_tell_it_that_nothing_is_open() {
    let mut world = World::new();
    world.host.stop();
    let driver = Arc::new(world.driver(5));
    let keeper = Arc::clone(&driver);
    let _keeping = tokio::spawn(async move { keeper.keep_alive().await });
    tokio::task::yield_now().await;
    driver.set_open(false).await;
    assert_eq!(world.starts.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn silence_is_reported_until_the_target_answers_again() {
    let mut world = World::new();
    let driver = Arc::new(world.driver(5));
    let mut watching = watch(&driver);
    until("both are watched", || {
        world.switch.double.heard("observe") > 0 && world.host.double.heard("observe") > 0
    })
    .await;
    world.switch.stop();
    let silence = |seen| match seen {
        Seen::Silence(for_ms, why) => Some((for_ms, why)),
        Seen::Capacity(_) | Seen::Traffic(_) | Seen::Samples(_) => None,
    };
    let (first, why) = watching.next("silence", silence).await;
    assert!(first >= 1_000, "{first}");
    assert!(why.starts_with("switch: "), "{why}");
    let (second_time, _) = watching.next("more silence", silence).await;
    assert!(second_time > first, "{second_time} after {first}");
    world.switch.start();
    world.switch.double.lock().records.push(second(1, 1));
    world.switch.double.changed();
    assert_eq!(watching.seqs().await, [(1, 1)]);
}

#[tokio::test]
async fn watching_ends_when_there_is_a_newer_owner() {
    let world = World::new();
    let driver = Arc::new(world.driver(5));
    let watching = watch(&driver);
    until("it is watched", || world.host.double.heard("observe") > 0).await;
    world.host.double.lock().epoch = Epoch(6);
    let epoch = timeout(Duration::from_secs(15), watching.task).await.unwrap().unwrap();
    assert_eq!(epoch, Epoch(6));
}

fn traffic(seen: Seen) -> Option<Option<Fence>> {
    match seen {
        Seen::Traffic(lane) => Some(lane.fence),
        Seen::Capacity(_) | Seen::Samples(_) | Seen::Silence(..) => None,
    }
}

#[tokio::test]
async fn a_process_that_starts_again_at_the_same_revision_is_read_at_once() {
    let mut world = World::new();
    let lane = |seq| ("test/web".to_owned(), (Fence::new(5, seq), Digest::of(b"")));
    world.switch.double.lock().lanes.extend([lane(1)]);
    let driver = Arc::new(world.driver(5));
    let mut watching = watch(&driver);
    assert_eq!(watching.next("traffic", traffic).await, Some(Fence::new(5, 1)));
    until("a long poll is open", || world.switch.double.revision.receiver_count() > 0).await;
    // A new life counts from 1 again, and 1 is where this one was.
    world.switch.double.lock().lanes.extend([lane(2)]);
    world.switch.renew();
    assert_eq!(watching.next("its table", traffic).await, Some(Fence::new(5, 2)));
}

#[tokio::test]
async fn a_silence_that_is_over_ends_with_a_report_although_nothing_has_changed() {
    let mut world = World::new();
    let fence = Fence::new(5, 1);
    world.switch.double.lock().lanes.insert("test/web".into(), (fence, Digest::of(b"")));
    let driver = Arc::new(world.driver(5));
    let mut watching = watch(&driver);
    assert_eq!(watching.next("traffic", traffic).await, Some(fence));
    world.switch.stop();
    let silence = |seen| match seen {
        Seen::Silence(for_ms, _) => Some(for_ms),
        Seen::Capacity(_) | Seen::Traffic(_) | Seen::Samples(_) => None,
    };
    watching.next("silence", silence).await;
    world.switch.start();
    assert_eq!(watching.next("the same once more", traffic).await, Some(fence));
}

#[tokio::test]
async fn a_long_poll_that_breaks_is_no_long_silence() {
    let mut world = World::new();
    let driver = Arc::new(world.driver(5));
    let mut watching = watch(&driver);
    let open = || world.host.double.revision.receiver_count() > 0;
    until("a long poll is open", open).await;
    let opened = std::time::Instant::now();
    until("it has been open for a while", || opened.elapsed() > Duration::from_secs(3)).await;
    world.host.stop();
    let silence = |seen| match seen {
        Seen::Silence(for_ms, _) => Some(for_ms),
        Seen::Capacity(_) | Seen::Traffic(_) | Seen::Samples(_) => None,
    };
    let (since, stopped) = (std::time::Instant::now(), watching.next("silence", silence).await);
    assert!(u128::from(stopped) <= since.elapsed().as_millis() + 50, "{stopped}");
}

#[tokio::test]
async fn a_host_is_kept_alive_while_nothing_is_open_once_one_was_needed() {
    let mut world = World::new();
    std::fs::create_dir_all(world.folder.path().join("host")).unwrap();
    let driver = world.driver(5);
    let keeping = tokio::spawn(async move { driver.keep_alive().await });
    until("somebody listens for its end", || world.host.connections() > 0).await;
    world.host.stop();
    until("one is started", || world.starts.load(Ordering::SeqCst) == 1).await;
    world.host.start();
    until("it is listened to as well", || world.host.connections() > 0).await;
    world.host.stop();
    until("and another one", || world.starts.load(Ordering::SeqCst) == 2).await;
    assert_eq!(world.host.double.lock().heard, Vec::<String>::new(), "it costs nothing");
    keeping.abort();
}
