//! The command line for a user: the built program, its output and its exit code. No test here
//! opens a connection.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support::home::{CULVERT, Home, Outcome, SECRET};

/// Time for a program that ends at once.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn help_on_every_level() {
    let home = Home::new();
    for (line, usage) in [
        ("", "culvert COMMAND [flags]"),
        ("help", "culvert COMMAND [flags]"),
        ("--help", "culvert COMMAND [flags]"),
        ("-h", "culvert COMMAND [flags]"),
        ("help http", "culvert http ADDR [flags]"),
        ("http --help", "culvert http ADDR [flags]"),
        ("tcp -h 22", "culvert tcp ADDR [flags]"),
        ("tls --help", "culvert tls ADDR [flags]"),
        ("start --help", "culvert start NAME... [flags]"),
        ("config", "culvert config COMMAND [flags]"),
        ("config add-authtoken --help", "culvert config add-authtoken TOKEN [flags]"),
        ("help config check", "culvert config check [flags]"),
        ("version --help", "culvert version [flags]"),
        ("tunnel --help", "culvert tunnel ADDR [flags]"),
        ("completion --help", "culvert completion [SHELL] [flags]"),
        ("credits --help", "culvert credits [flags]"),
        // After a group it is a host; one of that name needs a port: help:80.
        ("http help", "culvert http ADDR [flags]"),
        ("tls --url a.example help", "culvert tls ADDR [flags]"),
        ("config add-authtoken help", "culvert config add-authtoken TOKEN [flags]"),
        ("authtoken help", "culvert config add-authtoken TOKEN [flags]"),
        ("version help", "culvert version [flags]"),
    ] {
        let help = home.run(line).fine();
        assert!(help.contains(&format!("\nUsage: {usage}\n")), "{line}: {help}");
        let (_, examples) = help.split_once("\nExamples:\n").expect("examples");
        assert!(examples.contains("culvert "), "{line}: {help}");
        assert!(help.contains("-h, --help"), "{line}: {help}");
    }
    let help = home.run("http --help").fine();
    for flag in ["url", "name", "metadata", "authtoken", "config", "log", "log-level", "log-format"]
    {
        assert!(help.contains(&format!("\n  --{flag} ")), "{flag}: {help}");
    }
    assert!(help.contains("\n  --upstream-protocol "), "{help}");
    for line in ["tcp --help", "tls --help"] {
        assert!(!home.run(line).fine().contains("--upstream-protocol"), "what they refuse");
    }
}

#[test]
fn the_version_is_one_line_that_ends_with_the_number() {
    let home = Home::new();
    let expected = format!("culvert version {}\n", env!("CARGO_PKG_VERSION"));
    for line in ["version", "--version", "-v", "version --log stdout"] {
        assert_eq!(home.run(line).fine(), expected, "{line}");
    }
    let link = home.path("ngrok");
    symlink(CULVERT, &link).unwrap();
    let run = |word: &str| {
        let mut command = home.command(&link);
        command.arg(word);
        Outcome::of(command)
    };
    assert_eq!(run("version").fine(), expected.replace("culvert", "ngrok"));
    assert!(run("help").fine().contains("\n  ngrok http 8080\n"));
    assert!(run("http").refused(2).contains("\"ngrok http 8080\""));
    assert!(run("start").refused(2).contains("\"ngrok start web\""));
    let mut command = home.command(&link);
    command.env_remove("NGROK_AUTHTOKEN").args(["http", "80"]);
    assert!(Outcome::of(command).refused(1).contains("'ngrok config add-authtoken TOKEN'"));
}

