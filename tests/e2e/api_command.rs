//! `culvert api`: requests that an API receives, and what the user gets. Each test names the
//! address of its API, so that none is the vendor's.

use std::process::{Command, Stdio};

use crate::support::certs::Authority;
use crate::support::home::{CULVERT, Home, Outcome};
use crate::support::rest::RestApi;
use crate::support::upstream::{Upstream, nobody};
use crate::support::{proc, wait_for};

/// Key of all tests. No output has it.
const KEY: &str = "ak_2hushhushKEYhush";

const LIST: &str = r#"{"endpoints":[],"uri":"/endpoints","next_page_uri":null}"#;

/// Runs a line with the key and the address in the environment.
#[track_caller]
fn run(api: &RestApi, line: &str) -> Outcome {
    let url = api.url();
    let outcome =
        Home::new().run_with(line, &[("NGROK_API_KEY", KEY), ("NGROK_API_BASE_URL", url.as_str())]);
    assert!(!format!("{outcome:?}").contains(KEY), "{outcome:?}");
    outcome
}

#[test]
fn a_list_is_json_on_standard_output_and_the_status_is_on_standard_error() {
    let api = RestApi::start("200 OK", LIST);
    let outcome = run(&api, "api endpoints list --limit 5 --before-id=ep_1");
    assert_eq!((outcome.status, outcome.err.as_str()), (0, "200 OK\n"));
    let expected =
        "{\n  \"endpoints\": [],\n  \"uri\": \"/endpoints\",\n  \"next_page_uri\": null\n}\n";
    assert_eq!(outcome.out, expected);
    let request = api.request();
    assert_eq!((request.method(), request.target()), ("GET", "/endpoints?limit=5&before_id=ep_1"));
    assert_eq!(request.field("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(request.field("ngrok-version"), Some("2"));
    let agent = concat!("culvert/", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.field("user-agent"), Some(agent));
    assert_eq!((request.field("content-length"), request.text().as_str()), (None, ""));
}

#[test]
fn methods_paths_and_bodies() {
    for (line, status, method, target, body) in [
        (
            "api credentials create --acl bind:a,bind:b --acl=bind:c --description door",
            "201 Created",
            "POST",
            "/credentials",
            r#"{"acl":["bind:a","bind:b","bind:c"],"description":"door"}"#,
        ),
        (
            "api credentials update cr_1 --metadata=",
            "200 OK",
            "PATCH",
            "/credentials/cr_1",
            r#"{"metadata":""}"#,
        ),
        (
            "api edge-modules https-edge-route-compression replace edghts_1 --module.enabled rt_2",
            "200 OK",
            "PUT",
            "/edges/https/edghts_1/routes/rt_2/compression",
            r#"{"module":{"enabled":true}}"#,
        ),
        (
            "api tunnel-sessions update ts_1 --version 1.2.3",
            "200 OK",
            "POST",
            "/tunnel_sessions/ts_1/update",
            r#"{"version":"1.2.3"}"#,
        ),
        ("api root get", "200 OK", "GET", "/", ""),
    ] {
        let api = RestApi::start(status, "{}");
        let outcome = run(&api, line);
        assert_eq!((outcome.status, outcome.out.as_str()), (0, "{}\n"), "{line}: {outcome:?}");
        assert_eq!(outcome.err, format!("{status}\n"), "{line}");
        let request = api.request();
        assert_eq!((request.method(), request.target()), (method, target), "{line}");
        assert_eq!(request.text(), body, "{line}");
        let media = (!body.is_empty()).then_some("application/json");
        assert_eq!(request.field("content-type"), media, "{line}");
    }
}

#[test]
fn a_response_without_a_body_prints_the_status_alone() {
    for line in ["api tunnel-sessions stop ts_1", "api api-keys delete ak_1"] {
        let api = RestApi::start("204 No Content", "");
        let outcome = run(&api, line);
        let expected = (0, "", "204 No Content\n");
        assert_eq!(
            (outcome.status, outcome.out.as_str(), outcome.err.as_str()),
            expected,
            "{line}"
        );
    }
}

#[test]
fn an_error_of_the_api_has_its_code_and_operation() {
    let body = r#"{"error_code":"ERR_NGROK_404","status_code":404,"msg":"ts_1 is unknown",
                   "details":{"operation_id":"op_1"}}"#;
    let api = RestApi::start("404 Not Found", body);
    let outcome = run(&api, "api tunnel-sessions get ts_1");
    assert_eq!((outcome.status, outcome.out.as_str()), (1, ""));
    let expected = "ERROR:  HTTP 404: ts_1 is unknown [ERR_NGROK_404]\nERROR:  \n\
                    ERROR:  Operation ID: op_1\n";
    assert_eq!(outcome.err.replace("ERROR:\n", "ERROR:  \n"), expected);
}

#[test]
fn other_answers_are_errors() {
    for (status, body, expected) in [
        ("502 Bad Gateway", "<html>", "HTTP 502 Bad Gateway: the response is not an error of"),
        ("200 OK", "<html>", "HTTP 200 OK: the response is not JSON"),
        ("307 Temporary Redirect", "", "HTTP 307: the response is not an error of"),
        // A server that repeats the key.
        (
            "401 Unauthorized",
            r#"{"error_code":"ERR_NGROK_202","msg":"ak_2hushhushKEYhush is invalid"}"#,
            "HTTP 401: *** is invalid [ERR_NGROK_202]",
        ),
    ] {
        let api = RestApi::start(status, body);
        let text = run(&api, "api endpoints list").refused(1);
        assert!(text.starts_with(expected), "{status}: {text}");
    }
    let outcome = Home::new().run_with(
        &format!("api endpoints list --api-url http://{}", nobody()),
        &[("NGROK_API_KEY", KEY)],
    );
    let text = outcome.refused(1);
    assert!(text.starts_with("the request failed: 127.0.0.1:"), "{text}");
    assert!(text.contains("Connection refused") && text.contains("--api-url"), "{text}");
}

#[test]
fn the_command_line_precedes_the_environment_and_that_the_configuration() {
    let home = Home::new();
    let (of_flag, of_environment, of_file) = (
        RestApi::start("200 OK", "{}"),
        RestApi::start("200 OK", "{}"),
        RestApi::start("200 OK", "{}"),
    );
    let text = format!("version: 3\nagent: {{api_key: of_file, api_url: '{}'}}\n", of_file.url());
    let config = home.file("api.yml", &text);
    let environment = of_environment.url();
    let variables =
        [("NGROK_API_KEY", "of_environment"), ("NGROK_API_BASE_URL", environment.as_str())];
    let flags = format!("--api-key of_flag --api-url {}/", of_flag.url());
    let line = format!("--config {config} api endpoints list");
    let key = |api: &RestApi| api.request().field("authorization").unwrap().to_owned();
    for (line, variables, api, expected) in [
        (format!("{line} {flags}"), &variables[..], &of_flag, "Bearer of_flag"),
        (line.clone(), &variables[..], &of_environment, "Bearer of_environment"),
        (line.clone(), &[][..], &of_file, "Bearer of_file"),
        // The order of pyngrok.
        (
            format!("--config {config} api --api-key of_flag endpoints list"),
            &[][..],
            &of_file,
            "Bearer of_flag",
        ),
    ] {
        let outcome = home.run_with(&line, variables);
        assert_eq!((outcome.status, outcome.out.as_str()), (0, "{}\n"), "{line}: {outcome:?}");
        assert_eq!(key(api), expected, "{line}");
    }
    assert!([of_flag, of_environment, of_file].iter().all(RestApi::is_quiet));
    let text = home.run("api endpoints list --api-url http://127.0.0.1:1").refused(1);
    assert!(text.starts_with("the API key is missing; set NGROK_API_KEY"), "{text}");
}

#[test]
fn an_api_of_this_machine_is_called_without_a_proxy() {
    let (home, api, proxy) =
        (Home::new(), RestApi::start("200 OK", "{}"), RestApi::start("502 Bad Gateway", ""));
    let text =
        format!("version: 3\nagent: {{proxy_url: '{}', api_url: '{}'}}\n", proxy.url(), api.url());
    let config = home.file("proxy.yml", &text);
    let line = format!("api endpoints list --config {config}");
    let environment = proxy.url();
    for variables in [
        &[("NGROK_API_KEY", KEY)][..],
        &[("NGROK_API_KEY", KEY), ("https_proxy", &environment), ("http_proxy", &environment)],
    ] {
        let outcome = home.run_with(&line, variables);
        assert_eq!((outcome.status, outcome.out.as_str()), (0, "{}\n"), "{outcome:?}");
        api.request();
    }
    assert!(proxy.is_quiet());
}

#[test]
fn a_private_ca_is_trusted_by_its_file() {
    let (authority, home) = (Authority::new(), Home::new());
    let ca = home.file("ca.pem", authority.pem());
    let api = RestApi::with("200 OK", "", "{}", Some(authority.server(&["api.test"])));
    let with_ca = run(&api, &format!("api endpoints list --api-cas {ca}"));
    assert_eq!((with_ca.status, with_ca.out.as_str()), (0, "{}\n"), "{with_ca:?}");
    api.request();
    // An edge's CA signs for its API too.
    let text = format!("version: 3\nagent: {{connect_cas: '{ca}'}}\n");
    let config = home.file("edge.yml", &text);
    let by_file = run(&api, &format!("api endpoints list --config {config}"));
    assert_eq!((by_file.status, by_file.out.as_str()), (0, "{}\n"), "{by_file:?}");
    api.request();
    let text = run(&api, "api endpoints list --api-cas trusted").refused(1);
    assert!(text.contains("is not signed by a CA that is trusted here"), "{text}");
    assert!(text.contains("--api-cas"), "{text}");
    assert!(api.is_quiet(), "the key was not sent");
}

#[test]
fn the_key_is_sent_to_one_address_and_not_visible_to_other_users() {
    let other = RestApi::start("200 OK", "{}");
    let location: &'static str = format!("Location: {}/x\r\n", other.url()).leak();
    let api = RestApi::with("302 Found", location, "", None);
    assert_eq!(run(&api, "api endpoints list").status, 0);
    assert!(api.request().field("authorization").is_some());
    assert_eq!(other.request().field("authorization"), None);

    // An API that does not respond, so that the process can be looked at.
    let silent = Upstream::tcp(|mut wire| {
        let _ = wire.read_rest();
    });
    let mut child = Command::new(CULVERT)
        .args(["api", "secrets", "create", "--name", "door", "--value", "2hushhushVALUEhush"])
        .args(["--api-key", KEY, &format!("--api-url=http://{}", silent.addr)])
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the request", || silent.open() == 1);
    assert!(proc::lives(child.id()));
    let line = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let line = String::from_utf8(line).unwrap();
    assert!(line.contains("door") && !line.contains("hush"), "{line:?}");
}

#[test]
fn texts_of_files_and_urls_are_fields() {
    let home = Home::new();
    let file = home.file("policy.json", "{\"on_http_request\": []}\n");
    let api = RestApi::start("201 Created", "{}");
    let line = "api endpoints create --url https://a.example --traffic-policy-file";
    assert_eq!(run(&api, &format!("{line} {file}")).status, 0);
    let body = r#"{"url":"https://a.example","traffic_policy":"{\"on_http_request\": []}\n"}"#;
    assert_eq!(api.request().text(), body);

    let page = RestApi::with("200 OK", "", "policy: text", None);
    let line = "api endpoints update ep_1 --traffic-policy-url";
    assert_eq!(run(&api, &format!("{line} {}", page.url())).status, 0);
    assert_eq!(page.request().field("authorization"), None);
    assert_eq!(api.request().text(), r#"{"traffic_policy":"policy: text"}"#);

    let text = run(&api, "api secrets create --value x --value-file y").refused(2);
    assert!(text.contains("takes one of --value and --value-file"), "{text}");
    let text = run(&api, "api secrets create --value-file /missing").refused(1);
    assert!(text.starts_with("cannot read --value-file: /missing: No such file"), "{text}");
    assert!(api.is_quiet());
}
