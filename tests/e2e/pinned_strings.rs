//! Texts that other programs parse. They must not change: a change breaks the programs in this
//! list. The list for readers is in docs/reference/compatibility.md.
//!
//! | reader | texts |
//! |---|---|
//! | pyngrok | `key=value` records with `lvl`, `msg`, `err`, `addr`; `starting web service`, `tunnel session started`, `client session established`; an `eror` or `crit` record is a failed start; `Authtoken saved`, `API key saved`; `version ` before the number; `ID`, `name`, `uri`, `public_url`, `proto`, `config.addr`, `metrics` of a tunnel |
//! | npm package `ngrok` | `starting web service.*addr=IPv4:PORT` on one line; `client session established`, `session closed, starting reconnect loop`; `address already in use`; any byte on standard error is a failed start; `ngrok version`; `msg` and `details.err` of an API error |
//! | scripts | `started tunnel` with `name`, `addr`, `url`; `join connections` with `l`, `r`; the other records of `RECORDS`; `URL -> UPSTREAM`; `tunnels`, `public_url` of the API; `ERR_NGROK_n`; exit codes |

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::agent::agent;
use crate::support::api::{Api, config};
use crate::support::edge::Edge;
use crate::support::home::{CULVERT, Home, Outcome};
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::visitor::{says_hello, try_get};
use crate::support::wait_for;

/// Level, message, component, and the fields of a record beside `t`.
type PinnedRecord = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// Records of a run that starts an endpoint, serves a visitor and loses its session.
const RECORDS: &[PinnedRecord] = &[
    ("info", "open config file", "app", &["path", "err"]),
    ("info", "starting web service", "web", &["addr"]),
    ("info", "client session established", "tunnels.session", &[]),
    ("info", "tunnel session started", "tunnels.session", &[]),
    ("info", "start", "web", &["pg", "id"]),
    ("info", "end", "web", &["pg", "id", "status", "dur"]),
    ("info", "started tunnel", "tunnels", &["name", "addr", "url"]),
    ("info", "join connections", "join", &["id", "l", "r"]),
    ("eror", "session closed, starting reconnect loop", "tunnels.session", &["err"]),
    ("eror", "failed to reconnect session", "tunnels.session", &["err"]),
    ("info", "received stop request", "app", &[]),
];

/// Records of a run that cannot start.
const RECORDS_OF_A_FAILURE: &[PinnedRecord] = &[
    ("info", "no configuration paths supplied", "app", &[]),
    ("eror", "terminating with error", "app", &["err"]),
    ("crit", "command failed", "app", &["err"]),
];

