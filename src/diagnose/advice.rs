//! One line of advice for each kind of fault. Pure functions: faults are found elsewhere.

use std::io::ErrorKind;

/// Returns the advice for an address that does not accept connections.
pub fn tcp(kind: ErrorKind, host: &str, port: u16) -> String {
    match kind {
        ErrorKind::ConnectionRefused => format!(
            "check the port in connect_url, and whether a firewall rejects TCP to {host} port {port}"
        ),
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
            "check the link and the default route (ip route)".to_owned()
        }
        _ => format!(
            "allow outgoing TCP to {host} port {port} in the firewall, or set proxy_url to a proxy"
        ),
    }
}

/// Returns the advice for a proxy that does not carry connections.
pub fn proxy(proxy: &str) -> String {
    format!("check proxy_url (or https_proxy of the environment): {proxy} is used")
}

/// Returns the advice for a handshake that failed with the error `text`. `issuer`: issuer of
/// the certificate that was received, if there was one.
pub fn tls(kind: ErrorKind, text: &str, host: &str, issuer: Option<&str>) -> String {
    if text.contains("it sent 'HTTP/") {
        return portal("");
    }
    if text.contains("not valid yet") {
        return CLOCK.to_owned();
    }
    if text.contains("has expired") {
        return format!("{CLOCK}; if it is right, the certificate needs a renewal");
    }
    if text.contains("for another name") {
        return format!(
            "DNS or a login page leads to another server than {host}: check connect_url and the \
             resolver (dns_resolver_ips)"
        );
    }
    if let Some(issuer) = issuer.filter(|_| text.contains("not signed by a CA")) {
        return format!(
            "'{issuer}' intercepts TLS: exempt {host} from it, or trust it with connect_cas (a \
             PEM file, or host)"
        );
    }
    match kind {
        ErrorKind::TimedOut => format!(
            "TLS to {host} is dropped on the way: exempt it in the firewall, or set proxy_url"
        ),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => format!(
            "a firewall that closes TLS to {host} must exempt it, or connect_url has the wrong port"
        ),
        _ => format!("check that connect_url names the edge's port for agents at {host}"),
    }
}

/// Returns the advice for a login page in place of the network. `url`: where it is, if that is
/// known.
pub fn portal(url: &str) -> String {
    let page = if url.is_empty() { "a web page" } else { url };
    format!("a login page answers: open {page} in a browser of this network and sign in")
}

/// Returns the advice for a path that loses large packets.
pub fn large_packets(interface: &str) -> String {
    let dev = if interface.is_empty() { "DEV" } else { interface };
    format!(
        "large packets are lost: lower the MTU (ip link set dev {dev} mtu 1280), or clamp the MSS \
         in the router"
    )
}

/// Advice for a wrong clock.
pub const CLOCK: &str = "set this machine's clock (date -s, or NTP)";

/// Advice for a private address in place of a public one.
pub const PRIVATE_ADDRESS: &str =
    "the resolver filters names or shows a login page: set dns_resolver_ips to another one";

/// Advice for a name that no resolver knows.
pub const NAME: &str =
    "check /etc/resolv.conf, or set dns_resolver_ips to a resolver of this network";

/// Advice for a machine without a link.
pub const LINK: &str = "check cable, Wi-Fi or modem, then \"ip link\"";

/// Advice for a machine without an address.
pub const ADDRESS: &str = "check the DHCP client, or set an address (ip address)";

/// Advice for a machine without a default route.
pub const ROUTE: &str = "check the DHCP client, or set a route (ip route add default via GATEWAY)";

/// Advice for a loopback interface that is down.
pub const LOOPBACK: &str = "ip link set dev lo up, and 127.0.0.1 localhost in /etc/hosts";

/// Advice for a revocation list that cannot be used.
pub const CRL: &str = "allow HTTP to the host of crl_url, or set crl_noverify: true";

/// Advice for a revoked certificate.
pub const REVOKED: &str = "the server may not be the edge: check connect_url and the resolver";
