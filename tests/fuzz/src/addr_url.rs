//! Target `addr_url`: texts of users for an address, a URL, a range of addresses, a duration, a
//! size. The displayed form of an accepted text is accepted again with the same value.

use culvert::config::address;
use culvert::config::modules::{AllowDeny, Modules};
use culvert::config::public_url::{self, PortPolicy};
use culvert::config::{EndpointKind, Upstream, duration, nearest, size};

use crate::driver;
use crate::input::Dice;

/// Checks all parsers of such texts.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for kind in [EndpointKind::Http, EndpointKind::Tcp, EndpointKind::Tls] {
        match Upstream::parse(kind, text) {
            Ok(upstream) => {
                assert_eq!(Upstream::parse(kind, &upstream.to_string()), Ok(upstream));
            }
            Err(why) => assert!(!why.is_empty()),
        }
        for ports in [PortPolicy::Vendor, PortPolicy::Any] {
            for binding in ["", "public", "internal", "kubernetes"] {
                let bindings = [binding.to_owned()];
                let checked = public_url::check_url(kind, text, &bindings, ports);
                let normal = public_url::normal_url(text);
                if checked.is_ok() && normal == text {
                    let fits = kind == public_url::kind_of(text) || !text.contains("://");
                    assert!(fits, "{text:?} is no URL of a {kind} endpoint");
                }
            }
        }
    }
    let normal = public_url::normal_url(text);
    assert_eq!(public_url::normal_url(&normal), normal);
    if let Ok(edge) = address::parse_edge(text) {
        assert_eq!(address::parse_edge(&edge), Ok(edge));
    }
    if let Ok(resolver) = address::parse_resolver(text) {
        assert_eq!(address::parse_resolver(&resolver.to_string()), Ok(resolver));
    }
    if let Ok(time) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::show(time)), Ok(time));
    }
    if let Ok(bytes) = size::parse(text) {
        assert_eq!(size::parse(&bytes.to_string()), Ok(bytes));
    }
    let ip_restriction = AllowDeny { allow: vec![text.to_owned()], deny: Vec::new() };
    if (Modules { ip_restriction, ..Modules::default() }).check().is_ok() {
        let (address, bits) = text.split_once('/').expect("a range has bits");
        let address: std::net::IpAddr = address.parse().expect("an address");
        let most = if address.is_ipv4() { 32 } else { 128 };
        assert!(bits.parse::<u8>().is_ok_and(|bits| bits <= most), "{text:?}");
    }
    let _ = nearest(text, ["authtoken", "log_level", ""]);
}

/// Characters and words of such texts.
const PIECES: &[&str] = &[
    "http://",
    "https://",
    "tcp://",
    "tls://",
    "file:///",
    "localhost",
    "a.example",
    "*.",
    ".internal",
    "[",
    "]",
    "::1",
    "[fe80::1%eth0]",
    "10.0.0.0",
    "/8",
    "/33",
    "/128",
    ":",
    ":80",
    ":0",
    ":65535",
    ":65536",
    "443",
    "8080",
    "/",
    "?",
    "#",
    "@",
    "u:p@",
    " ",
    "\t",
    ".",
    "-",
    "_",
    "+",
    "1",
    "0",
    "9",
    "h",
    "m",
    "s",
    "ms",
    "us",
    "\u{b5}s",
    "ns",
    "1.5",
    ".5",
    "kb",
    "MiB",
    "g",
    "-1",
    "99999999999999999999",
    "\u{e9}",
    "\u{0}",
    "HTTPS://",
];

/// Returns a few pieces, or a stored text.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    if dice.below(4) == 0 {
        let corpus = driver::corpus("addr_url");
        return corpus[dice.below(corpus.len())].clone();
    }
    let count = 1 + dice.below(6);
    let pieces: Vec<&str> = (0..count).map(|_| dice.pick(PIECES)).collect();
    pieces.concat().into_bytes()
}