/// Splits a `logfmt` line as a shell does, which is what pyngrok uses: at blanks, with
/// double quotes and backslashes.
fn fields(line: &str) -> HashMap<String, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' => word.extend(chars.next()),
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.push(word);
    let pairs = words.iter().filter_map(|word| word.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Finds the record in a log and checks its level, component and keys.
#[track_caller]
fn assert_has(log: &str, record: &PinnedRecord) {
    let (level, message, component, keys) = record;
    let line = log.lines().find(|line| {
        let fields = fields(line);
        fields.get("msg").is_some_and(|msg| msg == message)
    });
    let line = line.unwrap_or_else(|| panic!("no record {message:?} in\n{log}"));
    assert!(line.starts_with("t=20"), "{line}");
    let fields = fields(line);
    assert_eq!(fields["lvl"], *level, "{line}");
    assert_eq!(fields["obj"], *component, "{line}");
    for key in *keys {
        assert!(fields.contains_key(*key), "{key}: {line}");
    }
}

/// Starts the program like a wrapper: no endpoint, records on standard output.
fn wrapped(config: &Path) -> Process {
    agent(config, ["start", "--none", "--log=stdout"]).spawn()
}

/// Returns the line with a message, when standard output has it.
#[track_caller]
fn wait(process: &Process, message: &str) -> String {
    process.wait_stdout(message, |line| line.contains(message).then(|| line.to_owned()))
}

#[test]
fn records_of_a_run() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let config = config(&edge, "");
    let mut process = wrapped(&config);
    let web = wait(&process, "starting web service");
    wait(&process, "tunnel session started");
    // The npm package finds the address by a pattern, which expects it after the message.
    let (_, address) = web.split_once("starting web service").unwrap();
    assert!(address.contains(" addr=127.0.0.1:"), "{web}");
    assert_eq!(process.stderr(), "");

    let upstream_url = format!("http://localhost:{}", upstream.port());
    let body = json!({"name": "web", "proto": "http", "addr": upstream_url});
    let api = Api::at(&web);
    let tunnel = api.create("/api/tunnels", body);
    let url = tunnel["public_url"].as_str().unwrap();
    assert!(says_hello(&edge, url));
    let started = fields(&wait(&process, "started tunnel"));
    assert_eq!((&*started["name"], &*started["url"]), ("web", url));
    assert_eq!(started["addr"], upstream_url);
    let joined = fields(&wait(&process, "join connections"));
    assert!(joined["l"].ends_with(&upstream.port().to_string()), "{joined:?}");
    assert!(joined["r"].starts_with("127.0.0.1:"), "{joined:?}");
    assert_eq!(api.call("DELETE", "/api/tunnels/web", None).0, 204);
    process.wait_stdout("the end of the call", |line| {
        let words = ["msg=end", "pg=/api/tunnels/web", "status=204"];
        words.iter().all(|word| line.contains(word)).then_some(())
    });
    let log = process.stdout();
    assert!(!log.contains("lvl=eror") && !log.contains("lvl=crit"), "a failed start: {log}");

    edge.kill();
    wait(&process, "failed to reconnect session");
    process.signal("TERM");
    assert_eq!(process.wait_exit(), Some(0));
    let log = process.stdout();
    for record in RECORDS {
        assert_has(&log, record);
    }
    let opened = log.lines().find(|line| line.contains("open config file")).unwrap();
    assert_eq!(fields(opened)["err"], "nil");
}

#[test]
fn records_and_lines_of_a_failure() {
    let home = Home::new();
    let mut command = home.command(CULVERT);
    command.env_remove("NGROK_AUTHTOKEN").args(["http", "80", "--log=stdout"]);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    for record in RECORDS_OF_A_FAILURE {
        assert_has(&outcome.out, record);
    }
    let lines: Vec<_> = outcome.err.lines().collect();
    assert!(lines.iter().all(|line| line.starts_with("ERROR:  ")), "{lines:?}");
    assert!(lines.contains(&"ERROR:  ERR_NGROK_4018"), "{lines:?}");
    let page = "ERROR:  https://ngrok.com/docs/errors/err_ngrok_4018";
    assert!(lines.contains(&page), "{lines:?}");

    let outcome = home.run("http 80 --no-such-flag");
    assert_eq!(outcome.status, 2, "{outcome:?}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let file = home.file("taken.yml", &format!("version: 3\nagent: {{web_addr: \"{addr}\"}}\n"));
    let outcome = home.run(&format!("http 80 --log=stdout --config={file}"));
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(outcome.out.contains("address already in use"), "{outcome:?}");
}

#[test]
fn the_refusal_of_an_edge_has_its_code_on_a_line_of_its_own() {
    let edge = Edge::start();
    let mut process = agent(&edge.config, ["http", "80", "--authtoken=2wrong_token"]).spawn();
    assert_eq!(process.wait_exit(), Some(1));
    let text = process.stderr();
    let code = text.lines().find_map(|line| line.strip_prefix("ERROR:  ERR_NGROK_"));
    assert!(code.is_some_and(|code| code.parse::<u32>().is_ok()), "{text}");
}

#[test]
fn results_of_commands() {
    let home = Home::new();
    let path = home.path(".config/ngrok/ngrok.yml");
    let path = path.display();
    for (line, result) in [
        ("config add-authtoken 2abc", format!("Authtoken saved to configuration file: {path}\n")),
        ("config add-api-key 2abc", format!("API key saved to configuration file: {path}\n")),
        ("config check", format!("Valid configuration file at {path}\n")),
        ("version", format!("culvert version {}\n", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(home.run(line).fine(), result, "{line}");
    }
    // Wrappers start a program of this name.
    let link = home.path("ngrok");
    symlink(CULVERT, &link).unwrap();
    let mut command = home.command(&link);
    command.arg("--version");
    let version = format!("ngrok version {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(Outcome::of(command).fine(), version);
}

#[test]
fn the_line_of_an_endpoint_is_its_url_and_its_upstream() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let port = upstream.port().to_string();
    let args = ["http", &port, "--url", "http://a.localhost"];
    let agent = agent(&edge.config, args).spawn();
    let line = agent.wait_stdout("a line", |line| Some(line.to_owned()));
    let http = edge.http.port();
    assert_eq!(line, format!("http://a.localhost:{http} -> http://localhost:{port}"));
}

/// Returns the value at `path`, whose parts are separated by dots; a number is an index.
fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, part| match part.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[part],
    })
}

