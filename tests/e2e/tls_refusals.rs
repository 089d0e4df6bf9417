//! Edges whose certificate is wrong in one way each: refused within the
//! handshake, the log says why, and no byte of the authtoken is sent.

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, date_time_ymd};

use crate::world::certs::{self, Authority, local_params, params};
use crate::world::peer::BadEdge;
use crate::world::upstream::nobody;

/// Starts an agent for the edge, which it must refuse with one of these words.
#[track_caller]
fn assert_refused(what: &str, edge: &BadEdge, words: &[&str]) {
    let mut agent =
        edge.agent(&["http", &nobody().port().to_string()], "  connect_timeout: 2s\n").spawn();
    assert!(edge.try_accept().is_err(), "{what}: the handshake succeeded");
    let line = agent.wait_stderr("failed to reconnect session").to_lowercase();
    assert!(words.iter().any(|word| line.contains(word)), "{what}: {line}");
    // It may get better without a restart: certificates are renewed.
    agent.assert_running();
}

#[test]
fn expired_and_not_yet_valid() {
    let authority = Authority::new();
    let mut expired = local_params();
    (expired.not_before, expired.not_after) =
        (date_time_ymd(2010, 1, 1), date_time_ymd(2011, 1, 1));
    let edge = BadEdge::with(&authority, authority.server_with(expired));
    assert_refused("expired", &edge, &["expired"]);
    let mut early = local_params();
    (early.not_before, early.not_after) = (date_time_ymd(2200, 1, 1), date_time_ymd(2201, 1, 1));
    let edge = BadEdge::with(&authority, authority.server_with(early));
    assert_refused("not yet valid", &edge, &["clock"]);
}

#[test]
fn for_another_name_or_none() {
    let authority = Authority::new();
    for names in [&["other.example"][..], &["*.0.0.1"], &[]] {
        let edge = BadEdge::with(&authority, authority.server_with(params(names)));
        assert_refused("wrong name", &edge, &["name", "127.0.0.1"]);
    }
    // The name as common name only.
    let mut common = params(&[]);
    common.distinguished_name.push(rcgen::DnType::CommonName, "127.0.0.1");
    let edge = BadEdge::with(&authority, authority.server_with(common));
    assert_refused("common name", &edge, &["name", "127.0.0.1"]);
}

#[test]
fn signed_by_nobody_who_may() {
    let (authority, other) = (Authority::new(), Authority::new());
    let edge = BadEdge::with(&authority, other.server(&[]));
    assert_refused("unknown authority", &edge, &["not signed by", "issuer"]);
    let edge = BadEdge::with(&authority, certs::self_signed());
    assert_refused("self-signed", &edge, &["not signed by", "issuer"]);
    let edge = BadEdge::with(&authority, authority.server_below_a_leaf());
    assert_refused("signed by a leaf", &edge, &["ca", "issuer", "certificate"]);
}

#[test]
fn for_another_purpose() {
    let authority = Authority::new();
    let mut client = local_params();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let edge = BadEdge::with(&authority, authority.server_with(client));
    assert_refused("for clients", &edge, &["usage", "certificate"]);
    let mut issuer = local_params();
    issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let edge = BadEdge::with(&authority, authority.server_with(issuer));
    assert_refused("an authority's own", &edge, &["certificate"]);
}
