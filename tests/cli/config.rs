//! Configuration files for a user: where they are found, how several merge, the commands that
//! change one, and that a file is never left half-written.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use culvert::config::edit::{self, Setting};
use culvert::config::file;
use culvert::config::loaded::Loaded;
use culvert::config::upgrade::upgraded;
use culvert::proto::secret::Secret;

use crate::support::home::{CULVERT, Home};
use crate::support::{program_file, skipped};

/// Returns the files of `tests/cli/configs/KIND` with their texts.
fn configs(kind: &str) -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/configs").join(kind);
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> =
        paths.map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect();
    assert!(files.len() >= 4, "{files:?}");
    files
}

/// Returns the meaning of a file, to compare: endpoints, options, and the secrets, which are
/// not printed by default.
fn meaning(text: &str, name: &str) -> (Vec<culvert::config::Endpoint>, String) {
    let loaded = file::parse(text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
    let Loaded { mut agent, log, .. } = loaded;
    agent.version = String::new();
    let endpoints = std::mem::take(&mut agent.endpoints);
    let secrets = [&agent.authtoken, &agent.api_key, &agent.proxy_url].map(Secret::expose);
    (endpoints, format!("{agent:?} {log:?} {secrets:?}"))
}

/// Returns the comments of a text, repetitions included.
fn comments(text: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let at = if line.trim_start().starts_with('#') { line.find('#') } else { line.find(" #") };
        at.map(|at| line[at..].trim().to_owned()).filter(|comment| !comment.contains('"'))
    };
    let mut comments: Vec<String> = text.lines().filter_map(of_line).collect();
    comments.sort();
    comments
}

#[test]
fn an_upgraded_file_means_what_it_meant_and_keeps_its_comments() {
    let mut upgrades = 0;
    for (name, old) in configs("good") {
        if old.contains("labels:") {
            let why = upgraded(&old, "").expect_err("labels cannot be upgraded");
            assert!(why.contains("has labels"), "{why}");
            continue;
        }
        let (from, to, new, remarks) = upgraded(&old, "").expect(&name);
        let Some(new) = new else {
            assert_eq!((from, to), (3, 3), "{name}");
            continue;
        };
        upgrades += 1;
        assert_eq!((from, to), (2, 3), "{name}");
        assert_eq!(meaning(&new, &name), meaning(&old, &name), "{name}\n{new}");
        if remarks.iter().all(|remark| !remark.contains("comments are lost")) {
            for comment in comments(&old) {
                assert!(new.contains(&comment), "{name}: {comment:?} is gone\n{new}");
            }
        }
        assert_eq!(old.contains("\r\n"), new.contains("\r\n"), "{name}");
        assert_eq!(old.starts_with('\u{feff}'), new.starts_with('\u{feff}'), "{name}");
        let (_, _, again, _) = upgraded(&new, "").expect("an upgraded file");
        assert_eq!(again, None, "{name}");
    }
    assert!(upgrades > 10, "{upgrades} files were upgraded");
}

#[test]
fn files_of_agent_2_get_to_both_versions_with_one_meaning() {
    for (name, old) in configs("v1") {
        assert!(file::parse(&old).is_err(), "{name} has a version that is read");
        let two = upgraded(&old, "2").expect(&name).2.expect("a change");
        let three = upgraded(&old, "3").expect(&name).2.expect("a change");
        let by_steps = upgraded(&two, "3").expect(&name).2.expect("a change");
        assert_eq!(meaning(&two, &name), meaning(&three, &name), "{name}");
        assert_eq!(meaning(&two, &name), meaning(&by_steps, &name), "{name}");
        for comment in comments(&old) {
            assert!(three.contains(&comment), "{name}: {comment:?} is gone\n{three}");
        }
    }
}