#[test]
fn mistakes_on_the_command_line_end_with_status_2_and_a_hint() {
    let home = Home::new();
    for (line, expected) in [
        ("htpt 80", "did you mean http?"),
        ("config chekc", "did you mean check?"),
        ("http", "as in \"culvert http 8080\""),
        ("tcp", "as in \"culvert tcp 22\""),
        ("http 80 90", "takes 1 (ADDR)"),
        ("http 80 --naem x", "did you mean --name?"),
        ("http 80 --basic-auth=", "--basic-auth has an empty value"),
        (
            "http 80 --basic-auth= --basic-auth u:2hushhushHUSHhush",
            "--basic-auth has an empty value",
        ),
        ("tcp 22 --cidr-allow=,", "--cidr-allow has an empty value"),
        ("http 80 --traffic-policy-url=", "--traffic-policy-url has an empty value"),
        ("http 80 --traffic-policy-file=", "--traffic-policy-file has an empty value"),
        ("http 80 --pooling", "did you mean --pooling-enabled?"),
        ("http 80 --url https://bücher.example", "as punycode, as in xn--"),
        ("http 80 --url bücher.example", "ERR_NGROK_326"),
        ("http 80 --log=false --domain bücher.example", "ERR_NGROK_326"),
        ("http 80 --hostname bücher.example", "ERR_NGROK_326"),
        ("http 80 --subdomain bücher", "ERR_NGROK_326"),
        ("tls 443 --url tls://bücher.example", "ERR_NGROK_326"),
        ("tcp 22 --remote-addr bücher.example:2222", "ERR_NGROK_326"),
        ("config add-authtoken “2hushhushHUSHhush”", "contains '“': copy it again"),
        ("http 80 --authtokn=2hushhushHUSHhush", "did you mean --authtoken?"),
        ("http 80 --authtokn 2hushhushHUSHhush", "did you mean --authtoken?"),
        ("http 80 --url", "--url needs a value"),
        ("http -url x 80", "two hyphens; write --url"),
        ("http 80 --log-level loud", "--log-level must be debug, info, warn, error or crit"),
        ("http 80 --log-format xml", "--log-format must be term, logfmt or json"),
        ("http 80 --binding private", "--binding must be public, internal or kubernetes"),
        ("http 80 --upstream-protocol h2", "--upstream-protocol must be http1 or http2"),
        ("http 80 --upstream-proxy-protocol 3", "--upstream-proxy-protocol must be 1 or 2"),
        ("http 80 --pooling-enabled=maybe", "--pooling-enabled is true or false"),
        ("http 80 --basic-auth u:2hushhushHUSHhush --basic-auth u", "must be USER:PASSWORD"),
        ("http 80 --basic-auth u:p", "ERR_NGROK_360"),
        ("http 80 --basic-auth :2hushhushHUSHhush", "ERR_NGROK_359"),
        ("http 80 --circuit-breaker 2", "ERR_NGROK_361"),
        ("http 80 --circuit-breaker x", "--circuit-breaker must be a number"),
        ("tcp 22 --cidr-allow 10.0.0.0", "ERR_NGROK_362"),
        ("http 80 --verify-webhook-secret 2hushhushHUSHhush", "ERR_NGROK_363"),
        ("http 80 --oauth-allow-email a@b.example", "ERR_NGROK_363"),
        ("http 80 --request-header-add 2hushhushHUSHhush", "ERR_NGROK_370"),
        ("http 80 --response-header-add 2hushhushHUSHhush", "ERR_NGROK_371"),
        ("http 80 --request-header-remove a=b:c", "ERR_NGROK_372"),
        ("http 80 --oauth google --oauth-client-id x", "ERR_NGROK_383"),
        ("http 80 --oauth google --oauth-client-secret 2hushhushHUSHhush", "ERR_NGROK_384"),
        ("http 80 --oidc https://x.example", "ERR_NGROK_385"),
        ("http 80 --oidc https://x.example --oidc-client-id x", "ERR_NGROK_386"),
        ("http 80 --oauth google --oauth-scope x", "ERR_NGROK_390"),
        ("tls 443 --cidr-deny 10.0.0.0/8", "ERR_NGROK_393"),
        ("http 80 --domain a.example --hostname b.example", "ERR_NGROK_9021"),
        ("http 80 --url a.example --subdomain b", "ERR_NGROK_9021"),
        ("http 80 --subdomain https://b", "without scheme or path"),
        ("http 80 --traffic-policy-file a --policy-file b", "ERR_NGROK_9025"),
        ("tls 443 --traffic-policy-file a --traffic-policy-url http://b", "ERR_NGROK_9025"),
        ("http 80 --scheme ftp", "--scheme must be http or https"),
        ("http 80 --scheme http --url https://a.example", "leave --scheme out"),
        ("tcp 22 --remote-addr a.example:x", "the port must be a number"),
        ("tls 443 --terminate-at agent", "needs a certificate and its key"),
        ("tcp 22 --terminate-at edge", "it is one of tls"),
        ("http 80 -bind-tls=true", "two hyphens; write --scheme"),
        ("http 80 --max-connections 0", "--max-connections must be a number from 1 to 65535"),
        ("start --none --memory-limit lots", "--memory-limit must be a number of bytes"),
        ("tunnel 80", "needs a label"),
        ("tunnel 80 --label x", "--label must be KEY=VALUE"),
        ("completion tcsh", "takes bash, zsh or fish"),
        ("start", "needs the names of endpoints"),
        ("start web --all", "names or --all, not both"),
        ("start web --none", "--none starts no endpoint"),
        ("start --all --none", "--none starts no endpoint"),
        ("config add-authtoken", "needs TOKEN"),
        ("config add-authtoken 2hushhushHUSHhush 2hushhushHUSHhush", "takes 1 (TOKEN)"),
        ("config add-authtoken x --config a --config b", "one --config"),
        ("tcp 80 --url https://a.example", "does not fit a tcp endpoint"),
        ("http 80 --url ftp://a.example", "ERR_NGROK_9036"),
        ("http 80 --url https://a.example/x", "ERR_NGROK_9037"),
        ("http 80 --url https://a.example/", "ERR_NGROK_9038"),
        ("http 80 --url https://a.example:8443", "ERR_NGROK_9035"),
    ] {
        let text = home.run(line).refused(2);
        assert!(text.contains(expected), "{line}: {text}");
        let lines =
            text.lines().filter(|line| !line.contains("rr_ngrok_") && !line.contains("ERR_"));
        assert!(lines.filter(|line| !line.is_empty()).count() <= 2, "{line}: {text}");
    }
    let mut command = home.command(CULVERT);
    command.arg("http").arg(OsStr::from_bytes(b"\xff\xfe"));
    assert!(Outcome::of(command).refused(2).contains("UTF-8"));
}

