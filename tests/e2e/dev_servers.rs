//! What `--host-header` does for servers that know one name only: stand-ins for Rails and
//! WordPress. Vite itself is in `tests/interop`.

use crate::support::agent::{Agent, agent};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;

fn start(edge: &Edge, upstream: &Upstream, flags: &[&str]) -> Agent {
    let address = upstream.addr.to_string();
    let args = ["http", &address].into_iter().chain(flags.iter().copied());
    agent(&edge.config, args).start()
}

/// Refuses other hosts than its own, as Rails does in development.
fn rails() -> Upstream {
    Upstream::http(|request, wire| {
        let host = request.field("host").unwrap_or_default();
        let name = host.split(':').next().unwrap_or_default();
        if !["localhost", "127.0.0.1"].contains(&name) {
            let text = format!("Blocked hosts: {host}");
            return wire.respond("403 Forbidden", "", text.as_bytes());
        }
        let forwarded = request.field("x-forwarded-host").unwrap_or_default();
        wire.respond("200 OK", "", format!("url_for: {forwarded}").as_bytes())
    })
}

#[test]
fn a_server_that_blocks_other_hosts_serves_with_its_own() {
    let (edge, upstream) = (Edge::start(), rails());
    let plain = start(&edge, &upstream, &[]);
    let blocked = plain.visit(&edge).get("/");
    assert_eq!(blocked.status(), 403);
    assert!(blocked.text().starts_with("Blocked hosts: "), "{}", blocked.text());
    let rewritten = start(&edge, &upstream, &["--host-header=rewrite"]);
    let mut visitor = rewritten.visit(&edge);
    let public = visitor.host().to_owned();
    // The name for its links is the public one.
    assert_eq!(visitor.get("/").text(), format!("url_for: {public}"));
}

/// Redirects to the address in its settings, as WordPress does: requests for another host, and
/// its login.
fn wordpress(site: &'static str) -> Upstream {
    Upstream::http(move |request, wire| {
        let host = request.field("host").unwrap_or_default();
        let (site_host, target) = (site.split("://").nth(1).unwrap(), request.target());
        match target {
            _ if host != site_host => {
                let fields = format!("Location: {site}{target}\r\n");
                wire.respond("301 Moved Permanently", &fields, b"")
            }
            "/wp-admin/" => {
                let back = format!("{site}/wp-admin/").replace(':', "%3A").replace('/', "%2F");
                let fields = format!("Location: {site}/wp-login.php?redirect_to={back}\r\n");
                wire.respond("302 Found", &fields, b"")
            }
            "/feed" => wire.respond("302 Found", "Location: https://elsewhere.example/\r\n", b""),
            _ => wire.respond("200 OK", "", format!("page {target}").as_bytes()),
        }
    })
}

#[test]
fn redirects_to_the_address_in_the_settings_lead_to_the_public_one() {
    let edge = Edge::start();
    for site in ["http://blog.local:8080", "https://blog.local"] {
        let upstream = wordpress(site);
        let plain = start(&edge, &upstream, &[]);
        let away = plain.visit(&edge).get("/");
        assert_eq!(away.field("location"), Some(format!("{site}/").as_str()), "without the flag");
        let host = site.split("://").nth(1).unwrap();
        let agent = start(&edge, &upstream, &[&format!("--host-header={host}")]);
        let mut visitor = agent.visit(&edge);
        let public = visitor.host().to_owned();
        assert_eq!(visitor.get("/hello").text(), "page /hello");
        let login = visitor.get("/wp-admin/");
        let location = login.field("location").unwrap_or_default();
        let prefix = format!("http://{public}/wp-login.php?redirect_to=");
        assert!(location.starts_with(&prefix), "{location}");
        let other = visitor.get("/feed");
        assert_eq!(other.field("location"), Some("https://elsewhere.example/"));
    }
}
