//! Status codes: their reason phrases, and which responses carry no body.

/// Returns whether another response follows one with this code (RFC 9110 15.2). Not for status
/// 101, which ends HTTP on its connection.
pub fn is_interim(status: u16) -> bool {
    status < 200 && status != 101
}

/// Returns whether responses with this code never have a body (RFC 9110 6.4.1).
pub fn has_no_body(status: u16) -> bool {
    status < 200 || matches!(status, 204 | 304)
}

/// Returns whether responses with this code have no Content-Length and no Transfer-Encoding
/// (RFC 9110 8.6, RFC 9112 6.1).
pub fn has_no_framing(status: u16) -> bool {
    status < 200 || status == 204
}

/// Returns the reason phrase of a code that this program sends.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_without_a_body() {
        for status in [100, 101, 103, 204, 304] {
            assert!(has_no_body(status), "{status}");
        }
        for status in [200, 205, 301, 404, 500] {
            assert!(!has_no_body(status) && !is_interim(status), "{status}");
        }
        assert!(is_interim(100) && is_interim(103) && !is_interim(101));
        assert!(has_no_framing(204) && !has_no_framing(304));
    }
}
