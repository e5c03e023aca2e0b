//! Digests, and what is refused as an artifact.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate_host::{ArtifactError, artifact_digest};
use tidegate_wire::error::{DIGEST_CHANGED, IMPOSSIBLE};

use crate::support::{World, refusal, service};

/// A tar entry as an attacker would write it: nothing is checked.
struct Raw<'a> {
    name: &'a [u8],
    kind: u8,
    mode: u32,
    link: &'a [u8],
    body: &'a [u8],
}

fn file<'a>(name: &'a str, body: &'a [u8]) -> Raw<'a> {
    Raw { name: name.as_bytes(), kind: b'0', mode: 0o644, link: b"", body }
}

fn link<'a>(name: &'a str, target: &'a str) -> Raw<'a> {
    Raw { name: name.as_bytes(), kind: b'2', mode: 0o777, link: target.as_bytes(), body: b"" }
}

fn tar(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in entries {
        let mut head = [0_u8; 512];
        head[..entry.name.len()].copy_from_slice(entry.name);
        head[100..108].copy_from_slice(format!("{:07o}\0", entry.mode).as_bytes());
        head[108..116].copy_from_slice(b"0000000\0");
        head[116..124].copy_from_slice(b"0000000\0");
        head[124..136].copy_from_slice(format!("{:011o}\0", entry.body.len()).as_bytes());
        head[136..148].copy_from_slice(b"00000000000\0");
        head[148..156].copy_from_slice(b"        ");
        head[156] = entry.kind;
        head[157..157 + entry.link.len()].copy_from_slice(entry.link);
        head[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        all.extend_from_slice(&head);
        all.extend_from_slice(entry.body);
        all.resize(all.len().next_multiple_of(512), 0);
    }
    all.resize(all.len() + 1024, 0);
    all
}

fn gz(folder: &TempDir, tar: &[u8]) -> PathBuf {
    let path = folder.path().join("a.tar.gz");
    let file = std::fs::File::create(&path).unwrap();
    let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    packer.write_all(tar).unwrap();
    packer.finish().unwrap();
    path
}

fn refused(entries: &[Raw<'_>]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = gz(&folder, &tar(entries));
    artifact_digest(&path).unwrap_err().to_string()
}

/// The same tree as a folder and as entries of an archive.
fn tree(root: &Path) -> PathBuf {
    let folder = root.join("tree");
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    std::fs::create_dir_all(folder.join("empty")).unwrap();
    std::fs::write(folder.join("bin/web"), "#!/bin/sh\n").unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.join("bin/web"), mode).unwrap();
    std::fs::write(folder.join("read.me"), "text").unwrap();
    symlink("../read.me", folder.join("bin/link")).unwrap();
    folder
}

fn entries() -> Vec<Raw<'static>> {
    vec![
        Raw { name: b"./", kind: b'5', mode: 0o755, link: b"", body: b"" },
        file("./read.me", b"text"),
        Raw { mode: 0o700, ..file("./bin/web", b"#!/bin/sh\n") },
        link("./bin/link", "../read.me"),
        Raw { name: b"./empty/", kind: b'5', mode: 0o700, link: b"", body: b"" },
    ]
}

#[test]
fn a_folder_and_its_archives_have_the_same_digest() {
    let folder = tempfile::tempdir().unwrap();
    let of_folder = artifact_digest(&tree(folder.path())).unwrap();
    let packed = tar(&entries());
    assert_eq!(artifact_digest(&gz(&folder, &packed)).unwrap(), of_folder);
    let zst = folder.path().join("a.tar.zst");
    let (first, second) = packed.split_at(700);
    let mut frames = Vec::new();
    for part in [first, second] {
        // A frame that is skipped in between, as parallel packers write them.
        frames.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        frames.extend(ruzstd::encoding::compress_to_vec(
            part,
            ruzstd::encoding::CompressionLevel::Fastest,
        ));
    }
    std::fs::write(&zst, frames).unwrap();
    assert_eq!(artifact_digest(&zst).unwrap(), of_folder);
}

#[test]
fn every_part_of_the_tree_is_in_the_digest_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = tree(folder.path());
    let mut seen = vec![artifact_digest(&root).unwrap()];
    let mut differs = |what: &str| {
        let now = artifact_digest(&root).unwrap();
        assert!(!seen.contains(&now), "{what} is not in the digest");
        seen.push(now);
    };
    std::fs::write(root.join("read.me"), "texu").unwrap();
    differs("content");
    std::fs::rename(root.join("read.me"), root.join("read.you")).unwrap();
    differs("name");
    let mode = |m| std::fs::Permissions::from_mode(m);
    std::fs::set_permissions(root.join("bin/web"), mode(0o644)).unwrap();
    differs("executable bit");
    std::fs::remove_dir(root.join("empty")).unwrap();
    differs("empty folder");
    std::fs::remove_file(root.join("bin/link")).unwrap();
    symlink("../read.you", root.join("bin/link")).unwrap();
    differs("target of a link");
    let last = seen.pop().unwrap();
    std::fs::set_permissions(root.join("bin/web"), mode(0o600)).unwrap();
    let touched = std::fs::File::options().write(true).open(root.join("read.you")).unwrap();
    touched.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(artifact_digest(&root).unwrap(), last, "mode or time are in the digest");
}