#[test]
fn a_set_option_changes_one_value_in_every_file() {
    for (name, old) in configs("good") {
        for (setting, value) in [
            (Setting::Authtoken, "2new_token"),
            (Setting::ApiKey, "ak_1"),
            (Setting::ConnectUrl, "new.example.com:4443"),
        ] {
            let new = match edit::edited(&old, setting, &Secret::new(value)) {
                Ok(new) => new,
                Err(why) => panic!("{name}: {why}"),
            };
            let loaded = file::parse(&new).unwrap_or_else(|error| panic!("{name}: {error}"));
            let agent = loaded.agent;
            let got = match setting {
                Setting::Authtoken => agent.authtoken.expose(),
                Setting::ApiKey => agent.api_key.expose(),
                Setting::ConnectUrl => &agent.connect_url,
            };
            assert_eq!(got, value, "{name}");
            assert_eq!(comments(&new), comments(&old), "{name}");
            assert_eq!(meaning(&new, &name).0, meaning(&old, &name).0, "{name}");
            let again = edit::edited(&new, setting, &Secret::new(value));
            assert_eq!(again.as_ref(), Ok(&new), "{name}");
        }
    }
}

#[test]
fn options_are_set_by_their_names_in_each_version() {
    let home = Home::new();
    let two = home.file("two.yml", "version: \"2\"\nauthtoken: t\ntunnels: {}\n");
    let said = home.run(&format!("config add-connect-url e.example.com --config {two}")).fine();
    assert_eq!(said, format!("Connect URL saved to configuration file: {two}\n"));
    home.run(&format!("config add-api-key KEY --config {two}")).fine();
    assert_eq!(
        home.read("two.yml"),
        "version: \"2\"\napi_key: KEY\nserver_addr: e.example.com\nauthtoken: t\ntunnels: {}\n"
    );
    home.run("config add-server-addr e.example.com:1").fine();
    assert_eq!(
        home.read(".config/ngrok/ngrok.yml"),
        "version: \"3\"\nagent:\n    connect_url: e.example.com:1\n"
    );
    home.run("config add-api-key 123").fine();
    assert!(home.read(".config/ngrok/ngrok.yml").contains("    api_key: \"123\"\n"));
    home.run("config check").fine();
    let said = home.run("config add-connect-url https://x.example").refused(2);
    assert!(said.contains("write HOST:PORT"), "{said}");

    // A tutorial's file, with the token only.
    let bare = home.file("bare.yml", "authtoken: old\n");
    home.run(&format!("config add-authtoken new --config {bare}")).fine();
    assert_eq!(home.read("bare.yml"), "version: \"2\"\nauthtoken: new\n");
    let old = home.file("old.yml", "authtoken: old\nbind_tls: true\n");
    let said = home.run(&format!("config add-authtoken new --config {old}")).refused(1);
    assert!(said.contains("config upgrade"), "{said}");

    // The new token would have no effect, or would be one of two.
    let apart = home.file("apart.yml", "version: 3\nagent: {authtoken_file: /no/such}\n");
    let said = home.run(&format!("config add-authtoken new --config {apart}")).refused(1);
    assert!(said.contains("conflicts with authtoken"), "{said}");
    let said = home.run(&format!("config add-authtoken new --config {two},{bare}")).refused(2);
    assert!(said.contains("one file"), "{said}");
}

