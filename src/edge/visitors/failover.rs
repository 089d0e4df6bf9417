//! Another member of a pool for a request that its upstream did not get: the request as it was
//! sent, the members that are left, and how an agent reports an upstream that is down. No
//! stream is opened here.

use std::sync::Arc;

use super::stream_target::StreamTarget;
use crate::http1::head;

/// Members that are tried for one request after the first one.
pub const MAX_MEMBERS: usize = 3;

/// Start of a response that may report an upstream that is down.
const BAD_GATEWAY: &[u8] = b"HTTP/1.1 502 ";

/// Header of an agent that could not connect to its upstream (protocol 6.5).
const UNREACHABLE: &[u8] = b"ngrok-error-code: ERR_NGROK_8012";

/// Starts of the pages of ngrok's SDKs for the same (protocol 6.5).
const SDK_PAGES: [&[u8]; 2] = [b"failed to dial backend: ", b"failed to connect to backend: "];

/// Longest head that is read for a decision.
const MAX_HEAD_BYTES: usize = 4096;

/// Returns where a stream to a member is opened, and what stands in front of the request.
pub type PoolMember = Arc<dyn Fn() -> (StreamTarget, Vec<u8>) + Send + Sync>;

/// A request that another member can serve.
#[derive(Clone)]
pub struct Failover {
    /// All of the request, as the upstream gets it.
    pub request: Arc<[u8]>,
    /// The members to try, the last one first.
    pub members: Vec<PoolMember>,
    /// Whether the request may be sent twice.
    pub idempotent: bool,
}

/// Returns whether a response reports that the upstream got nothing of the request. `None`:
/// the head is not complete. An SDK's page has no header of its own, so it counts for idempotent
/// requests only.
pub fn reports_unreachable(bytes: &[u8], idempotent: bool) -> Option<bool> {
    let n = bytes.len().min(BAD_GATEWAY.len());
    if bytes[..n] != BAD_GATEWAY[..n] {
        return Some(false);
    }
    let Some(end) = head::end(bytes, 0) else {
        return (bytes.len() > MAX_HEAD_BYTES).then_some(false);
    };
    let (head, body) = bytes.split_at(end);
    let mut lines = head.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end);
    if lines.any(|line| line.eq_ignore_ascii_case(UNREACHABLE)) {
        return Some(true);
    }
    Some(idempotent && SDK_PAGES.iter().any(|page| body.starts_with(page)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_page_is_recognized_wherever_it_is_cut() {
        let page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\
                     Ngrok-Error-Code: ERR_NGROK_8012\r\n\r\nno";
        let end = page.len() - 2;
        for n in 0..=page.len() {
            let expected = (n >= end).then_some(true);
            assert_eq!(reports_unreachable(&page[..n], false), expected, "{n} bytes");
        }
    }

    #[test]
    fn an_sdks_page_counts_for_idempotent_requests() {
        let page = b"HTTP/1.1 502 Bad Gateway\r\n\r\nfailed to dial backend: refused";
        assert_eq!(reports_unreachable(page, true), Some(true));
        assert_eq!(reports_unreachable(page, false), Some(false));
        assert_eq!(reports_unreachable(&page[..40], true), Some(false));
    }

    #[test]
    fn other_responses_pass_at_once() {
        for response in [
            &b"HTTP/1.1 200 OK\r\n"[..],
            b"HTTP/1.1 502 Bad Gateway\r\n\r\nno",
            b"HTTP/1.1 502 Bad Gateway\r\nngrok-error-code: ERR_NGROK_3004\r\n\r\n-",
            b"HTTP/1.0",
            b"SSH-2.0",
        ] {
            assert_eq!(reports_unreachable(response, true), Some(false), "{response:?}");
        }
        let endless = [BAD_GATEWAY, &[b'x'; MAX_HEAD_BYTES]].concat();
        assert_eq!(reports_unreachable(&endless, true), Some(false));
    }
}
