//! Proxies of each kind, scripted and real ones, and the errors for the user. Logins are
//! secrets that must not appear in any output.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use crate::support::certs::Authority;
use crate::support::peer::{AUTH, BIND, BadEdge, auth_response, bind_response};
use crate::support::process::{Process, plant_secret};
use crate::support::proxy::Proxy;
use crate::support::upstream::{Upstream, nobody};
use crate::support::visitor::try_get;
use crate::support::{TempDir, agent, edge::Edge, program, until, wait_for};

const NAME: &str = "edge.example";
const PASSWORD: &str = "planted-password-of-proxies";
/// `user:` and that password in base64.
const ENCODED: &str = "dXNlcjpwbGFudGVkLXBhc3N3b3JkLW9mLXByb3hpZXM=";

fn edge() -> BadEdge {
    plant_secret(PASSWORD);
    plant_secret(ENCODED);
    let authority = Authority::new();
    let server = authority.server(&[NAME]);
    BadEdge::with(&authority, server)
}

/// Disables resolvers: a name that must be resolved is an error.
fn no_dns() -> String {
    format!("  dns_resolver_ips: [\"{}\"]\n  dns_public_resolvers: false\n", nobody())
}

fn agent_via(edge: &BadEdge, proxy_url: &str) -> Process {
    let lines = format!("  proxy_url: {proxy_url}\n  connect_timeout: 2s\n{}", no_dns());
    edge.agent_at(&format!("{NAME}:4443"), &["http", &nobody().port().to_string()], &lines).spawn()
}

/// Asserts that the agent connects, and by which kind of proxy. The agent ends before its
/// session, so that it does not reconnect.
#[track_caller]
fn assert_served(edge: &BadEdge, agent: Process, proxy_type: &str) {
    let mut session = until("an agent's handshake", || edge.try_accept().ok());
    let (stream, request) = session.wait_call(AUTH);
    assert_eq!(request["Extra"]["ProxyType"], proxy_type);
    session.answer(stream, &auth_response());
    let (stream, request) = session.wait_call(BIND);
    session.answer(stream, &bind_response(&request, "b", "https://x.example"));
    agent.wait_stdout("the endpoint is up", |line| line.contains("x.example").then_some(()));
    drop(agent);
}

#[test]
fn http_with_and_without_a_login() {
    let edge = edge();
    let open = Proxy::http(edge.addr(), None);
    let agent = agent_via(&edge, &format!("http://{}", open.addr));
    assert_served(&edge, agent, "http");
    // The name was sent, not an address.
    assert_eq!(open.wishes()[0].target, format!("{NAME}:4443"));
    let closed = Proxy::http(edge.addr(), Some(ENCODED));
    let agent = agent_via(&edge, &format!("http://user:{PASSWORD}@{}", closed.addr));
    assert_served(&edge, agent, "http");
}

#[test]
fn https_with_a_certificate_that_this_system_trusts() {
    let edge = edge();
    let authority = Authority::new();
    let proxy = Proxy::https(edge.addr(), authority.server(&[]));
    let agent = agent_via(&edge, &format!("https://{}", proxy.addr));
    let line = agent.wait_stderr("connect session");
    assert!(line.contains("SSL_CERT_FILE") && line.contains(&proxy.addr.to_string()), "{line}");
    drop(agent);
    let bundle = edge.dir().write("bundle.pem", authority.pem());
    let lines = format!("  proxy_url: https://{}\n{}", proxy.addr, no_dns());
    let agent = edge
        .agent_at(NAME, &["http", &nobody().port().to_string()], &lines)
        .env("SSL_CERT_FILE", bundle)
        .spawn();
    assert_served(&edge, agent, "https");
    assert_eq!(proxy.wishes()[0].target, format!("{NAME}:443"));
}

#[test]
fn socks_with_and_without_a_login() {
    let edge = edge();
    let open = Proxy::socks(edge.addr(), None);
    assert_served(&edge, agent_via(&edge, &format!("socks5://{}", open.addr)), "socks5");
    assert_eq!(open.wishes()[0].target, format!("{NAME}:4443"));
    let login: &'static str = format!("user:{PASSWORD}").leak();
    let closed = Proxy::socks(edge.addr(), Some(login));
    let agent = agent_via(&edge, &format!("socks5h://{login}@{}", closed.addr));
    assert_served(&edge, agent, "socks5");
}