#[test]
fn what_leads_out_of_an_archive_is_refused() {
    let names = ["../../etc/cron.d/x", "/abs", "C:\\x", "..\\x", "a/./../../b", "a/../b"];
    for name in names {
        let why = refused(&[file("fine", b"1"), file(name, b"x")]);
        assert!(
            ["leads out", "absolute", "backslash"].iter().any(|w| why.contains(w)),
            "{name}: {why}"
        );
    }
    let links = [
        ("l", "/etc/passwd"),
        ("l", "../x"),
        ("a/l", "../../x"),
        ("l", "a/../../x"),
        ("l", "a/.."),
        ("l", ""),
    ];
    for (name, target) in links {
        let why = refused(&[link(name, target)]);
        assert!(why.contains("link"), "{name} -> {target}: {why}");
    }
    // Through a link that was unpacked before.
    let why = refused(&[link("d", "e"), file("d/x", b"x")]);
    assert!(why.contains("beneath something that is not a folder"), "{why}");
    let hard = Raw { kind: b'1', ..link("h", "../../etc/passwd") };
    assert!(refused(&[hard]).contains("leads out"));
    let hard = Raw { kind: b'1', ..link("h", "d") };
    assert!(refused(&[link("d", "e"), hard]).contains("hard link to no file"));
}

#[test]
fn devices_set_ids_and_duplicates_are_refused() {
    for kind in [b'3', b'4', b'6'] {
        let why = refused(&[Raw { kind, ..file("dev", b"") }]);
        assert!(why.contains("device or pipe"), "{why}");
    }
    for mode in [0o4755, 0o2755] {
        let why = refused(&[Raw { mode, ..file("su", b"x") }]);
        assert!(why.contains("set-user-id"), "{why}");
    }
    for second in ["a", "./a", "A", "a/b"] {
        let why = refused(&[file("a", b"1"), file(second, b"2")]);
        assert!(why.contains("twice") || why.contains("beneath"), "{second}: {why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let root = tree(folder.path());
    let mode = std::fs::Permissions::from_mode(0o4755);
    std::fs::set_permissions(root.join("bin/web"), mode).unwrap();
    let why = artifact_digest(&root).unwrap_err().to_string();
    assert!(why.contains("set-user-id"), "{why}");
    std::fs::remove_file(root.join("bin/web")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("bin/web")).unwrap();
    let why = artifact_digest(&root).unwrap_err().to_string();
    assert!(why.contains("socket"), "{why}");
}

#[test]
fn bombs_and_damage_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let zeros = vec![0_u8; 40 << 20];
    let bomb = gz(&folder, &tar(&[file("zeros", &zeros)]));
    assert!(matches!(artifact_digest(&bomb), Err(ArtifactError::Limit { .. })));
    let deep = "d/".repeat(45) + "x";
    let deeper = format!("{deep}/{deep}");
    assert!(artifact_digest(&gz(&folder, &tar(&[file(&deep, b"")]))).is_ok());
    let split: Vec<&str> = deeper.splitn(46, '/').collect();
    assert_eq!(split.len(), 46);
    let nested = folder.path().join("nested");
    std::fs::create_dir_all(nested.join(&deeper)).unwrap();
    let why = artifact_digest(&nested).unwrap_err().to_string();
    assert!(why.contains("deeper than"), "{why}");
    let good = gz(&folder, &tar(&entries()));
    let bytes = std::fs::read(&good).unwrap();
    for cut in [10, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&good, &bytes[..cut]).unwrap();
        assert!(matches!(artifact_digest(&good), Err(ArtifactError::Io { .. })), "{cut}");
    }
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "x").unwrap();
    assert!(matches!(artifact_digest(&plain), Err(ArtifactError::Kind { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn staging_checks_digest_and_start_command_and_leaves_nothing_half_done() {
    let world = World::start().await;
    world.claim(1).await.unwrap();
    let artifact = world.web("v1", "v1");
    let command = service().command;
    let digest = world.stage(&artifact, &command).await.unwrap();
    let staged = world.home.host().join("artifacts").join(digest.hex());
    assert_eq!(artifact_digest(&staged).unwrap(), digest);
    let mode = std::fs::metadata(staged.join("start")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o555);
    assert_eq!(world.stage(&artifact, &command).await.unwrap(), digest);

    for (word, why) in [
        ("./other", "is missing"),
        ("../start", "leads out"),
        ("no-such-program-anywhere", "in none of the folders of PATH"),
    ] {
        let (status, doc) = refusal(world.stage(&artifact, &[word.to_owned()]).await);
        assert_eq!((status, doc.error.code.as_str()), (422, IMPOSSIBLE));
        assert!(doc.error.message.contains(why), "{}", doc.error.message);
    }
    world.stage(&artifact, &["sh".to_owned()]).await.unwrap();

    let stage = tidegate_wire::host::Stage {
        home: crate::support::HOME.to_owned(),
        fence: tidegate_core::Fence::new(1, 1),
        path: artifact.display().to_string(),
        digest: tidegate_core::Digest::of(b"something else"),
        command: command.clone(),
    };
    let answer: Result<serde_json::Value, _> =
        world.client().post("/v1/stage", &stage, crate::support::BOUND).await;
    let (status, doc) = refusal(answer);
    assert_eq!((status, doc.error.code.as_str()), (422, DIGEST_CHANGED));
    let left: Vec<_> = std::fs::read_dir(staged.parent().unwrap()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");

    std::fs::write(artifact.join("data"), "plain").unwrap();
    let (status, doc) = refusal(world.stage(&artifact, &["./data".to_owned()]).await);
    assert_eq!(status, 422);
    assert!(doc.error.message.contains("not executable"), "{}", doc.error.message);
}
