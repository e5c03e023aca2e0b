//! Probes, limits, secrets, logs, and the way out.

use std::path::Path;
use std::time::Duration;

use tidegate_core::Fence;
use tidegate_core::capacity::CapacityDoc;
use tidegate_core::spec::{Probe, ProbeAction, Probes, Resources, ServiceSpec, StopSpec};
use tidegate_wire::switch::EndpointState::{Draining, Ready};

use crate::support::*;

/// Claims, stages a script and asks for one instance of it.
async fn one(world: &World, script: &str, spec: ServiceSpec) -> CapacityDoc {
    world.claim(1).await.unwrap();
    let artifact = world.script("artifact", script);
    let digest = world.stage(&artifact, &spec.command).await.unwrap();
    let doc = doc(vec![capacity_of("v1", &digest, 1, spec)]);
    world.capacity(Fence::new(1, 1), &doc).await.unwrap();
    doc
}

async fn none(world: &World, doc: &CapacityDoc) {
    let nothing = CapacityDoc { versions: Vec::new(), ..doc.clone() };
    world.capacity(Fence::new(1, 2), &nothing).await.unwrap();
}

fn without_probes() -> ServiceSpec {
    let command = vec!["./start".to_owned()];
    ServiceSpec { command, probes: Probes::default(), ..service() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_serves_on_until_the_switch_has_nothing_under_way_and_only_then_is_told() {
    let world = World::start().await;
    let told = world.folder.path().join("told");
    let script = format!(
        "trap 'echo told >> {}; exit 0' TERM; while :; do sleep 0.02; done",
        told.display()
    );
    let doc = one(&world, &script, without_probes()).await;
    world.version("v1", "ready", |v| v.ready == 1).await;
    world.switch.said.lock().unwrap().in_flight = 1;
    none(&world, &doc).await;
    until("draining", async || (world.switch.count(Draining) == 1).then_some(())).await;
    let observed = std::time::Instant::now();
    while observed.elapsed() < Duration::from_millis(300) {
        assert!(!told.exists(), "told while a request was under way");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.switch.said.lock().unwrap().in_flight = 0;
    until("told", async || told.exists().then_some(())).await;
    world.lane("gone", |lane| lane.versions.is_empty()).await;
    assert_eq!(std::fs::read_to_string(&told).unwrap(), "told\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_heed_its_signal_is_killed_with_its_children() {
    let world = World::start().await;
    let child = world.folder.path().join("child");
    let script = format!(
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 0.05; done' & \
         while :; do sleep 0.05; done",
        child.display()
    );
    let stop = StopSpec { signal: "SIGTERM".to_owned(), grace_ms: 200 };
    let doc = one(&world, &script, ServiceSpec { stop, ..without_probes() }).await;
    world.version("v1", "ready", |v| v.ready == 1).await;
    let pid = until("a child", async || std::fs::read_to_string(&child).ok()).await;
    none(&world, &doc).await;
    world.lane("gone", |lane| lane.versions.is_empty()).await;
    let entry = format!("/proc/{}", pid.trim());
    until("the child is gone", async || (!Path::new(&entry).exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_wanted_again_while_it_drains_goes_on() {
    let world = World::start().await;
    let doc = world.up(1).await;
    world.switch.said.lock().unwrap().in_flight = 1;
    let before = world.switch.known();
    none(&world, &doc).await;
    until("draining", async || (world.switch.count(Draining) == 1).then_some(())).await;
    world.capacity(Fence::new(1, 3), &doc).await.unwrap();
    until("ready again", async || (world.switch.count(Ready) == 1).then_some(())).await;
    assert_eq!(world.switch.known(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_command_that_cannot_be_executed_is_the_trouble() {
    let world = World::start().await;
    world.claim(1).await.unwrap();
    let artifact = world.script("artifact", "exit 0");
    std::fs::write(artifact.join("start"), "#!/no/such/interpreter\n").unwrap();
    let digest = world.stage(&artifact, &without_probes().command).await.unwrap();
    let doc = doc(vec![capacity_of("v1", &digest, 1, without_probes())]);
    world.capacity(Fence::new(1, 1), &doc).await.unwrap();
    let seen = world.version("v1", "trouble", |v| v.trouble.is_some()).await;
    let trouble = seen.trouble.unwrap();
    assert!(trouble.contains("the start command") && trouble.contains("is missing"), "{trouble}");
    world.version("v1", "tried again", |v| v.restarts >= 2 && v.ready == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_liveness_or_startup_probe_restarts_the_instance() {
    let world = World::start().await;
    let command = |file: &str| Probe {
        action: ProbeAction::Command {
            command: vec!["test".to_owned(), "-e".to_owned(), file.to_owned()],
        },
        period_ms: 20,
        failure_threshold: 2,
        ..http("")
    };
    let flag = world.folder.path().join("flag");
    let flag = flag.to_str().unwrap();
    let probes =
        Probes { startup: Some(command(flag)), liveness: Some(command(flag)), ..Probes::default() };
    one(&world, "exec sleep 1000", ServiceSpec { probes, ..without_probes() }).await;
    let seen = world.version("v1", "restarted", |v| v.restarts > 0).await;
    assert!(seen.trouble.unwrap().contains("startup probe failed"));
    assert_eq!(world.switch.count(Ready), 0);
    std::fs::write(flag, "").unwrap();
    let seen = world.version("v1", "ready", |v| v.ready == 1).await;
    std::fs::remove_file(flag).unwrap();
    let again = world.version("v1", "restarted again", |v| v.restarts > seen.restarts).await;
    assert!(again.trouble.unwrap().contains("probe failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_readiness_probe_a_port_that_is_mentioned_has_to_accept_connections() {
    let world = World::start().await;
    world.claim(1).await.unwrap();
    let gate = world.folder.path().join("gate");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; exec {ROLE} service \"$1\" v1",
        gate.display()
    );
    let spec = ServiceSpec { probes: Probes::default(), ..service() };
    one(&world, &script, spec).await;
    let seen = world.version("v1", "probed", |v| v.trouble.is_some()).await;
    assert!(seen.trouble.unwrap().contains("no connection"));
    assert_eq!((seen.running, seen.ready), (1, 0));
    std::fs::write(gate, "").unwrap();
    let seen = world.version("v1", "ready", |v| v.ready == 1).await;
    assert_eq!(seen.trouble, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_clean_and_secrets_are_nowhere_but_in_their_folder() {
    const SECRET: &str = "correct-horse-battery-staple";
    let world = World::start().await;
    let secrets = world.home.root().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    let mut spec = without_probes();
    spec.secrets = vec!["DATABASE_URL".to_owned()];
    spec.env.insert("GREETING".to_owned(), "hello {version} {instance}".to_owned());
    let script = "echo secret: $DATABASE_URL; env > $TIDEGATE_WORK_DIR/env; mode=$(stat -c %a $TIDEGATE_SECRETS_DIR); \
                  cmp $TIDEGATE_SECRETS_DIR/DATABASE_URL - <<E || exit 5\n$DATABASE_URL\nE\n\
                  echo $mode > $TIDEGATE_WORK_DIR/mode; exec sleep 1000";
    one(&world, script, spec).await;
    let seen = world.version("v1", "trouble", |v| v.trouble.is_some()).await;
    assert!(
        seen.trouble.unwrap().contains("the secret DATABASE_URL is missing; put its value into")
    );
    let file = secrets.join("DATABASE_URL");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let open = world.version("v1", "refused", |v| {
        v.trouble.as_ref().is_some_and(|t| t.contains("can be read by others"))
    });
    open.await;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).unwrap();
    world.version("v1", "ready", |v| v.ready == 1).await;
    let folder = world.instance();
    let mode = until("checked", async || {
        std::fs::read_to_string(folder.join("work/mode")).ok().filter(|m| m.ends_with('\n'))
    })
    .await;
    assert_eq!(mode, "700\n");
    let env = std::fs::read_to_string(folder.join("work/env")).unwrap();
    let value = |name: &str| {
        let line = env.lines().find(|line| line.starts_with(&format!("{name}=")));
        line.map(|line| line[name.len() + 1..].to_owned())
    };
    assert_eq!(value("DATABASE_URL").as_deref(), Some(SECRET));
    let instance = value("TIDEGATE_INSTANCE").unwrap();
    assert_eq!(value("GREETING"), Some(format!("hello v1 {instance}")));
    assert_eq!(value("TIDEGATE_VERSION").as_deref(), Some("v1"));
    assert!(value("PORT").is_some());
    assert_eq!(value("CARGO_PKG_NAME"), None, "the host's environment leaks");
    // The service's own file is its own business.
    std::fs::remove_file(folder.join("work/env")).unwrap();
    let found = files_with(world.home.root(), SECRET.as_bytes());
    assert_eq!(found, [folder.join("secrets/DATABASE_URL"), file]);
}

fn files_with(root: &Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_with(&entry.path(), needle));
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            if bytes.windows(needle.len()).any(|window| window == needle) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn output_goes_to_files_that_are_rotated_and_outlive_the_instance() {
    let world = World::start().await;
    // 4096 bytes are the limit in these tests.
    let script = "i=0; while [ $i -lt 300 ]; do echo line-$i-0123456789012345678901234567890123456789; \
                  i=$((i+1)); done; echo oops >&2; exec sleep 1000";
    let doc = one(&world, script, without_probes()).await;
    world.version("v1", "ready", |v| v.ready == 1).await;
    let folder = world.instance();
    until("all is written", async || {
        let last = std::fs::read_to_string(folder.join("stdout.log")).ok()?;
        (last.contains("line-299-") && folder.join("stderr.log").metadata().ok()?.len() > 0)
            .then_some(())
    })
    .await;
    for name in ["stdout.log", "stdout.log.1", "stdout.log.2"] {
        let length = std::fs::metadata(folder.join(name)).unwrap().len();
        assert!((1..=4096).contains(&length), "{name}: {length}");
    }
    assert!(!folder.join("stdout.log.3").exists());
    assert_eq!(std::fs::read_to_string(folder.join("stderr.log")).unwrap(), "oops\n");
    none(&world, &doc).await;
    world.lane("gone", |lane| lane.versions.is_empty()).await;
    let kept = world.home.host().join("old-logs").join(folder.file_name().unwrap());
    assert!(std::fs::read_to_string(kept.join("stdout.log")).unwrap().contains("line-299-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_in_force_or_it_is_said_that_they_are_not() {
    let world = World::start().await;
    let resources = Resources { memory_bytes: Some(32 << 20), cpu_millis: Some(500) };
    let spec = ServiceSpec { resources, ..without_probes() };
    let doc = one(&world, "exec tail /dev/zero", spec).await;
    let seen = world.version("v1", "started", |v| v.running == 1 || v.trouble.is_some()).await;
    let report = world.report().await;
    if report.unenforced.iter().any(|text| text.starts_with("resources.memory")) {
        eprintln!("SKIPPED in part: no memory limit here: {:?}", report.unenforced);
        return;
    }
    drop(seen);
    let seen = world.version("v1", "killed", |v| v.trouble.is_some()).await;
    let trouble = seen.trouble.unwrap();
    assert!(trouble.ends_with("killed: out of memory (limit 32 MiB)"), "{trouble}");
    let groups = until("its groups are known", async || {
        let files = std::fs::read_dir(world.instance()).ok()?.flatten().map(|entry| entry.path());
        let mut specs = files
            .filter(|p| p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"spec.")));
        let spec: serde_json::Value =
            serde_json::from_slice(&std::fs::read(specs.next()?).ok()?).ok()?;
        let groups = spec["cgroups"]
            .as_array()?
            .iter()
            .filter_map(|g| g.as_str().map(std::path::PathBuf::from));
        Some(groups.collect::<Vec<_>>())
    })
    .await;
    assert!(!groups.is_empty());
    none(&world, &doc).await;
    world.lane("gone", |lane| lane.versions.is_empty()).await;
    for group in groups {
        assert!(!group.parent().unwrap().exists(), "{} is left behind", group.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_leaves_behind_when_it_ends_is_ended_too() {
    let world = World::start().await;
    let child = world.folder.path().join("child");
    let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; exit 1", child.display());
    one(&world, &script, without_probes()).await;
    let pid = until("a child", async || std::fs::read_to_string(&child).ok()).await;
    world.version("v1", "ended", |v| v.trouble.is_some()).await;
    let entry = format!("/proc/{}", pid.trim());
    until("the child is gone", async || (!Path::new(&entry).exists()).then_some(())).await;
}