#[test]
fn the_environment_names_a_proxy_and_who_is_reached_without() {
    let edge = edge();
    let proxy = Proxy::http(edge.addr(), None);
    let url = format!("http://{}", proxy.addr);
    let upstream = nobody().port().to_string();
    for name in ["https_proxy", "HTTPS_PROXY", "http_proxy", "ALL_PROXY"] {
        let agent = edge.agent_at(NAME, &["http", &upstream], &no_dns()).env(name, &url).spawn();
        assert_served(&edge, agent, "http");
    }
    let dead = format!("http://{}", nobody());
    // The configuration has priority.
    let lines = format!("  proxy_url: {url}\n{}", no_dns());
    let agent = edge.agent_at(NAME, &["http", &upstream], &lines).env("https_proxy", &dead).spawn();
    assert_served(&edge, agent, "http");
    let before = proxy.wishes().len();
    // Not for this machine itself and the hosts in no_proxy.
    let agent = edge.agent(&["http", &upstream], "").env("https_proxy", &dead).spawn();
    assert_served(&edge, agent, "");
    let agent = edge
        .agent_at(NAME, &["http", &upstream], &no_dns())
        .env("https_proxy", &url)
        .env("no_proxy", "other.example, .example")
        .spawn();
    let line = agent.wait_stderr("connect session");
    assert!(line.contains("cannot resolve"), "{line}");
    assert_eq!(proxy.wishes().len(), before);
}

#[test]
fn a_proxy_url_that_is_none_is_refused_at_once() {
    let edge = edge();
    let url = format!("ftp://user:{PASSWORD}@host");
    let mut agent = agent_via(&edge, &url);
    assert_eq!(agent.wait_exit(), Some(1));
    assert!(
        agent.stderr().contains("agent.proxy_url is not a proxy; write a URL"),
        "{}",
        agent.report()
    );
}

/// A proxy, its URL's scheme, and the expected error.
type Case = (&'static str, Proxy, &'static str);

#[test]
fn each_failure_is_one_clear_line_and_another_attempt() {
    let edge = edge();
    let cut = || Proxy::scripted(|mut tcp| _ = tcp.read(&mut [0; 1_000]));
    let half = |bytes: &'static [u8]| {
        Proxy::scripted(move |mut tcp| {
            let _ = tcp.read(&mut [0; 1_000]);
            let _ = std::io::Write::write_all(&mut tcp, bytes);
        })
    };
    let silent = || Proxy::saying(b"");
    let wrong_user = Proxy::socks(edge.addr(), Some("user:other"));
    let cases: Vec<Case> = vec![
        (
            "http",
            Proxy::http(edge.addr(), Some("x")),
            "does not accept this user and password (407)",
        ),
        ("http", Proxy::saying(b"HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM\r\n\r\n"), "NTLM"),
        ("http", Proxy::saying(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), "502 Bad Gateway"),
        ("http", Proxy::saying(b"HTTP/1.1 403 Forbidden\r\n\r\n"), "does not allow a tunnel"),
        ("http", Proxy::saying(b"HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n"), "login page"),
        ("http", Proxy::saying(b"SSH-2.0-dropbear\r\n"), "not HTTP: 'SSH-2.0-dropbear'"),
        ("http", Proxy::saying(&[0xff; 40_000]), "not HTTP"),
        ("http", Proxy::saying(b"HTTP/1.1 200 OK\r\n\r\nhello"), "bytes behind its response"),
        ("http", silent(), "no answer in time"),
        ("http", cut(), "closed the connection"),
        ("http", half(b"HTTP/1.1 200 O"), "closed the connection"),
        // The tunnel is open and breaks: the handshake fails.
        ("http", half(b"HTTP/1.1 200 OK\r\n\r\n"), "closed the connection during the TLS"),
        ("https", Proxy::saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does not use TLS"),
        ("https", silent(), "no answer in time"),
        ("socks5", wrong_user, "does not accept this user and password"),
        ("socks5", Proxy::saying(&[5, 0xff]), "no login method"),
        ("socks5", Proxy::saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "check its port"),
        ("socks5", silent(), "no answer in time"),
        ("socks5", half(&[5]), "closed the connection"),
    ];
    let mut agents: Vec<_> = cases
        .iter()
        .map(|(scheme, proxy, _)| {
            agent_via(&edge, &format!("{scheme}://user:{PASSWORD}@{}", proxy.addr))
        })
        .collect();
    for (agent, (scheme, proxy, what)) in agents.iter_mut().zip(&cases) {
        let (next, line) = agent.wait_stderr_from(0, "connect session");
        assert!(line.contains(what), "{scheme}: no {what:?}: {line}");
        let shown = format!("proxy {scheme}://{}", proxy.addr);
        assert!(
            line.contains(&shown) || what.contains("handshake") || what.contains("TLS"),
            "{line}"
        );
        agent.wait_stderr_from(next, "connect session");
        agent.assert_running();
    }
}