#[test]
fn addresses_that_cannot_be_meant() {
    let home = Home::new();
    for line in [
        "http 0",
        "http 65536",
        "http host:x",
        "http ::1",
        "http [::1",
        "http http://localhost:8080/path",
        "http http://localhost:8080?q",
        "http http://user:2hushhushHUSHhush@localhost",
        "http ftp://localhost",
        "http tcp://localhost:22",
        "http file://relative",
        "tcp localhost",
        "tcp http://localhost:80",
        "tls file:///",
    ] {
        let text = home.run(line).refused(2);
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
    }
    let here = fs::canonicalize(home.dir()).unwrap().display().to_string();
    for (line, path) in [("http /tmp", "/tmp"), ("http .", &here), ("http ./", &here)] {
        let text = home.run(line).refused(2);
        assert!(text.ends_with(&format!("to serve a directory: file://{path}")), "{line}: {text}");
    }
    assert!(home.run("http file:///no/such/directory").refused(1).contains("/no/such/directory"));
    let file = home.file("plain", "");
    assert!(home.run(&format!("http file://{file}")).refused(1).contains("is not a directory"));
}

#[test]
fn a_credential_that_every_user_may_read_is_reported_and_gets_mode_0600() {
    let home = Home::new();
    let set_mode = |path: &str, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let mode_of = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for (command, key) in [("add-authtoken", "authtoken"), ("add-api-key", "api_key")] {
        let file = home.file("f.yml", "version: 3\nagent:\n  log: false\n");
        set_mode(&file, 0o644);
        let check = format!("config check --config {file}");
        // Without a credential every user may read it.
        assert_eq!(home.run(&check).fine(), format!("Valid configuration file at {file}\n"));
        let said =
            home.run(&format!("config add-connect-url e.example:443 --config {file}")).fine();
        assert!(!said.contains("mode") && mode_of(&file) == 0o644, "{said}");

        let said = home.run(&format!("config {command} {SECRET} --config {file}")).fine();
        assert!(said.contains("Its mode is now 600: with the old mode 644 every user"), "{said}");
        assert_eq!(mode_of(&file), 0o600, "{key}");
        assert!(home.read("f.yml").contains(&format!("{key}: {SECRET}")));
        assert!(!home.run(&check).fine().contains("every user"));

        set_mode(&file, 0o664);
        let said = home.run(&check).fine();
        let warning = format!("{file} contains a credential, and every user may read it");
        assert!(said.contains(&warning) && said.contains("chmod 600"), "{said}");
        assert!(!said.contains(SECRET), "{said}");
        // The group is the administrator's choice.
        set_mode(&file, 0o640);
        assert!(!home.run(&check).fine().contains("every user"));
    }
}