#[test]
fn an_upgrade_is_shown_and_leaves_the_old_file() {
    let home = Home::new();
    let old = "version: \"2\"\nauthtoken: 2hush # mine\nregion: eu\ntunnels:\n  web: {proto: http, addr: 80}\n";
    let file = home.file("f.yml", old);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let said = home.run(&format!("config upgrade --dry-run --config {file}")).fine();
    assert!(said.contains("+agent:\n") && said.contains("-region: eu\n"), "{said}");
    assert!(said.contains("Nothing was written"), "{said}");
    assert!(!said.contains("hush"), "{said}");
    assert_eq!((home.read("f.yml").as_str(), home.names("").len()), (old, 1));

    let said = home.run(&format!("config upgrade --config {file}")).fine();
    assert!(said.contains(&format!("from version 2 to 3: {file}\n")), "{said}");
    assert!(said.contains("f.yml.bak\n") && said.contains("region has no place"), "{said}");
    assert_eq!(
        home.read("f.yml"),
        "version: 3\nagent:\n    authtoken: 2hush # mine\n# region: eu\ntunnels:\n  web: {proto: http, addr: 80}\n"
    );
    assert_eq!(home.read("f.yml.bak"), old);
    for name in ["f.yml", "f.yml.bak"] {
        assert_eq!(fs::metadata(home.path(name)).unwrap().mode() & 0o777, 0o640, "{name}");
    }
    let said = home.run(&format!("config upgrade --config {file}")).fine();
    assert!(said.starts_with("Nothing to do"), "{said}");
    let said = home.run(&format!("config upgrade 2 --config {file}")).refused(1);
    assert!(said.contains("cannot go back to 2") && said.contains("Nothing was changed"), "{said}");
    assert!(home.run("config upgrade").refused(1).contains("does not exist"));
    assert!(home.run("config upgrade 2 3").refused(2).contains("upgrade"));

    // The next backup has another name.
    home.file("f.yml", old);
    home.run(&format!("config upgrade --config {file}")).fine();
    assert_eq!(home.names(""), ["f.yml", "f.yml.bak", "f.yml.bak.1"]);
}

#[test]
fn an_old_place_is_read_with_a_warning_and_left_with_relocate() {
    let home = Home::new();
    home.file(".ngrok2/ngrok.yml", "authtoken: t\n");
    let said = home.run("config check").refused(1);
    assert!(said.contains(".ngrok2/ngrok.yml: version is missing"), "{said}");
    let said = home.run("config upgrade --relocate --dry-run").fine();
    assert!(said.contains("Would upgrade"), "{said}");
    assert_eq!(home.names(""), [".ngrok2"]);
    let said = home.run("config upgrade 2").fine();
    assert!(said.contains(".ngrok2/ngrok.yml"), "{said}");
    let said = home.run("config check").fine();
    assert!(said.contains("is at the path of agent 2; \"culvert config upgrade --relocate\""));
    home.run("config upgrade --relocate").fine();
    assert_eq!(home.names(".ngrok2"), ["ngrok.yml.bak", "ngrok.yml.bak.1"]);
    let new = home.read(".config/ngrok/ngrok.yml");
    assert!(new.starts_with("version: 3\n") && new.contains("    authtoken: t\n"), "{new}");
    assert_eq!(
        fs::metadata(home.path(".config/ngrok/ngrok.yml")).unwrap().mode() & 0o777,
        0o600,
        "a token belongs to its owner"
    );
    // A rename in one directory.
    fs::rename(home.path(".config/ngrok/ngrok.yml"), home.path(".config/ngrok/culvert.yml"))
        .unwrap();
    home.run("config upgrade --relocate").fine();
    assert_eq!(home.names(".config/ngrok"), ["ngrok.yml"]);
    // Only the path is wrong; and no file is overwritten.
    let other = home.file("other.yml", "version: 3\n");
    let said = home.run(&format!("config upgrade --relocate --config {other}")).refused(1);
    assert!(said.contains("it exists already"), "{said}");
    fs::remove_dir_all(home.path(".config")).unwrap();
    home.run(&format!("config upgrade --relocate --config {other}")).fine();
    assert_eq!(home.read(".config/ngrok/ngrok.yml"), "version: 3\n");
    assert!(!home.path("other.yml").exists());
}

