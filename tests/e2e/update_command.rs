//! `culvert update` with a feed of the user: what is installed, and what is refused with its
//! reason while nothing changes.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::support::feed::{FeedKey, FeedServer, InstalledProgram, manifest, program, run};
use crate::support::{program as installed_program, program_file, skipped};

const OWN: &str = env!("CARGO_PKG_VERSION");

#[test]
fn the_newest_version_replaces_the_program_and_the_old_one_is_kept() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let new = program("9.9.9");
    feed.publish(&key, &manifest(7, "9.9.9", &new), &new);
    let lines = feed.lines(&key);

    let (code, out, err) = run(installed.update(&lines, &["--check"]));
    assert_eq!((code, err.as_str()), (11, ""));
    assert_eq!(out, format!("Update available: {OWN} to 9.9.9, {} bytes\n", new.len()));
    assert!(installed.is_original() && installed.names() == ["culvert"], "{:?}", installed.names());
    assert_eq!(feed.requested(), ["/feed/stable/manifest", "/feed/stable/manifest.sig"]);

    fs::set_permissions(installed.path(), Permissions::from_mode(0o750)).unwrap();
    let (code, out, err) = run(installed.update(&lines, &[]));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let path = installed.path();
    assert!(out.contains(&format!("\nUpdated to 9.9.9: {}\n", path.display())), "{out}");
    assert!(out.contains("after a restart"), "{out}");
    assert_eq!(installed.read("culvert").unwrap(), new);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o750);
    let kept = fs::read(installed.dir().join("bin/.culvert.old")).unwrap();
    assert!(kept == fs::read(env!("CARGO_BIN_EXE_culvert")).unwrap());
    assert_eq!(installed.names(), [".culvert.old", ".culvert.update", "culvert"]);
    let record = installed.read(".culvert.update").unwrap();
    assert!(record.contains(&format!("from {OWN}\nto 9.9.9\nserial 7\nstarts 0\n")), "{record}");
}

#[test]
fn nothing_newer_is_success() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    for version in [OWN, "0.0.1"] {
        let new = program(version);
        feed.publish(&key, &manifest(1, version, &new), &new);
        for args in [&["--check"][..], &["--yes"], &[]] {
            let (code, out, err) = run(installed.update(&feed.lines(&key), args));
            let expected =
                format!("No update: {OWN} is up to date: the channel stable has {version}\n");
            assert_eq!((code, out, err.as_str()), (0, expected, ""));
        }
    }
    // The channel of the command is in place of that of the configuration.
    let new = program("9.9.9");
    let beta = manifest(1, "9.9.9", &new).replace("channel stable", "channel beta");
    feed.put("beta/manifest", &beta);
    feed.put("beta/manifest.sig", key.sign(&beta));
    feed.put("beta/new", &new);
    let lines = feed.lines(&key) + "  update_channel: unstable\n";
    let (code, ..) = run(installed.update(&lines, &["--check", "--channel", "beta"]));
    assert_eq!(code, 11);
    let (code, _, err) = run(installed.update(&lines, &["--check"]));
    assert!(code == 1 && err.contains("/unstable/manifest: the server returned 404"), "{err}");
}

/// A manifest, the key that signs it, the program that is served, and the expected reason.
type Refusal<'a> = (String, &'a FeedKey, String, &'a str);

