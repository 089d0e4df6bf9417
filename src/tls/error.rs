//! Error texts for errors of the TLS library: what failed, the cause, and what to do.

use std::io;

use crate::http1::text::printable;

pub(super) fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// First byte of a record with a handshake message.
pub(super) const HANDSHAKE_RECORD: u8 = 22;

/// Returns the error for another protocol, with its first bytes.
pub(super) fn not_tls(first: &[u8]) -> io::Error {
    let said = printable(first);
    let what = match () {
        () if first.starts_with(b"HTTP/") => {
            ": a login page of this network, a web server, or the wrong port"
        }
        () if first.starts_with(b"SSH-") => ": an SSH server",
        () => "",
    };
    invalid(format!(
        "the server does not use TLS, it sent '{said}'{what}; the edge's port for agents is needed"
    ))
}

/// Returns the text of a TLS error of the edge, with what to do.
pub fn explain(e: rustls::Error) -> io::Error {
    let hint = "; set agent.connect_cas to the edge's CA file, or to 'host' for a certificate of \
                a public CA or of a middle box whose CA this system trusts";
    invalid(describe(&e, "the edge", hint))
}

/// Returns the text of a TLS error of another server, whose CA is among this system's roots.
pub fn explain_web(e: &rustls::Error) -> io::Error {
    let hint = "; add its CA to this system's bundle, or to the file in SSL_CERT_FILE";
    invalid(describe(e, "the server", hint))
}

fn describe(e: &rustls::Error, who: &str, unknown: &str) -> String {
    use rustls::CertificateError as C;
    match e {
        rustls::Error::InvalidCertificate(c) => match c {
            C::UnknownIssuer => {
                format!("{who}'s certificate is not signed by a CA that is trusted here{unknown}")
            }
            C::NotValidYet | C::NotValidYetContext { .. } => {
                format!("{who}'s certificate is not valid yet; check this machine's clock ({c})")
            }
            C::Expired | C::ExpiredContext { .. } => {
                format!("{who}'s certificate has expired (or this machine's clock is wrong): {c}")
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                format!("{who}'s certificate is for another name: {c}")
            }
            C::BadSignature => format!(
                "{who}'s certificate is not acceptable: a signature does not hold, or its key is too \
                 weak (RSA keys need 2,048 bits)"
            ),
            other => format!("{who}'s certificate is not acceptable: {other}"),
        },
        rustls::Error::InvalidMessage(_) => {
            format!("the server does not use TLS, or not correctly ({e})")
        }
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion) => {
            format!("{who} does not support TLS 1.3 or a safe cipher ({e})")
        }
        rustls::Error::AlertReceived(alert) => {
            format!("{who} ended the TLS handshake: alert {alert:?}")
        }
        _ => format!("TLS: {e}"),
    }
}