#[test]
fn files_are_found_in_their_order() {
    let home = Home::new();
    let found = |variables: &[(&str, &str)]| {
        let said = home.run_with("config check", variables).fine();
        let path = said.lines().next().unwrap().strip_prefix("Valid configuration file at ");
        let path = PathBuf::from(path.unwrap());
        path.strip_prefix(home.dir()).unwrap_or(&path).display().to_string()
    };
    home.file(".ngrok2/ngrok.yml", "version: 2\n");
    assert_eq!(found(&[]), ".ngrok2/ngrok.yml");
    home.file(".config/ngrok/ngrok.yml", "version: 3\n");
    assert_eq!(found(&[]), ".config/ngrok/ngrok.yml");
    home.file(".config/ngrok/culvert.yml", "version: 3\n");
    assert_eq!(found(&[]), ".config/ngrok/culvert.yml");
    home.file("xdg/ngrok/ngrok.yml", "version: 3\n");
    let xdg = home.path("xdg").display().to_string();
    assert_eq!(found(&[("XDG_CONFIG_HOME", &xdg)]), "xdg/ngrok/ngrok.yml");
    let named = home.file("named.yml", "version: 3\n");
    assert_eq!(found(&[("NGROK_CONFIG", &named)]), "named.yml");
    let ours = home.file("ours.yml", "version: 3\n");
    assert_eq!(found(&[("NGROK_CONFIG", &named), ("CULVERT_CONFIG", &ours)]), "ours.yml");
    // A change is written to the file that was found.
    home.run("config add-authtoken t").fine();
    assert!(home.read(".config/ngrok/culvert.yml").contains("authtoken: t"));
    assert!(!home.read(".config/ngrok/ngrok.yml").contains("authtoken"));
}

#[test]
fn faults_of_several_files_are_all_shown() {
    let home = Home::new();
    let a = home.file("a.yml", "version: 3\nagent: {log_levl: x}\n");
    let b = home.file("b.yml", "version: 3\n");
    let c = home.file("c.yml", "version: 2\n");
    let outcome = home.run(&format!("config check --config {a},{b} --config {c}"));
    assert_eq!(outcome.out, format!("Valid configuration file at {b}\n"));
    let said = outcome.failed(1);
    assert!(said.contains(&format!("{a}:2:9: agent.log_levl is not a known key")), "{said}");
    assert!(said.contains(&format!("{c}:1:10: version differs from the files")), "{said}");
}

#[test]
fn a_memory_limit_that_no_start_would_take_is_not_valid() {
    let home = Home::new();
    let file = home.file("small.yml", "version: 3\nagent: {memory_limit: 2MiB}\n");
    let said = home.run(&format!("config check --config {file}")).refused(1);
    assert!(
        said.contains(
            "agent.memory_limit of 2097152 bytes is too small: the smallest that works is"
        ),
        "{said}"
    );
    let file = home.file("enough.yml", "version: 3\nagent: {memory_limit: 8MiB}\n");
    home.run(&format!("config check --config {file}")).fine();
}