#[test]
fn a_new_log_file_is_closed_to_other_users() {
    let home = Home::new();
    let (file, log) = (home.file("f.yml", "version: 3\n"), home.path("culvert.log"));
    // It ends at once, because the endpoint is missing.
    let line = format!("start missing --config {file} --log {}", log.display());
    home.run(&line).refused(1);
    assert_eq!(fs::metadata(&log).unwrap().mode() & 0o007, 0);
    assert_ne!(fs::metadata(&log).unwrap().mode() & 0o600, 0);
}

#[test]
fn the_authtoken_is_saved_and_the_rest_stays() {
    let home = Home::new();
    let line = format!("config add-authtoken {SECRET}");
    let default = home.path(".config/ngrok/ngrok.yml");
    let saved = format!("Authtoken saved to configuration file: {}\n", default.display());
    assert_eq!(home.run(&line).fine(), saved);
    assert_eq!(fs::metadata(&default).unwrap().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&default).unwrap();
    assert_eq!(text, format!("version: \"3\"\nagent:\n    authtoken: {SECRET}\n"));
    assert_eq!(
        home.run("config check").fine(),
        format!("Valid configuration file at {}\n", default.display())
    );

    let before = "# mine\nversion: 3\nagent:\n  authtoken: old # the old one\n  log: false\n";
    let other = home.file("other.yml", before);
    fs::set_permissions(&other, fs::Permissions::from_mode(0o640)).unwrap();
    home.run(&format!("--config={other} {line}")).fine();
    assert_eq!(
        fs::read_to_string(&other).unwrap(),
        before.replace("old #", &format!("{SECRET} #"))
    );
    assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o640);

    let xdg = home.path("xdg");
    let mut command = home.command(CULVERT);
    command.env("XDG_CONFIG_HOME", &xdg).args(["authtoken", SECRET]);
    let outcome = Outcome::of(command);
    assert!(outcome.out.starts_with("Authtoken saved"), "{outcome:?}");
    assert!(
        outcome.err.contains("name=authtoken hint=\"use config add-authtoken\""),
        "{outcome:?}"
    );
    assert_eq!((outcome.status, outcome.err.lines().count()), (0, 1), "{outcome:?}");
    assert!(xdg.join("ngrok/ngrok.yml").is_file(), "agent 2's command, another directory");
}