#[test]
fn every_bad_manifest_is_refused_and_nothing_changes() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let (new, other) = (program("9.9.9"), FeedKey::new(2));
    let good = manifest(7, "9.9.9", &new);
    let record = "culvert-update-record 1\nfrom 0.0.1\nto 0.0.2\nserial 6\n";
    installed.beside(".culvert.update", record, 0o644);
    let replaced = |old: &str, new: &str| {
        assert!(good.contains(old), "{old}");
        good.replace(old, new)
    };
    let size = format!(" {} ", new.len());
    let cases: [Refusal; 12] = [
        (good.clone(), &other, new.clone(), "another key signed it"),
        (replaced("serial 7", "serial 5"), &key, new.clone(), "serial 5 is older than 6"),
        (good.clone() + "expires 2026-11-02T00:00:00Z\n", &key, new.clone(), "it has expired"),
        (replaced("channel stable", "channel beta"), &key, new.clone(), "not for stable"),
        (replaced("file ", "file other-"), &key, new.clone(), "9.9.9 has no file for"),
        (good.clone() + "min-from 5.0.0\n", &key, new.clone(), "needs at least 5.0.0"),
        (replaced("update 1", "update 2"), &key, new.clone(), "newer version by hand"),
        (replaced(" new", " ../../new"), &key, new.clone(), "is not a file name"),
        (good.clone(), &key, new.clone() + "#", "is larger than"),
        (good.clone(), &key, new[..new.len() - 1].to_owned(), "the manifest has"),
        (good.clone(), &key, new.replace("9.9.9", "9.9.8"), "SHA-256 is not that"),
        (replaced(&size, " 99999999 "), &key, new.clone(), "the manifest has 99999999"),
    ];
    for (text, signer, served, expected) in cases {
        feed.publish(signer, &text, &served);
        assert_refused(&installed, &feed, &key, expected);
    }
    // Altered or cut off after it was signed.
    for text in [replaced("serial 7", "serial 8"), good[..good.len() - 4].to_owned()] {
        feed.publish(&key, &good, &new);
        feed.put("stable/manifest", text);
        assert_refused(&installed, &feed, &key, "altered, cut off");
    }
    feed.put("stable/manifest.sig", "a web page");
    assert_refused(&installed, &feed, &key, "not one of signify or usign");
    feed.put("stable/manifest", "#".repeat(65_537));
    assert_refused(&installed, &feed, &key, "larger than 65536 bytes");
    assert_eq!(installed.read(".culvert.update").unwrap(), record);
}

#[test]
fn a_program_that_does_not_run_here_is_not_installed() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    for (new, expected) in [
        ("\x7fELF of another machine".to_owned(), "the new program does not run here: "),
        (program("9.9.8"), "not version 9.9.9: it prints \"culvert version 9.9.8\""),
        (program("9.9.9").replace(";; *", "; exit 1;; *"), "the new program is not version"),
    ] {
        feed.publish(&key, &manifest(7, "9.9.9", &new), &new);
        assert_refused(&installed, &feed, &key, expected);
    }
}

#[track_caller]
fn assert_refused(installed: &InstalledProgram, feed: &FeedServer, key: &FeedKey, expected: &str) {
    let before = installed.names();
    let (code, out, err) = run(installed.update(&feed.lines(key), &["--yes"]));
    assert!(code == 1 && err.contains(expected), "{expected}: {code} {out}{err}");
    assert!(err.starts_with("ERROR:  ") && err.lines().count() == 1, "{err}");
    assert!(installed.is_original(), "{expected}");
    assert_eq!(installed.names(), before, "{expected}");
}

#[test]
fn without_a_feed_nothing_is_sent_and_the_remedy_is_named() {
    let installed = InstalledProgram::new();
    for args in [&[][..], &["--check"], &["--yes"]] {
        let (code, out, err) = run(installed.update("  update_check: true\n", args));
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains("no update feed is configured: set update_url"), "{err}");
    }
    let key = FeedKey::new(1).public();
    for (lines, expected) in [
        ("  update_url: https://feed.example/x\n".to_owned(), "needs update_key"),
        (format!("  update_url: feed.example\n  update_key: {key}\n"), "must start with https://"),
        (format!("  update_url: 'http://['\n  update_key: {key}\n"), "update_url: "),
        (
            "  update_url: http://a.example\n  update_key: secret\n".to_owned(),
            "is not a public key",
        ),
    ] {
        let (code, _, err) = run(installed.update(&lines, &[]));
        assert!(code == 1 && err.contains(expected), "{expected}: {err}");
    }
}