#[test]
fn fields_of_the_local_api() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let process = wrapped(&config(&edge, ""));
    let api = Api::at(&wait(&process, "starting web service"));
    wait(&process, "tunnel session started");
    let body = json!({"name": "web", "proto": "http", "addr": upstream.port()});
    let tunnel = api.create("/api/tunnels", body.clone());
    try_get(&edge, tunnel["public_url"].as_str().unwrap(), "/a?b").unwrap();
    wait_for("a captured request", || {
        let captured = &api.get("/api/requests/http")["requests"][0];
        captured["response"].is_object()
    });
    for (path, fields) in [
        (
            "/api/tunnels",
            "uri tunnels.0.name tunnels.0.ID tunnels.0.uri tunnels.0.public_url \
             tunnels.0.proto tunnels.0.config.addr tunnels.0.config.inspect \
             tunnels.0.metrics.conns.count tunnels.0.metrics.conns.gauge \
             tunnels.0.metrics.http.count tunnels.0.metrics.http.p99",
        ),
        ("/api/endpoints", "endpoints.0.name endpoints.0.url endpoints.0.upstream.url"),
        ("/api/status", "status agent_version uri session.legs.0.region session.legs.0.latency"),
        (
            "/api/requests/http",
            "uri requests.0.id requests.0.uri requests.0.tunnel_name requests.0.remote_addr \
             requests.0.start requests.0.duration requests.0.request.method \
             requests.0.request.uri requests.0.request.headers requests.0.request.raw \
             requests.0.response.status requests.0.response.status_code",
        ),
    ] {
        let value = api.get(path);
        for field in fields.split_whitespace() {
            assert!(!at(&value, field).is_null(), "{path} has no {field}: {value}");
        }
    }
    let (status, error) = api.call("POST", "/api/tunnels", Some(body));
    assert_eq!(
        (status, &error["error_code"], &error["status_code"], &error["msg"]),
        (400, &json!(102), &json!(400), &json!("invalid tunnel configuration"))
    );
    assert!(error["details"]["err"].is_string(), "{error}");
    let taken = json!({"name": "b", "proto": "http", "addr": 80, "url": tunnel["public_url"]});
    let (status, error) = api.call("POST", "/api/tunnels", Some(taken));
    assert_eq!((status, &error["msg"]), (502, &json!("failed to start tunnel")));
    let text = error["details"]["err"].as_str().unwrap();
    assert_eq!(text.lines().last(), Some("ERR_NGROK_334"), "{text:?}");
}

#[test]
fn an_api_error_before_the_first_session() {
    let edge = Edge::start();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = wrapped(&edge.config_via(closed, "  web_addr: 127.0.0.1:0\n"));
    let api = Api::at(&wait(&process, "starting web service"));
    let body = json!({"name": "a", "proto": "tcp", "addr": 1});
    let (status, error) = api.call("POST", "/api/tunnels", Some(body));
    assert_eq!((status, &error["error_code"]), (503, &json!(104)));
    assert_eq!(error["msg"], "ngrok is not yet ready to start tunnels");
    // The npm package repeats the call for this text.
    let text = "a successful ngrok tunnel session has not yet been established";
    assert_eq!(error["details"]["err"], text);
}

#[test]
fn the_document_lists_the_records() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/compatibility.md");
    let text = fs::read_to_string(path).unwrap();
    for (_, message, ..) in RECORDS.iter().chain(RECORDS_OF_A_FAILURE) {
        assert!(text.contains(&format!("`{message}`")), "{message}");
    }
}