#[test]
fn the_authtoken_from_standard_input() {
    let home = Home::new();
    let mut command = home.command(CULVERT);
    command.args(["config", "add-authtoken", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{SECRET}").unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(out.starts_with("Authtoken saved"));
    let text = fs::read_to_string(home.path(".config/ngrok/ngrok.yml")).unwrap();
    assert!(text.contains(&format!("authtoken: {SECRET}\n")));
}

#[test]
fn a_file_that_cannot_be_edited_is_left_alone() {
    let home = Home::new();
    for text in ["version: 3\nagent: [\n", "version: 4\n", "version: 3\nagent: 7\n", "- 1\n"] {
        let file = home.file("f.yml", text);
        let line = format!("config add-authtoken {SECRET} --config {file}");
        let said = home.run(&line).refused(1);
        assert!(said.contains(&file) && said.contains("Nothing was changed"), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(home.names(""), ["f.yml"], "no temporary file is left");
    }
    let said = home.run("config add-authtoken x --config /proc/no/ngrok.yml").refused(1);
    assert!(said.contains("/proc/no/ngrok.yml"), "{said}");
}

#[test]
fn a_token_that_cannot_be_one_is_a_mistake_on_the_command_line() {
    let home = Home::new();
    for token in ["", "a b"] {
        let mut command = home.command(CULVERT);
        command.args(["config", "add-authtoken", token]);
        assert!(Outcome::of(command).refused(2).starts_with("the authtoken "), "{token:?}");
    }
    assert!(home.names("").is_empty(), "no file was made");
}

#[test]
fn check_names_file_line_and_key_of_every_fault() {
    let home = Home::new();
    let file = home.file(
        "f.yml",
        "version: 3\nagent:\n  authtoken: [2hushhushHUSHhush]\n  log_levl: info\nendpoints:\n  \
         - name: web\n    upstream: {url: \"ftp://x\"}\n    hostname: x\n",
    );
    let said = home.run(&format!("config check --config {file}")).refused(1);
    let expected = [
        ":3:14: agent.authtoken must be text, found a list",
        ":4:3: agent.log_levl is not a known key; did you mean log_level?",
        ":7:21: endpoints[0].upstream.url ",
        ":8:5: endpoints[0].hostname is not a known key; did you mean url?",
    ];
    for expected in expected {
        assert!(said.contains(&format!("{file}{expected}")), "{expected}: {said}");
    }
    assert_eq!(said.lines().count(), expected.len(), "{said}");

    let unused = home.file("unused.yml", "version: 3\nagent: {update_channel: beta}\n");
    let said = home.run(&format!("config check --config={unused}")).fine();
    assert!(!said.contains("is not used"), "{said}");

    let said = home.run("config check --config no.yml").refused(1);
    assert!(said.contains("\"culvert config add-authtoken TOKEN --config no.yml\""), "{said}");
    assert!(home.run("config check").refused(1).contains(".config/ngrok/ngrok.yml"));
    let old = home.file("old.yml", "authtoken: 2hushhushHUSHhush\n");
    let said = home.run(&format!("config check --config {old}")).refused(1);
    assert!(said.contains("old.yml: version is missing, as in files of agent 2"), "{said}");
    assert!(said.contains("\"culvert config upgrade\""), "{said}");
}

#[test]
fn start_knows_the_names_of_the_file() {
    let home = Home::new();
    let file = home.file(
        "f.yml",
        "version: 3\nendpoints:\n  - {name: web, upstream: 80}\n  - {name: ssh, url: \"tcp://\", \
         upstream: 22}\n",
    );
    let said = home.run(&format!("start wbe --config {file}")).refused(1);
    assert!(said.contains("did you mean web?") && said.contains("web, ssh"), "{said}");
    assert!(home.run("start --all").refused(1).contains("no endpoints"));
    assert!(home.run("start web").refused(1).contains("no endpoints"));
    assert!(home.run("start web --config no.yml").refused(1).contains("no.yml"));
}

#[test]
fn a_fault_of_the_configuration_is_in_the_log_that_was_asked_for() {
    let home = Home::new();
    let file = home.file("f.yml", "version: 3\nagents: {}\n");
    let outcome = home.run(&format!("http 80 --log stdout --log-format json --config {file}"));
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(outcome.out.contains(r#""lvl":"crit","msg":"command failed""#), "{outcome:?}");
    assert!(outcome.out.contains("did you mean agent?"), "{outcome:?}");
    assert!(outcome.err.starts_with("ERROR:  "), "{outcome:?}");
}

#[test]
fn a_log_that_cannot_be_opened_is_said_at_once() {
    let home = Home::new();
    let said = home.run("http 80 --log /no/such/directory/log").refused(1);
    assert!(said.contains("/no/such/directory/log"), "{said}");
}

#[test]
fn the_environment_names_the_file() {
    let home = Home::new();
    let file = home.file("f.yml", "version: 3\n");
    let mut command = home.command(CULVERT);
    command.env("NGROK_CONFIG", &file).args(["config", "check"]);
    assert_eq!(Outcome::of(command).fine(), format!("Valid configuration file at {file}\n"));
    let mut command = home.command(CULVERT);
    command.env_remove("HOME").args(["config", "add-authtoken", SECRET, "--config=/proc/no/f"]);
    assert!(Outcome::of(command).refused(1).contains("/proc/no/f"));
}

#[test]
fn a_closed_output_is_no_crash() {
    let home = Home::new();
    for word in ["help", "version", "nonsense"] {
        let mut command = home.command(CULVERT);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.arg(word).stdout(writer.try_clone().unwrap()).stderr(writer);
        let status = thread::spawn(move || command.status()).join().unwrap().unwrap();
        assert_eq!(status.code(), Some(if word == "nonsense" { 2 } else { 0 }), "{word}");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let home = Home::new();
    let file = home.file("f.yml", "version: 3\n");
    let old = home.file("old.yml", "version: 2\n");
    for line in [
        "help",
        "http --help",
        "version",
        "-v",
        "credits",
        "completion bash",
        &format!("config check --config {file}"),
        &format!("config add-authtoken {SECRET} --config {file}"),
        &format!("config upgrade --dry-run --config {old}"),
    ] {
        let mut command = home.command("sh");
        command.args(["-c", &format!("exec {CULVERT} {line} > /dev/full")]);
        let said = Outcome::of(command).refused(1);
        assert!(said.starts_with("standard output cannot be written: No space left"), "{said}");
        // A reader that has read enough.
        let mut command = home.command("sh");
        command.args(["-c", &format!("{{ {CULVERT} {line}; echo $? >&2; }} | true")]);
        assert_eq!(Outcome::of(command).err, "0\n", "{line}");
    }
}

#[test]
fn a_result_waits_for_an_output_that_does_not_block() {
    let home = Home::new();
    let (mut reader, writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let mut full = &writer;
    let fill = vec![b'.'; 4096];
    while full.write(&fill).is_ok() {}
    let mut command = home.command(CULVERT);
    command.arg("help").stdout(OwnedFd::from(writer)).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // It has the other end.
    drop(command);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text.trim_start_matches('.'), home.run("help").fine());
}

#[test]
fn a_token_of_the_command_line_is_not_in_the_list_of_processes() {
    // An edge that accepts connections and stays silent keeps the agent waiting.
    let edge = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::new();
    let address = edge.local_addr().unwrap();
    let file = home.file("f.yml", &format!("version: 3\nagent: {{connect_url: \"{address}\"}}\n"));
    for form in [vec!["--authtoken", SECRET], vec![&format!("--authtoken={SECRET}")]] {
        let mut command = home.command(CULVERT);
        command.args(["http", "80", "--config", &file]).args(form).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (sender, receiver) = mpsc::channel();
        let listener = edge.try_clone().unwrap();
        thread::spawn(move || sender.send(listener.accept().map(drop)));
        let connected = receiver.recv_timeout(PATIENCE);
        let line = fs::read(format!("/proc/{}/cmdline", child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        connected.expect("the agent connects").unwrap();
        let line = String::from_utf8(line.unwrap()).unwrap();
        assert!(line.contains("--authtoken") && line.contains("****"), "{line}");
        assert!(!line.contains(SECRET), "{line}");
    }
}

/// Returns the files of `tests/cli/configs/KIND`.
fn configs(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/configs").join(kind);
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 4, "{files:?}");
    files
}

#[test]
fn good_files_are_valid_and_take_a_new_token() {
    let home = Home::new();
    for path in configs("good") {
        let path = path.display();
        let said = home.run(&format!("config check --config {path}")).fine();
        assert!(said.starts_with(&format!("Valid configuration file at {path}\n")), "{said}");

        let before = fs::read_to_string(path.to_string()).unwrap();
        let copy = home.file("copy.yml", &before);
        home.run(&format!("config add-authtoken {SECRET} --config {copy}")).fine();
        let after = fs::read_to_string(&copy).unwrap();
        if before.contains("TOKEN") {
            assert_eq!(after, before.replacen("TOKEN", SECRET, 1), "{path}");
        }
        assert!(after.contains(SECRET), "{path}");
    }
}

/// The first line of a bad file is a comment with the expected error.
#[test]
fn bad_files_are_refused_with_file_and_reason() {
    let home = Home::new();
    for path in configs("bad") {
        let text = fs::read_to_string(&path).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# ").unwrap();
        let said = home.run(&format!("config check --config {}", path.display())).refused(1);
        assert!(said.contains(&*path.to_string_lossy()), "{said}");
        assert!(said.contains(expected), "{expected:?} is not in {said:?}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// The help of every command is as in `tests/cli/help`. After an intended change
/// `CULVERT_WRITE_HELP=1 cargo test --test cli` writes the files again.
#[test]
fn help_is_as_in_the_files() {
    let home = Home::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help");
    // Every command that help lists, and the hidden one.
    let mut commands = vec![String::new(), "tunnel".to_owned()];
    for group in ["", "config", "service"] {
        let help = home.run(&format!("help {group}")).fine();
        let (_, list) = help.split_once("\nCommands:\n").unwrap();
        let words = list.lines().map_while(|line| line.strip_prefix("  ")?.split(' ').next());
        let words = words.filter(|word| *word != "help");
        commands.extend(words.map(|word| format!("{group} {word}").trim_start().to_owned()));
    }
    assert!(commands.len() > 15, "{commands:?}");
    for command in &commands {
        let help = home.run(&format!("{command} --help")).fine();
        let name = if command.is_empty() { "culvert" } else { command.as_str() };
        let path = dir.join(format!("{}.txt", name.replace(' ', "-")));
        if std::env::var_os("CULVERT_WRITE_HELP").is_some() {
            fs::write(&path, &help).unwrap();
        }
        assert_eq!(help, fs::read_to_string(&path).unwrap(), "{}", path.display());
        assert!(help.lines().all(|line| line.len() <= 92), "{command}: lines fit a terminal");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), commands.len(), "a file for each command");
}

#[test]
fn deprecated_flags_are_not_listed_and_work_with_one_warning_each() {
    let home = Home::new();
    let help = home.run("http --help").fine();
    for flag in ["basic-auth", "domain", "region", "cidr-allow", "mutual-tls-cas", "scheme"] {
        assert!(!help.contains(&format!("--{flag} ")), "{flag}");
    }
    for flag in ["cidr-allow", "mutual-tls-cas"] {
        assert!(home.run("tls --help").fine().contains(&format!("\n  --{flag} ")), "{flag}");
    }
    // Without a token it ends before it connects, after the warnings.
    let run = |line: &str| {
        let mut command = home.command(CULVERT);
        command.env_remove("NGROK_AUTHTOKEN").args(line.split_whitespace());
        Outcome::of(command)
    };
    for (line, warnings) in [
        ("http 80 --url https://a.example", &[][..]),
        (
            "http 80 --subdomain a --region eu --proxy-proto 2 --policy-file p.yml",
            &[
                "name=--subdomain hint=\"use --url\"",
                "name=--proxy-proto hint=\"use --upstream-proxy-protocol\"",
                "name=--policy-file hint=\"use --traffic-policy-file\"",
                "name=--region hint=\"use connect_url of the configuration",
            ],
        ),
        (
            "http 80 --basic-auth u:2hushhushHUSHhush --basic-auth v:2hushhushHUSHhush \
             --oauth google --oauth-allow-domain d.example --app-protocol http2",
            &[
                "name=--app-protocol hint=\"use --upstream-protocol\"",
                "name=--basic-auth hint=\"use a traffic policy with basic-auth",
                "name=\"--oauth, --oauth-allow-domain\" hint=\"use a traffic policy with oauth",
            ],
        ),
        ("tunnel 80 --label edge=x", &["name=tunnel hint=\"use http, tcp or tls\""]),
    ] {
        home.file("p.yml", "on_http_request: []\n");
        let outcome = run(line);
        assert_eq!(outcome.status, 1, "{outcome:?}");
        let said: Vec<&str> = outcome.err.lines().filter(|l| l.contains("WARN")).collect();
        let said: Vec<&str> = said
            .into_iter()
            .chain(outcome.err.lines().filter(|l| l.contains("lvl=warn")))
            .collect();
        assert_eq!(said.len(), warnings.len(), "{line}: {outcome:?}");
        for (said, expected) in said.iter().zip(warnings) {
            assert!(said.contains(expected), "{said} is not {expected}");
        }
        // In the configured log, and nowhere else.
        let outcome = run(&format!("{line} --log stdout"));
        assert_eq!(outcome.out.matches("lvl=warn").count(), warnings.len(), "{outcome:?}");
        assert!(outcome.err.lines().all(|line| line.starts_with("ERROR:")), "{outcome:?}");
        let outcome = run(&format!("{line} --log false"));
        assert!(outcome.err.lines().all(|line| line.starts_with("ERROR:")), "{outcome:?}");
    }
}

#[test]
fn a_policy_that_is_none_is_refused_before_connecting() {
    let home = Home::new();
    for (name, text, expected) in [
        ("html", "<html></html>", "is not a traffic policy"),
        ("list", "- 1\n", "is not a traffic policy"),
        ("broken", "on_http_request: [\n", "is not valid YAML"),
        ("tab", "on_http_request:\n\t- 1\n", "indented with a tab"),
        ("empty", "", "is empty; write a mapping of phases"),
    ] {
        let file = home.file(name, text);
        for flag in ["traffic-policy-file", "policy-file"] {
            let said = home.run(&format!("http 80 --{flag} {file}")).refused(1);
            assert!(said.contains(&file) && said.contains(expected), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
    let said = home.run("tcp 22 --traffic-policy-file no.yml").refused(1);
    assert!(said.contains("no.yml cannot be read") && said.ends_with("; check the path"), "{said}");
    // A server of the test with a fixed response.
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n- 1", "is not a traffic policy"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404"),
    ] {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/policy.yml", server.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let (mut socket, _) = server.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() > 0 {
                head.push(byte[0]);
            }
            socket.write_all(answer.as_bytes()).unwrap();
        });
        let said = home.run(&format!("http 80 --traffic-policy-url {url}")).refused(1);
        assert!(said.contains(&url) && said.contains(expected), "{said}");
        thread.join().unwrap();
    }
    let said = home.run("http 80 --traffic-policy-url http://me:secret@127.0.0.1/p").refused(1);
    assert!(!said.contains("secret"), "{said}");
    let said = home.run("http 80 --traffic-policy-url http://127.0.0.1:9/p@1/x.yml").refused(1);
    assert!(said.contains("http://127.0.0.1:9/p@1/x.yml"), "{said}");
    let said = home.run("http 80 --traffic-policy-url ftp://x").refused(1);
    assert!(said.contains("ftp://x"), "{said}");
}

#[test]
fn faults_in_the_structure_of_a_policy_are_refused_with_file_line_and_key() {
    let home = Home::new();
    let policy = home.file(
        "p.yaml",
        "on_http_request:\n  - expresions: []\n    actions:\n      - type: denny\n",
    );
    let faults = [
        ":2:5: on_http_request[0].expresions is not a known key; did you mean expressions? \
         (ERR_NGROK_2236)",
        ":4:15: on_http_request[0].actions[0].type is not a known action; did you mean deny? \
         (ERR_NGROK_2201)",
    ];
    let said = home.run(&format!("http 80 --traffic-policy-file {policy}")).refused(1);
    assert_eq!(said.lines().count(), 2, "{said}");
    for fault in faults {
        assert!(said.contains(&format!("{policy}{fault}")), "{said}");
    }
    let config = home.file(
        "c.yml",
        &format!(
            "version: 3\nendpoints:\n  - name: a\n    upstream: 80\n    \
             traffic_policy_file: {policy}\n"
        ),
    );
    let said = home.run(&format!("config check --config {config}")).refused(1);
    assert_eq!(said.lines().count(), 2, "{said}");
    for fault in faults {
        let key = ":5:26: endpoints[0].traffic_policy_file is not valid: ";
        assert!(said.contains(&format!("{config}{key}{policy}{fault}")), "{said}");
    }
}

#[test]
fn certificates_that_are_none_are_refused_before_connecting() {
    let home = Home::new();
    let crt = home.file("c.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let key = home.file("k.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let text = home.file("t.pem", "hello\n");
    for (line, status, expected) in [
        (format!("tls 443 --crt {crt}"), 2, "both the certificate and its key"),
        (format!("tls 443 --crt {text} --key {key}"), 1, "t.pem is not PEM with a line"),
        (format!("tls 443 --crt {crt} --key {text}"), 1, "PRIVATE KEY"),
        (format!("tls 443 --mutual-tls-cas {text}"), 1, "t.pem is not PEM"),
        (format!("tls 443 --mutual-tls-cas {crt}"), 2, "cannot check client certificates"),
        (format!("http 80 --mutual-tls-cas {text}"), 1, "t.pem is not PEM"),
        (
            format!("tls 443 --terminate-at upstream --crt {crt} --key {key}"),
            2,
            "uses no certificate",
        ),
        (
            format!("tls 443 --terminate-at agent --crt {crt} --key {key}"),
            1,
            "endpoint 'command_line': the ",
        ),
        (format!("tls 443 --crt no.pem --key {key}"), 1, "no.pem cannot be read"),
    ] {
        let outcome = home.run(&line);
        let said = outcome.refused(status);
        assert!(said.contains(expected), "{line}: {said}");
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
    }
}

#[test]
fn the_credits_name_everything_that_is_linked_in() {
    let credits = Home::new().run("credits").fine();
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal,no-proc-macro"])
        .args(["--prefix", "none", "--format", "{p}", "--target", "x86_64-unknown-linux-musl"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.len() > 20, "{tree}");
    for name in crates {
        let named = credits.lines().any(|l| l.split([' ', ',']).any(|word| word == name));
        assert!(named, "{name} is not in the credits");
    }
}
