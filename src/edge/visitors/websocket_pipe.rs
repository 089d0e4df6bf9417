//! A visitor's WebSocket in front of an upstream that speaks bytes. Frames are read in
//! [`super::websocket`] and written in [`super::response`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::conn::VisitorConn;
use super::exchange::VisitorExchange;
use super::exchange_state::RequestStart;
use super::passthrough::{DRAIN_TIMEOUT, NO_READ_TIMEOUT};
use super::response::ResponseFilter;
use super::websocket::{self, DecodeEnd, Decoded, FrameDecoder};
use crate::edge::Edge;
use crate::edge::agents::registry::OnlineEndpoint;
use crate::edge::config::Limits;
use crate::event;
use crate::session::SendError;

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// Silence of the upstream that ends the connection after the visitor's close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects a visitor, whose WebSocket was accepted, with a new stream. `prefix` precedes its
/// bytes; `early` was read already.
pub fn serve(
    edge: &Edge,
    conn: &Arc<VisitorConn>,
    endpoint: &OnlineEndpoint,
    prefix: &[u8],
    early: &[u8],
) {
    let start = RequestStart::pipe();
    let (target, buffers, filter) =
        (endpoint.wait_for_target(), &edge.buffers, &ResponseFilter::binary_messages);
    match VisitorExchange::open(&target, conn, buffers, prefix, filter, &start, None) {
        Ok(exchange) => pipe(conn, &exchange, early, edge.config().limits),
        Err(e) => {
            event!(debug, obj = "edge", "visitor refused", url = endpoint.url, err = e);
            conn.abort();
        }
    }
}

fn pipe(conn: &Arc<VisitorConn>, exchange: &Arc<VisitorExchange>, early: &[u8], limits: Limits) {
    let Limits { stall, half_closed, .. } = limits;
    let mut decoder = FrameDecoder::default();
    let mut buf = vec![0; BUFFER_BYTES];
    let mut next = deliver(exchange, decoder.feed(early), stall);
    while next == Next::Read {
        let left = exchange.half_close_left(half_closed);
        if left.is_some_and(|left| left.is_zero()) {
            exchange.cancel();
            break;
        }
        conn.set_read_timeout(left.or(half_closed).unwrap_or(NO_READ_TIMEOUT));
        match conn.read(&mut buf) {
            Ok(n) if n > 0 => next = deliver(exchange, decoder.feed(&buf[..n]), stall),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // Without a close frame the end may be that of a broken connection.
            _ => {
                exchange.cancel();
                break;
            }
        }
    }
    if next == Next::Finish {
        exchange.finish_request();
        // The upstream's last bytes come before the close frame (RFC 6455 5.5.1).
        let timeout = half_closed.map_or(CLOSE_TIMEOUT, |limit| limit.min(CLOSE_TIMEOUT));
        if !exchange.wait_pipe_end(stall, Some(timeout)) {
            exchange.reply(&websocket::close_frame());
            conn.finish();
        }
    } else if exchange.is_cut() {
        exchange.wait_end(DRAIN_TIMEOUT);
    }
    exchange.detach();
}

/// What follows a piece of the visitor's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Read,
    /// The visitor has ended in an orderly way.
    Finish,
    /// Both connections are reset.
    Cancel,
    /// The stream was ended.
    Stop,
}

fn deliver(exchange: &Arc<VisitorExchange>, decoded: Decoded, stall: Duration) -> Next {
    let sent = exchange.send(&decoded.data, stall);
    let next = after_piece(&sent, decoded.end);
    if sent.is_ok() {
        exchange.reply(&decoded.reply);
    }
    if next == Next::Cancel {
        exchange.cancel();
    }
    next
}

fn after_piece(sent: &Result<(), SendError>, end: Option<DecodeEnd>) -> Next {
    match (sent, end) {
        // The upstream lacks bytes: its end must not look orderly.
        (Err(SendError::Late), _) | (Ok(()), Some(DecodeEnd::Invalid)) => Next::Cancel,
        // The stream has ended. What the upstream sent before is still delivered.
        (Err(_), _) => Next::Stop,
        (Ok(()), Some(DecodeEnd::Closed)) => Next::Finish,
        (Ok(()), None) => Next::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_that_lacks_bytes_gets_no_orderly_end() {
        for end in [None, Some(DecodeEnd::Closed), Some(DecodeEnd::Invalid)] {
            assert_eq!(after_piece(&Err(SendError::Late), end), Next::Cancel, "{end:?}");
            assert_eq!(after_piece(&Err(SendError::Over), end), Next::Stop, "{end:?}");
        }
        assert_eq!(after_piece(&Ok(()), Some(DecodeEnd::Closed)), Next::Finish);
        assert_eq!(after_piece(&Ok(()), Some(DecodeEnd::Invalid)), Next::Cancel);
        assert_eq!(after_piece(&Ok(()), None), Next::Read);
    }
}
