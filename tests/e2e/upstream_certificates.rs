//! Upstreams with a verified certificate: by a file that the user named, and by the roots of a
//! system that has none yet.

use std::fs;
use std::path::Path;

use crate::support::agent::{self, Agent};
use crate::support::certs::Authority;
use crate::support::edge::Edge;
use crate::support::upstream::{Upstream, hello};
use crate::support::visitor::{Visitor, try_get};
use crate::support::{TempDir, skipped, wait_for};

/// A visitor of the endpoint at this name.
fn visit(edge: &Edge, name: &str) -> Visitor {
    Visitor::connect(edge, &format!("http://{name}.localhost:{}", edge.http.port()))
}

/// An endpoint of a configuration.
fn endpoint(name: &str, upstream: &str, more: &str) -> String {
    format!(
        "  - name: {name}\n    url: http://{name}.localhost\n    upstream:\n      url: \
         {upstream}\n{more}"
    )
}

/// Starts it with the directory `ssl` as the system's roots. `None`: this machine does not
/// permit mounts.
fn on_system(ssl: &Path, builder: agent::Builder, endpoints: usize) -> Option<Agent> {
    let ssl = ssl.display();
    let script = format!(
        "unshare -rm true || exit 77
         exec unshare -rm sh -c '
             for there in /etc/ssl /etc/pki /usr/local/share/certs; do
                 [ ! -d $there ] || mount --bind {ssl} $there || exit 77
             done
             unset SSL_CERT_FILE
             exec \"$@\"' sh \"$@\""
    );
    let mut process = builder.by(&script).spawn();
    let mut ended = None;
    wait_for("its endpoints, or its end", || {
        ended = process.ended();
        ended.is_some() || process.stdout().matches(" -> ").count() == endpoints
    });
    if ended.is_some_and(|status| status.code() == Some(77)) {
        skipped("this machine lets the test mount nothing");
        return None;
    }
    process.assert_running();
    Some(Agent::wait(process, endpoints))
}

#[test]
fn without_a_ca_bundle_one_endpoint_waits_for_it_and_the_others_serve() {
    let (edge, ssl, authority) = (Edge::start(), TempDir::new(), Authority::new());
    let plain = Upstream::hello();
    let secure = Upstream::http_on("127.0.0.1:0", Some(authority.server(&["localhost"])), hello);
    let config = edge.config_with(&format!(
        "endpoints:\n{}{}",
        endpoint("plain", &plain.port().to_string(), ""),
        endpoint(
            "secure",
            &format!("https://localhost:{}", secure.port()),
            "      tls_verify: true\n"
        ),
    ));
    let start = agent::agent(&config, ["start", "--all"]);
    let Some(mut agent) = on_system(ssl.path(), start, 2) else { return };
    let warning = agent.process().wait_stderr("cannot verify upstream certificates");
    for part in ["lvl=warn", "secure", "no CA bundle", "ca-bundle", "tls_verify_cas"] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    assert_eq!(agent.process().count_stderr("cannot verify upstream certificates"), 1);
    assert_eq!(visit(&edge, "plain").get("/a").text(), "GET /a ");

    for _ in 0..20 {
        let answer = visit(&edge, "secure").get("/");
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.field("ngrok-error-code"), Some("ERR_NGROK_8012"));
        for part in ["no CA bundle", "certificate", "ERR_NGROK_8012"] {
            assert!(answer.text().contains(part), "{part}: {}", answer.text());
        }
    }

    // A disk is mounted late, and the program that makes the bundle is still running.
    fs::create_dir(ssl.join("certs")).unwrap();
    let bundle = ssl.join("certs").join("ca-certificates.crt");
    fs::write(&bundle, "").unwrap();
    wait_for("its bundle to be found", || {
        visit(&edge, "secure").get("/").text().contains("no usable certificate")
    });
    fs::write(&bundle, authority.pem()).unwrap();
    wait_for("the upstream to be trusted", || visit(&edge, "secure").get("/b").status() == 200);
    // The roots stay once they were found.
    fs::remove_file(&bundle).unwrap();
    assert_eq!(visit(&edge, "secure").get("/c").text(), "GET /c ");
    assert_eq!(visit(&edge, "plain").get("/d").text(), "GET /d ");
}

#[test]
fn a_system_that_does_not_know_the_authority_does_not_trust_it() {
    let (edge, ssl) = (Edge::start(), TempDir::new());
    let (authority, other) = (Authority::new(), Authority::new());
    fs::create_dir(ssl.join("certs")).unwrap();
    fs::write(ssl.join("certs").join("ca-certificates.crt"), other.pem()).unwrap();
    let secure = Upstream::http_on("127.0.0.1:0", Some(authority.server(&["localhost"])), hello);
    let url = format!("https://localhost:{}", secure.port());
    let start = agent::agent(&edge.config, ["http", &url, "--upstream-tls-verify"]);
    let Some(agent) = on_system(ssl.path(), start, 1) else { return };
    let answer = agent.visit(&edge).get("/");
    assert_eq!(answer.status(), 502);
    assert!(answer.text().contains("UnknownIssuer"), "{}", answer.text());
}

/// A missing file that the user named is an error.
#[test]
fn a_file_of_authorities_is_trusted_and_has_to_be_there() {
    let (edge, dir, authority) = (Edge::start(), TempDir::new(), Authority::new());
    let secure = Upstream::http_on("127.0.0.1:0", Some(authority.server(&["localhost"])), hello);
    let url = format!("https://localhost:{}", secure.port());
    let file = dir.join("ca.pem");
    let start = || {
        agent::agent(&edge.config, ["http", &url])
            .arg(format!("--upstream-tls-verify-cas={}", file.display()))
    };
    let mut process = start().spawn();
    assert_eq!(process.wait_exit(), Some(1));
    assert!(process.stderr().contains(&file.display().to_string()), "{}", process.stderr());
    fs::write(&file, authority.pem()).unwrap();
    let agent = start().start();
    assert_eq!(try_get(&edge, agent.url(), "/e").unwrap().text(), "GET /e ");
}
