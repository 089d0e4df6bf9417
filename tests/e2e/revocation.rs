//! Certificate revocation lists: one with the certificate of the edge ends the agent for good.
//! One that cannot be fetched or verified is a warning, logged once.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rcgen::SerialNumber;

use crate::support::certs::{Authority, local_params};
use crate::support::peer::BadEdge;
use crate::support::process::Process;
use crate::support::until;
use crate::support::upstream::nobody;

/// The serial number of the edge's certificate.
const OURS: u64 = 77;
const WARNING: &str = "certificate revocation not checked";

fn edge(authority: &Authority) -> BadEdge {
    let mut params = local_params();
    params.serial_number = Some(SerialNumber::from(OURS));
    BadEdge::with(authority, authority.server_with(params))
}

/// Starts a web server for one list. Returns its URL, and the number of requests.
fn list_server(answer: impl Into<Option<Vec<u8>>>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ngrok.crl", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (answer, count) = (answer.into(), asked.clone());
    thread::spawn(move || {
        let mut held = Vec::new();
        for mut tcp in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            match &answer {
                Some(list) => {
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") && tcp.read(&mut byte).is_ok_and(|n| n == 1)
                    {
                        head.push(byte[0]);
                    }
                    let length = list.len();
                    let start = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                    let _ = tcp.write_all(start.as_bytes()).and_then(|()| tcp.write_all(list));
                }
                // A black hole.
                None => held.push(tcp),
            }
        }
    });
    (url, asked)
}

fn agent(edge: &BadEdge, lines: &str) -> Process {
    edge.agent(&["http", &nobody().port().to_string()], lines).spawn()
}

#[track_caller]
fn assert_served(edge: &BadEdge, agent: &Process) {
    until("an agent's handshake", || edge.try_accept().ok()).welcome(&["https://x.example"]);
    agent.wait_stdout("the endpoint is up", |line| line.contains("x.example").then_some(()));
}

#[test]
fn a_revoked_certificate_is_refused_for_good() {
    let authority = Authority::new();
    let edge = edge(&authority);
    // A list is used after its time too: a revoked certificate stays revoked.
    for until_year in [2200, 2021] {
        let (url, _) = list_server(authority.revoked(&[5, OURS], until_year));
        let mut agent = agent(&edge, &format!("  crl_url: {url}\n"));
        let mut session = edge.accept();
        assert_eq!(agent.wait_exit(), Some(1), "{}", agent.report());
        let said = agent.stderr();
        assert!(said.contains("was revoked by its CA") && said.contains(&url), "{said}");
        // Not a byte arrived, and no authtoken.
        assert!(session.receive().is_err());
    }
}

#[test]
fn what_is_not_on_the_list_is_served_and_the_list_is_kept() {
    let authority = Authority::new();
    let edge = edge(&authority);
    let (url, asked) = list_server(authority.revoked(&[5], 2200));
    let kept = edge.dir().join("kept");
    let lines = format!("  crl_url: {url}\n  state_dir: {}\n", kept.display());
    for _ in 0..2 {
        let agent = agent(&edge, &lines);
        assert_served(&edge, &agent);
        assert_eq!(agent.count_stderr(WARNING), 0, "{}", agent.report());
    }
    // The second one had it from the disk, without a further request.
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(kept.join("revoked.crl").exists());
}

#[test]
fn a_list_that_cannot_be_kept_counts_all_the_same() {
    let authority = Authority::new();
    let edge = edge(&authority);
    // A file in place of the directory: like a disk that is full or read-only.
    let state = edge.dir().write("state", "");
    let lines = |url: &str| format!("  crl_url: {url}\n  state_dir: {}\n", state.display());
    let (good, asked) = list_server(authority.revoked(&[5], 2200));
    for _ in 0..2 {
        let agent = agent(&edge, &lines(&good));
        assert_served(&edge, &agent);
        assert_eq!(agent.count_stderr("lvl=warn"), 0, "{}", agent.report());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let (bad, _) = list_server(authority.revoked(&[OURS], 2200));
    let mut agent = agent(&edge, &lines(&bad));
    // Not the connections that the others have left in the queue.
    let _session = until("an agent's handshake", || edge.try_accept().ok());
    assert_eq!(agent.wait_exit(), Some(1), "{}", agent.report());
    assert!(agent.stderr().contains("was revoked by its CA"), "{}", agent.report());
}

#[test]
fn a_list_in_pem_is_as_good() {
    let authority = Authority::new();
    let edge = edge(&authority);
    let der = edge.dir().write("list.der", authority.revoked(&[OURS], 2200));
    if crate::support::program("openssl").is_none() {
        return;
    }
    let pem = std::process::Command::new("openssl")
        .args(["crl", "-inform", "DER", "-in"])
        .arg(der)
        .output()
        .unwrap();
    assert!(pem.stdout.starts_with(b"-----BEGIN X509 CRL"));
    let (url, _) = list_server(pem.stdout);
    let mut agent = agent(&edge, &format!("  crl_url: {url}\n"));
    let _session = edge.accept();
    assert_eq!(agent.wait_exit(), Some(1));
}

#[test]
fn a_list_that_is_no_help_is_a_warning_and_is_said_once() {
    let (authority, other) = (Authority::new(), Authority::new());
    let edge = edge(&authority);
    let refused = format!("http://{}/ngrok.crl", nobody());
    let cases = [
        (list_server(authority.revoked(&[5], 2021)).0, "is out of date"),
        (list_server(other.revoked(&[OURS], 2200)).0, "is not by the CA"),
        (list_server(b"<html>log in</html>".to_vec()).0, "cannot be read"),
        (refused, "refused"),
        (list_server(None).0, "no answer in time"),
        ("http://crl.invalid.example/x".to_owned(), "cannot resolve"),
    ];
    for (url, why) in cases {
        let lines = format!(
            "  crl_url: {url}\n  dns_resolver_ips: [\"{}\"]\n  dns_public_resolvers: false\n",
            nobody()
        );
        let agent = agent(&edge, &lines);
        assert_served(&edge, &agent);
        let line = agent.wait_stderr(WARNING);
        assert!(line.contains(why) && line.contains("lvl=warn") && line.contains(&url), "{line}");
        // The next session is not delayed by it again, and the warning is not repeated.
        assert_served(&edge, &agent);
        agent.wait_stderr("session is back");
        assert_eq!(agent.count_stderr(WARNING), 1, "{}", agent.report());
    }
}

#[test]
fn who_does_not_want_the_check_is_not_checked() {
    let authority = Authority::new();
    let edge = edge(&authority);
    let (url, asked) = list_server(authority.revoked(&[OURS], 2200));
    let agent = agent(&edge, &format!("  crl_url: {url}\n  crl_noverify: true\n"));
    assert_served(&edge, &agent);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn the_http_library_logs_at_debug_without_secrets() {
    let authority = Authority::new();
    let edge = edge(&authority);
    let (url, _) = list_server(authority.revoked(&[5], 2200));
    for (level, count) in [("debug", 1), ("info", 0)] {
        let lines = format!(
            "  crl_url: {url}?token=hunter2\n  state_dir: /proc/none\n  log: stderr\n  \
             log_level: {level}\n"
        );
        let agent = agent(&edge, &lines);
        assert_served(&edge, &agent);
        let response = agent.count_stderr("Response { status: 200");
        assert_eq!(response, count, "{}", agent.report());
        let of_library = agent.stderr();
        let lines: Vec<_> = of_library.lines().filter(|line| line.contains("obj=ureq")).collect();
        assert!(lines.iter().all(|line| line.contains("lvl=dbug")), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains("hunter2")), "{lines:?}");
    }
}