#[test]
fn what_socks_proxies_refuse_is_said_in_words() {
    let edge = edge();
    let codes: [(&'static [u8], &str); 4] = [
        (&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0], "rules do not allow"),
        (&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0], "its name is unknown there"),
        (&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0], "the edge refused"),
        (&[5, 99, 0, 1, 0, 0, 0, 0, 0, 0], "code 99"),
    ];
    for (answer, what) in codes {
        let proxy = Proxy::scripted(move |mut tcp| {
            for piece in [&[5, 0][..], answer] {
                let _ = tcp.read(&mut [0; 100]);
                let _ = std::io::Write::write_all(&mut tcp, piece);
            }
            let _ = tcp.read(&mut [0; 1]);
        });
        let agent = agent_via(&edge, &format!("socks5://{}", proxy.addr));
        let line = agent.wait_stderr("connect session");
        assert!(line.contains(what), "{line}");
    }
}

#[test]
fn a_proxy_that_is_not_there() {
    let edge = edge();
    let agent = agent_via(&edge, &format!("http://user:{PASSWORD}@{}", nobody()));
    let line = agent.wait_stderr("connect session");
    assert!(line.contains("proxy http://127.0.0.1:") && line.contains("refused"), "{line}");
    // A proxy's name is resolved like any other.
    let agent = agent_via(&edge, "http://proxy.lan:3128");
    let line = agent.wait_stderr("connect session");
    assert!(line.contains("cannot resolve 'proxy.lan'"), "{line}");
}

/// Returns a port that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Serves a visitor through an agent of a real edge behind a real proxy.
#[track_caller]
fn assert_carries(proxy_url: &str) {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let config = edge.config_via(edge.agent, &format!("  proxy_url: {proxy_url}\n"));
    // By name: the proxy resolves it.
    let text = fs::read_to_string(&config).unwrap();
    let named = format!("localhost:{}", edge.agent.port());
    fs::write(&config, text.replace(&edge.agent.to_string(), &named)).unwrap();
    let agent = agent::agent(&config, ["http", &upstream.port().to_string()]).start();
    let answer = try_get(&edge, agent.url(), "/through").expect("an answer");
    assert_eq!(answer.text(), "GET /through ");
}

/// Starts a proxy program and waits until it listens.
fn listening(name: &str, command: &mut Command, at: SocketAddr) -> Process {
    let mut process = Process::start(name, command);
    wait_for("the proxy to listen", || {
        process.assert_running();
        std::net::TcpStream::connect(at).is_ok()
    });
    process
}

#[test]
fn through_tinyproxy() {
    let Some(tinyproxy) = program("tinyproxy") else { return };
    let (dir, at) = (TempDir::new(), free());
    let config = format!(
        "Port {}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nBasicAuth user {PASSWORD}\n",
        at.port()
    );
    let config = dir.write("tinyproxy.conf", config);
    let mut command = Command::new(tinyproxy);
    let _proxy = listening("tinyproxy", command.arg("-d").arg("-c").arg(config), at);
    assert_carries(&format!("http://user:{PASSWORD}@{at}"));
}

#[test]
fn through_microsocks() {
    let Some(microsocks) = program("microsocks") else { return };
    let at = free();
    let mut command = Command::new(microsocks);
    command.args(["-i", "127.0.0.1", "-p", &at.port().to_string(), "-u", "user", "-P", PASSWORD]);
    let _proxy = listening("microsocks", &mut command, at);
    assert_carries(&format!("socks5://user:{PASSWORD}@{at}"));
}

/// Large transfers in both directions through the thread that joins two TLS connections.
#[test]
fn bulk_through_https() {
    let (edge, authority) = (Edge::start(), Authority::new());
    let body = vec![b'x'; 5_000_000];
    let sent = body.clone();
    let upstream = Upstream::http(move |request, wire| {
        assert_eq!(request.body.len(), 1_000_000);
        wire.respond("200 OK", "", &sent)
    });
    let proxy = Proxy::https(edge.agent, authority.server(&[]));
    let dir = TempDir::new();
    let bundle = dir.write("bundle.pem", authority.pem());
    let config = edge.config_via(edge.agent, &format!("  proxy_url: https://{}\n", proxy.addr));
    let agent = agent::agent(&config, ["http", &upstream.port().to_string()])
        .env("SSL_CERT_FILE", bundle)
        .start();
    let mut visitor = agent.visit(&edge);
    visitor.send("POST", "/", "", &vec![b'y'; 1_000_000]).unwrap();
    let answer = visitor.wire.read_response("POST").unwrap();
    assert_eq!(answer.body.len(), body.len());
    assert!(answer.body == body);
}
