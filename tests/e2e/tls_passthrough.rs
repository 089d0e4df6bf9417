//! TLS endpoints: passed through by SNI, with the upstream's own certificate.

use std::sync::Arc;

use crate::support::certs::{self, Authority};
use crate::support::edge::Edge;
use crate::support::upstream::{Upstream, echo};
use crate::support::{TempDir, agent};

#[test]
fn the_visitor_speaks_tls_with_the_upstream_itself() {
    let edge = Edge::start();
    let authority = Authority::new();
    let dir = TempDir::new();
    let ca = dir.write("upstream-ca.pem", authority.pem());
    let server: Arc<_> = authority.server(&["secure.localhost"]);
    let upstream = Upstream::on("127.0.0.1:0", Some(server), |mut wire| {
        let _ = echo(&mut wire);
    });
    let agent = agent::agent(&edge.config, ["tls", &upstream.port().to_string()])
        .arg("--url=tls://secure.localhost")
        .start();
    assert!(agent.url().starts_with("tls://secure.localhost"), "{}", agent.url());
    for _ in 0..3 {
        // Trusts the upstream's CA only: TLS of another end would fail.
        let mut wire = certs::connect(edge.https, "secure.localhost", &ca);
        wire.write("through").unwrap();
        assert_eq!(wire.read_exact(7).unwrap(), b"through");
    }
}

#[test]
fn bytes_that_are_no_tls_are_cut_off_and_disturb_nobody() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    for rubbish in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0x16, 3, 1, 0xff, 0xff]]
    {
        let mut wire = crate::support::wire::Wire::connect(edge.https).unwrap();
        wire.write(rubbish).unwrap();
        wire.half_close();
        // An alert or nothing, then the end.
        let _ = wire.read_rest();
    }
    assert_eq!(agent.visit(&edge).get("/").status(), 200);
}