#[test]
fn a_rollback_restores_the_old_program_whatever_its_serial() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let (code, _, err) = run(installed.update("", &["--rollback"]));
    assert!(code == 1 && err.contains("no older program is kept"), "{err}");
    let old = program("0.0.1");
    installed.program_beside(".culvert.old", &old);
    let record = format!("culvert-update-record 1\nfrom 0.0.1\nto {OWN}\nserial 9\nstarts 2\n");
    installed.beside(".culvert.update", &record, 0o644);
    let (code, out, err) = run(installed.update("", &["--rollback"]));
    assert_eq!((code, err.as_str()), (0, ""));
    let path = installed.path().display().to_string();
    assert!(out.starts_with(&format!("Restored 0.0.1: {path}\n")), "{out}");
    assert_eq!(installed.read("culvert").unwrap(), old);
    // What was rolled back is not installed again, until a newer manifest.
    fs::remove_file(installed.path()).unwrap();
    program_file::copy(env!("CARGO_BIN_EXE_culvert"), installed.path());
    let new = program("9.9.9");
    feed.publish(&key, &manifest(9, "9.9.9", &new), &new);
    let (code, out, _) = run(installed.update(&feed.lines(&key), &[]));
    assert!(code == 0 && out.contains("9.9.9 was replaced by"), "{out}");
    feed.publish(&key, &manifest(10, "9.9.9", &new), &new);
    let (code, out, err) = run(installed.update(&feed.lines(&key), &[]));
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(installed.read("culvert").unwrap(), new);
}

#[test]
fn the_next_key_of_a_manifest_signs_later_ones() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let next = FeedKey::new(2);
    let record = format!("culvert-update-record 1\nserial 3\nkey {}\n", next.public());
    let new = program("9.9.9");
    feed.publish(&next, &manifest(4, "9.9.9", &new), &new);
    let (code, _, err) = run(installed.update(&feed.lines(&key), &["--check"]));
    assert!(code == 1 && err.contains("another key"), "{err}");
    installed.beside(".culvert.update", &record, 0o644);
    assert_eq!(run(installed.update(&feed.lines(&key), &["--check"])).0, 11);
    // Not a record that other users may write.
    installed.beside(".culvert.update", &record, 0o666);
    assert_eq!(run(installed.update(&feed.lines(&key), &["--check"])).0, 1);
}

#[test]
fn one_update_at_a_time_and_the_rest_of_a_killed_one_is_removed() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let new = program("9.9.9");
    feed.publish(&key, &manifest(7, "9.9.9", &new), &new);
    let dir = File::open(installed.path().parent().unwrap()).unwrap();
    dir.lock().unwrap();
    assert_refused(&installed, &feed, &key, "another update is running");
    drop(dir);
    installed.beside(".culvert.new", "half", 0o600);
    installed.beside(".culvert.update.new", "half", 0o600);
    installed.beside(".culvert.old", "older", 0o755);
    let (code, out, err) = run(installed.update(&feed.lines(&key), &[]));
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(installed.names(), [".culvert.old", ".culvert.update", "culvert"]);
}

#[test]
fn a_directory_of_another_user_is_named() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let new = program("9.9.9");
    feed.publish(&key, &manifest(7, "9.9.9", &new), &new);
    let bin = installed.path().parent().unwrap().to_owned();
    let mut command = installed.update(&feed.lines(&key), &["--yes"]);
    if culvert::sys::own_uid() == 0 {
        // The file with the key would be readable for root only.
        chown(installed.dir().join("update.yml"), Some(65_534), Some(65_534)).unwrap();
        command.uid(65_534).gid(65_534);
    } else {
        fs::set_permissions(&bin, Permissions::from_mode(0o555)).unwrap();
    }
    let (code, _, err) = run(command);
    fs::set_permissions(&bin, Permissions::from_mode(0o755)).unwrap();
    let expected = format!("cannot change {}: Permission denied", bin.display());
    assert!(code == 1 && err.contains(&expected) && err.contains("sudo"), "{err}");
    assert!(installed.is_original() && installed.names() == ["culvert"]);
}