#[test]
fn a_token_can_have_a_file_of_its_own() {
    let home = Home::new();
    let token = home.file("token", "  2hush_token\n");
    let file = format!("version: 3\nagent: {{authtoken_file: {token}}}\n");
    let loaded = file::parse(&file).unwrap();
    assert_eq!(loaded.agent.authtoken.expose(), "2hush_token");
    for (text, expected) in [("", "is empty"), ("a b", "more than one word")] {
        fs::write(&token, text).unwrap();
        let error = file::parse(&file).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    fs::write(&token, "x".repeat(5000)).unwrap();
    assert!(file::parse(&file).unwrap_err().to_string().contains("too long"));
}

#[test]
fn the_editor_gets_the_file_and_what_it_left_is_checked() {
    let home = Home::new();
    let editor = |script: &str| {
        let path = home.path("editor");
        program_file::write(&path, &format!("#!/bin/sh\n{script}\n"));
        path.display().to_string()
    };
    let run = |script: &str| home.run_with("config edit", &[("EDITOR", &editor(script))]);

    // Read and not changed.
    let said = run("test \"$(stat -c %a \"$1\")\" = 600").fine();
    assert_eq!(said, "Nothing was written, no file was created\n");
    assert!(!home.path(".config/ngrok/ngrok.yml").exists());

    let said = run("printf 'version: 3\\n' > \"$1\"").fine();
    assert!(said.starts_with("Valid configuration file at "), "{said}");
    assert_eq!(fs::metadata(home.path(".config/ngrok/ngrok.yml")).unwrap().mode() & 0o777, 0o600);

    let said = run("printf 'version: 3\\nagents: {}\\n' > \"$1\"").failed(1);
    assert!(said.contains(":2:1: agents is not a known key; did you mean agent?"), "{said}");
    // An invalid file is opened too, and arguments of the editor reach it.
    let with_arguments =
        format!("{} -x", editor("test \"$1\" = -x && printf 'version: 3\\n' > \"$2\""));
    home.run_with("config edit", &[("EDITOR", &with_arguments)]).fine();
    assert!(run("exit 3").failed(1).contains("failed with status 3"));
    let said = home.run_with("config edit", &[("EDITOR", "/no/such/editor")]).failed(1);
    assert!(said.contains("failed with status 127"), "{said}");
    let said = home.run_with("config edit", &[("PATH", "/no")]).failed(1);
    assert!(said.contains("set EDITOR"), "{said}");

    // Without EDITOR: nano, else vi.
    for name in ["vi", "nano"] {
        let path = home.file(&format!("bin/{name}"), &format!("#!/bin/sh\necho {name} ran\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let bin = format!("{}:/bin:/usr/bin", home.path("bin").display());
        let said = home.run_with("config edit", &[("PATH", &bin)]).fine();
        assert!(said.starts_with(&format!("{name} ran\nValid ")), "{said}");
    }
}

#[test]
fn a_full_disk_changes_nothing() {
    let home = Home::new();
    let dir = home.path("disk");
    fs::create_dir(&dir).unwrap();
    // In a mount namespace of its own: a disk of 64 KiB, with a file, and full.
    let script = r#"
        mount -t tmpfs -o size=64k,mode=700 tmpfs disk || exit 77
        printf 'version: 2\nauthtoken: old # mine\n' > disk/f.yml
        cp disk/f.yml before.yml
        dd if=/dev/zero of=disk/fill bs=1024 2>/dev/null
        for words in 'add-authtoken new' 'add-api-key key' 'upgrade'; do
            "$0" config $words --config disk/f.yml 2> said && exit 1
            grep -q 'No space left on device.*Nothing was changed' said || { cat said; exit 2; }
            cmp disk/f.yml before.yml || exit 3
            test "$(ls -A disk | tr '\n' ' ')" = 'f.yml fill ' || { ls -A disk; exit 4; }
        done
        rm disk/fill
        "$0" config add-authtoken new --config disk/f.yml || exit 5
        grep -q 'authtoken: new # mine' disk/f.yml || exit 6
    "#;
    in_mounts_of_its_own(&home, script);
}

#[test]
fn a_file_that_is_mounted_by_itself_is_left_as_it_is() {
    let home = Home::new();
    let script = r#"
        printf 'version: 2\nauthtoken: old # mine\n' > outside.yml
        mkdir conf && touch conf/f.yml
        mount --bind outside.yml conf/f.yml || exit 77
        for words in 'add-authtoken new' 'upgrade'; do
            "$0" config $words --config conf/f.yml 2> said && exit 1
            grep -q 'mount point.*Nothing was changed' said || { cat said; exit 2; }
            grep -q 'authtoken: old # mine' conf/f.yml || exit 3
            test "$(ls -A conf)" = f.yml || { ls -A conf; exit 4; }
        done
    "#;
    in_mounts_of_its_own(&home, script);
}

/// Runs a script with the program as `$0`, in a mount namespace of its own. Its exit code 77
/// means that it cannot mount.
fn in_mounts_of_its_own(home: &Home, script: &str) {
    let mut command = home.command("unshare");
    command.args(["-m", "sh", "-c", script, CULVERT]);
    let outcome = match command.output() {
        Ok(output) => output,
        Err(error) => {
            return skipped(&format!("unshare is missing: {error}"));
        }
    };
    let said = String::from_utf8_lossy(&outcome.stderr);
    if outcome.status.code() == Some(77) || said.contains("unshare failed") {
        return skipped(&format!("only root can mount: {said}"));
    }
    let out = String::from_utf8_lossy(&outcome.stdout);
    assert!(outcome.status.success(), "{}: {out} {said}", outcome.status);
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_file() {
    let home = Home::new();
    let works = home.command("strace").args(["-o", "/dev/null", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        return skipped("strace is missing or may not trace");
    }
    let old = "version: 2\nauthtoken: old # mine\n";
    let new = "version: 2\nauthtoken: new # mine\n";
    let calls = [
        "openat",
        "read",
        "write",
        "fsync",
        "rename",
        "fchown",
        "fchmod",
        "close",
        "flock",
        "getdents64",
        "statx",
        "unlink",
        "readlink",
        "lseek",
        "mmap",
        "munmap",
        "brk",
    ];
    let (mut kept, mut changed) = (0, 0);
    for call in calls {
        for n in 1..200 {
            let file = home.file("dir/f.yml", old);
            let mut command = home.command("strace");
            let inject = format!("inject={call}:signal=KILL:when={n}");
            command.args(["-o", "/dev/null", "-e", &inject, CULVERT]);
            command.args(["config", "add-authtoken", "new", "--config", &file]);
            let output = command.output().unwrap();
            let text = home.read("dir/f.yml");
            assert!(text == old || text == new, "{call} {n}: {text:?}");
            if output.status.success() {
                assert_eq!(text, new);
                break;
            }
            assert!(n < 199, "{call} is called without an end");
            kept += usize::from(text == old);
            changed += usize::from(text == new);
        }
        // The run that was not killed has removed the files of those that were.
        assert_eq!(home.names("dir"), ["f.yml"], "after {call}");
    }
    assert!(kept > 10 && changed > 0, "{kept} kept, {changed} changed");
}

#[test]
fn two_changes_at_the_same_time_are_both_there() {
    let home = Home::new();
    let file = home.file("f.yml", "version: 3\n");
    for _ in 0..10 {
        let start = |line: &str| {
            let mut command = home.command(CULVERT);
            let line = format!("config {line} --config {file}");
            command.args(line.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        let children = ["add-authtoken t1", "add-api-key k1", "add-connect-url e.example"];
        let children: Vec<_> = children.into_iter().map(start).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        let text = home.read("f.yml");
        for part in ["authtoken: t1", "api_key: k1", "connect_url: e.example"] {
            assert!(text.contains(part), "{text}");
        }
        home.file("f.yml", "version: 3\n");
    }
}

/// The output of `config upgrade` passes `config check`. Parts that cannot be carried over
/// become comments with a note.
#[test]
fn an_upgrade_of_agent_2_does_not_pass_its_check() {
    let home = Home::new();
    let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
    let crt = home.file("crt.pem", &pem("CERTIFICATE"));
    let key = home.file("key.pem", &pem("PRIVATE KEY"));
    let file = home.file(
        "f.yml",
        &format!(
            "authtoken: t\ncompress_conn: false # top\ncrash_report_url: https://c.example\n\
             pprof_addr: 127.0.0.1:6060\nserver_sni: edge.example\n\
             tunnels:\n  web:\n    proto: http\n    ip_policy:\n    - ipp_1\n    - ipp_2\n    \
             addr: 80\n    bind-tls: true\n  flow: {{proto: tcp, addr: 22, compress_conn: true}}\n  \
             secure:\n    proto: tls\n    addr: 443\n    crt: {crt}\n    key: {key}\n    \
             client_cas: {crt}\n"
        ),
    );
    let said = home.run(&format!("config upgrade --config {file}")).fine();
    home.run(&format!("config check --config {file}")).fine();
    assert_eq!(
        home.read("f.yml"),
        format!(
            "version: 3\nagent:\n    authtoken: t\n# compress_conn: false # top\n\
             # crash_report_url: https://c.example\n# pprof_addr: 127.0.0.1:6060\n\
             # server_sni: edge.example\ntunnels:\n  web:\n    proto: http\n    # ip_policy:\n    \
             # - ipp_1\n    # - ipp_2\n    addr: 80\n    schemes: [https]\n  \
             # compress_conn: true\n  flow: {{proto: tcp, addr: 22}}\n  secure:\n    \
             proto: tls\n    addr: 443\n    terminate_at: agent\n    crt: {crt}\n    \
             key: {key}\n    mutual_tls_cas: {crt}\n"
        )
    );
    for note in [
        "Note: compress_conn has no place in version 3: it is a comment now\n",
        "Note: tunnels.web.ip_policy has no place in version 3: it is a comment now, and restricts",
        "Note: tunnels.secure ends TLS at the agent, as agent 2 did",
        "Note: tunnels.secure.client_cas has a new name: mutual_tls_cas\n",
    ] {
        assert!(said.contains(note), "{note:?} in {said}");
    }

    // Also keys of agent 2 in files of version 2.
    let old = "version: 2\ntunnels:\n  a: {proto: http, addr: 80, bind_tls: true}\n";
    let file = home.file("two.yml", old);
    home.run(&format!("config upgrade --config {file}")).fine();
    home.run(&format!("config check --config {file}")).fine();
    assert!(home.read("two.yml").contains("schemes: [https]"));

    // Otherwise nothing is replaced, not even by an upgrade of a file that was invalid before.
    for old in ["tunnels: {a: {proto: http, addr: 80, unknown: 1}}\n", "version: 2\nlog_levl: a\n"]
    {
        let file = home.file("bad.yml", old);
        for dry in ["", "--dry-run"] {
            let said = home.run(&format!("config upgrade {dry} --config {file}")).refused(1);
            assert!(said.contains("the upgraded file would be invalid: "), "{said}");
            assert!(said.contains("is not a known key"), "{said}");
        }
        assert_eq!(home.read("bad.yml"), old);
    }
    assert!(!home.path("bad.yml.bak").exists());
}

/// The file that a package installs is not a configuration yet.
#[test]
fn a_placeholder_token_is_valid() {
    let home = Home::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/init/culvert.yml");
    let file = home.file("culvert.yml", &fs::read_to_string(shipped).unwrap());
    for line in ["config check", "start --all"] {
        let line = format!("{line} --config {file}");
        let said = home.run_with(&line, &[("NGROK_AUTHTOKEN", "")]).failed(1);
        assert!(said.contains("authtoken is the placeholder PUT-YOUR-AUTHTOKEN-HERE"), "{said}");
    }
    // The token of the environment has precedence.
    home.run(&format!("config check --config {file}")).fine();
    let said = home.run("config add-authtoken $YOUR_TOKEN").refused(2);
    assert!(said.contains("is the placeholder $YOUR_TOKEN"), "{said}");
}

#[test]
fn a_token_of_the_environment_has_invisible_characters() {
    let home = Home::new();
    let file = home.file("culvert.yml", "version: 3\n");
    let check = |token: &str| {
        home.run_with(&format!("config check --config {file}"), &[("NGROK_AUTHTOKEN", token)])
    };
    for token in ["2abc\r\n", " 2abc ", "\"2abc\"", "'2abc'\n"] {
        check(token).fine();
    }
    for (token, name) in [("2a\u{feff}bc", "'\\u{feff}'"), ("2a\nbc", "'\\n'"), ("2a bc", "' '")] {
        let said = check(token).refused(1);
        assert!(said.contains(&format!("authtoken contains {name}: copy it again")), "{said}");
    }
}

#[test]
fn a_policy_file_without_a_policy_and_a_key_that_is_twice_are_named() {
    let home = Home::new();
    let policy = home.file("policy.yml", "# later\n");
    let endpoint =
        "version: 3\nagent: {authtoken: t}\nendpoints:\n  - name: a\n    upstream: {url: 80}\n";
    let config = home.file("a.yml", &format!("{endpoint}    traffic_policy_file: {policy}\n"));
    let said = home.run(&format!("config check --config {config}")).refused(1);
    assert!(said.contains(":6:") && said.contains("is empty; write a mapping of phases"), "{said}");
    let config = home.file("b.yml", &format!("{endpoint}    name: b\n"));
    let said = home.run(&format!("config check --config {config}")).refused(1);
    assert!(said.contains(":6:5") && said.contains("duplicate entry with key \"name\""), "{said}");
}