#[test]
fn a_full_disk_and_a_read_only_one_are_named() {
    let Some(unshare) = installed_program("unshare") else { return };
    let allowed = Command::new(&unshare).args(["-m", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        return skipped("unshare -m is not allowed");
    }
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let new = program("9.9.9") + &"#".repeat(1 << 20);
    feed.publish(&key, &manifest(7, "9.9.9", &new), &new);
    let size = fs::metadata(installed.path()).unwrap().len();
    let in_a_mount = |options: &str, after: &str| {
        let update = installed.update(&feed.lines(&key), &["--yes"]);
        let words: Vec<String> = std::iter::once(update.get_program())
            .chain(update.get_args())
            .map(|word| word.to_str().unwrap().to_owned())
            .collect();
        let bin = installed.path().parent().unwrap().display().to_string();
        // The file system of the program has the program and a little room.
        let script = format!(
            "mount -t tmpfs -o {options} tmpfs \"$1\" && cp \"$2\" \"$1/culvert\" && {after} shift 2 \
             && exec \"$@\""
        );
        let copy = installed.path().with_file_name("copy");
        program_file::copy(installed.path(), &copy);
        let hidden = installed.dir().join("copy");
        fs::rename(&copy, &hidden).unwrap();
        let mut command = Command::new(&unshare);
        command.args(["-m", "sh", "-c", &script, "sh", &bin]).arg(&hidden).args(words);
        run(command)
    };
    let (code, _, err) = in_a_mount(&format!("size={}", size + 512 * 1024), "");
    assert!(code == 1 && err.contains("bytes free and needs"), "{err}");
    assert!(err.contains("free some space"), "{err}");
    let (code, _, err) = in_a_mount("size=80%", "mount -o remount,ro \"$1\" &&");
    assert!(code == 1 && err.contains("update the image of this machine"), "{err}");
    assert!(err.contains("Read-only file system"), "{err}");
    assert!(installed.is_original());
}

#[test]
fn a_program_of_a_package_is_left_to_its_manager() {
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let new = program("9.9.9");
    feed.publish(&key, &manifest(7, "9.9.9", &new), &new);
    let managers = installed.dir().join("managers");
    fs::create_dir(&managers).unwrap();
    program_file::write(managers.join("opkg"), "#!/bin/sh\necho \"culvert - 0.1.0-1\"\n");
    let mut command = installed.update(&feed.lines(&key), &["--yes"]);
    command.env("PATH", path_with(&managers));
    let (code, _, err) = run(command);
    assert!(code == 1 && err.contains("update it with: opkg upgrade culvert"), "{err}");
    // To check is allowed.
    let mut command = installed.update(&feed.lines(&key), &["--check"]);
    command.env("PATH", path_with(&managers));
    assert_eq!(run(command).0, 11);
    assert!(installed.is_original());
}

#[test]
fn the_first_program_of_a_container_is_left_to_its_image() {
    let Some(unshare) = installed_program("unshare") else { return };
    let container = ["-rpf", "--mount-proc"];
    let allowed = Command::new(&unshare).args(container).arg("true").status();
    if !allowed.is_ok_and(|status| status.success()) {
        return skipped("unshare -rpf is not allowed");
    }
    let (feed, key, installed) = (FeedServer::start(), FeedKey::new(1), InstalledProgram::new());
    let new = program("9.9.9");
    feed.publish(&key, &manifest(7, "9.9.9", &new), &new);
    let update = installed.update(&feed.lines(&key), &["--yes"]);
    let mut command = Command::new(&unshare);
    command.args(container).arg(update.get_program()).args(update.get_args());
    let (code, _, err) = run(command);
    assert!(
        code == 1 && err.contains("this container runs the program: update its image"),
        "{err}"
    );
    assert!(installed.is_original() && installed.names() == ["culvert"]);
}

fn path_with(dir: &Path) -> String {
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default())
}
