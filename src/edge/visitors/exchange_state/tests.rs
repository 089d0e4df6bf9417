//! Each transition of an exchange, and a reset from both sides at each step.

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const UNTIL_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nsome";
const PART: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome";
const PEER: Reset = Reset::Peer(Code::STREAM_CANCELLED);
const LOCAL: Reset = Reset::Local(Code::STREAM_CANCELLED);
const NO_TIME: Duration = Duration::from_secs(1);

/// A visitor's connection that accepts `room` bytes.
struct Visitor {
    room: usize,
    got: Vec<u8>,
    finished: bool,
    aborted: bool,
    broken: bool,
    /// It keeps encrypted bytes.
    buffers: bool,
}

impl Outlet for Visitor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let n = bytes.len().min(self.room);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= n;
        self.got.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.buffers {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(()),
        }
    }

    fn finish(&mut self) {
        self.finished = true;
    }

    fn abort(&mut self) {
        self.aborted = true;
    }

    fn fd(&self) -> std::os::fd::RawFd {
        -1
    }
}

fn visitor(room: usize) -> Visitor {
    Visitor {
        room,
        got: Vec::new(),
        finished: false,
        aborted: false,
        broken: false,
        buffers: false,
    }
}

fn start(request: RequestDirection) -> RequestStart {
    RequestStart {
        context: RequestContext::default(),
        format: PageFormat::default(),
        request,
        retry_frame: Vec::new(),
    }
}

fn http() -> ExchangeState {
    ExchangeState::new(ResponseFilter::http(), &start(RequestDirection::Done))
}

fn upload(rest: u64) -> ExchangeState {
    ExchangeState::new(ResponseFilter::http(), &start(RequestDirection::Sending { rest }))
}

fn pipe() -> ExchangeState {
    let sending = RequestDirection::Sending { rest: u64::MAX };
    ExchangeState::new(ResponseFilter::passthrough(), &start(sending))
}

fn now() -> Instant {
    Instant::ZERO
}

impl Visitor {
    /// A truncated body must not look complete.
    #[track_caller]
    fn assert_reset(&self) {
        assert!(self.aborted && !self.finished, "a clean end");
    }

    #[track_caller]
    fn assert_clean(&self) {
        assert!(self.finished && !self.aborted, "a reset");
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.got).into_owned()
    }
}

/// Puts a kept exchange into the state after its first response.
fn reused(retry_frame: &[u8]) -> (ExchangeState, Visitor) {
    let (mut state, mut out) = (http(), visitor(usize::MAX));
    let _ = state.data(OK, now(), &mut out);
    let mut next = start(RequestDirection::Done);
    next.retry_frame = retry_frame.to_vec();
    assert!(state.begin(&mut next, now(), NO_TIME));
    out.got.clear();
    (state, out)
}

#[test]
fn a_complete_response_leaves_the_connection_to_the_next_request() {
    let (mut state, mut out) = (http(), visitor(usize::MAX));
    assert_eq!(state.status(), ExchangeStatus::InProgress);
    let effects = state.data(OK, now(), &mut out);
    assert_eq!(effects, Effects { consumed: OK.len(), ..Effects::default() });
    assert_eq!(state.status(), ExchangeStatus::Idle);
    assert!(out.text().ends_with("\r\n\r\nok") && !out.finished && !out.aborted);
    assert!(state.begin(&mut start(RequestDirection::Done), now(), NO_TIME));
    assert_eq!(state.status(), ExchangeStatus::InProgress);
    // Not before the response is complete.
    assert!(!state.begin(&mut start(RequestDirection::Done), now(), NO_TIME));
    let _ = state.data(OK, now(), &mut out);
    // Not after the timeout.
    let late = now() + Duration::from_secs(2);
    assert!(!state.begin(&mut start(RequestDirection::Done), late, NO_TIME));
    assert_eq!(state.detach(&mut out).stream, StreamEffect::Finish);
    assert!(!out.aborted);
}

#[test]
fn bytes_that_wait_leave_before_the_end_and_give_the_window_back() {
    let (mut state, mut out) = (http(), visitor(40));
    let effects = state.data(UNTIL_CLOSE, now(), &mut out);
    let held = state.waiting();
    assert!(held > 0 && state.wants_room());
    assert_eq!(effects.consumed + held, UNTIL_CLOSE.len().max(held));
    let effects = state.finished(&mut out);
    assert_eq!((effects.stream, out.finished), (StreamEffect::Finish, false));
    out.room = 1;
    assert_eq!((state.room(&mut out).consumed, out.finished), (1, false));
    out.room = usize::MAX;
    let effects = state.room(&mut out);
    assert!(effects.consumed > 0 && effects.wake_reader);
    out.assert_clean();
    assert_eq!(state.status(), ExchangeStatus::Closed);
    assert_eq!(state.detach(&mut out).stream, StreamEffect::Finish);
}

#[test]
fn bytes_that_the_connection_buffers_wait_as_well() {
    let (mut state, mut out) = (http(), visitor(usize::MAX));
    out.buffers = true;
    let _ = state.data(UNTIL_CLOSE, now(), &mut out);
    assert!(state.waiting() == 0 && state.is_blocked());
    out.buffers = false;
    let _ = state.room(&mut out);
    assert!(!state.is_blocked());
}

#[test]
fn an_early_response_keeps_the_connection_if_little_is_left_of_the_body() {
    for (rest, kept) in [(MAX_DISCARDED_BODY_BYTES, true), (MAX_DISCARDED_BODY_BYTES + 1, false)] {
        let (mut state, mut out) = (upload(rest), visitor(usize::MAX));
        let effects = state.data(OK, now(), &mut out);
        assert!(!effects.wake_reader, "the body still comes");
        assert_eq!(!out.text().contains("Connection: close"), kept, "{}", out.text());
        assert_eq!(out.finished, !kept);
        let idle = if kept { ExchangeStatus::Idle } else { ExchangeStatus::Closed };
        assert_eq!(state.status(), idle);
        assert_eq!(state.request_done(&mut out).wake_reader, !kept);
        assert_eq!(state.begin(&mut start(RequestDirection::Done), now(), NO_TIME), kept);
    }
}

#[test]
fn an_interim_response_does_not_announce_the_close_of_the_final_one() {
    let (mut state, mut out) = (upload(u64::MAX), visitor(usize::MAX));
    let _ = state.data(b"HTTP/1.1 100 Continue\r\n\r\n", now(), &mut out);
    assert_eq!(state.status(), ExchangeStatus::InProgress);
    let _ = state.request_done(&mut out);
    let _ = state.data(OK, now(), &mut out);
    assert!(!out.text().contains("Connection: close"), "{}", out.text());
    assert_eq!(state.status(), ExchangeStatus::Idle);
}

#[test]
fn a_stream_that_ends_while_idle_takes_no_request() {
    for end in [None, Some(PEER), Some(Reset::SessionClosed)] {
        let (mut state, mut out) = (http(), visitor(usize::MAX));
        let _ = state.data(OK, now(), &mut out);
        match end {
            None => assert_eq!(state.finished(&mut out).stream, StreamEffect::Finish),
            Some(reset) => assert_eq!(state.reset(reset, &mut out), Effects::default()),
        }
        assert_eq!(state.status(), ExchangeStatus::Idle, "the visitor's connection stays");
        assert!(!state.begin(&mut start(RequestDirection::Done), now(), NO_TIME));
        assert!(!out.finished && !out.aborted);
    }
    // Bytes without a request are not the next response.
    let (mut state, mut out) = (http(), visitor(usize::MAX));
    let _ = state.data(&[OK, OK].concat(), now(), &mut out);
    let _ = state.data(OK, now(), &mut out);
    assert_eq!(out.text().matches("HTTP/1.1").count(), 1);
    assert!(!state.begin(&mut start(RequestDirection::Done), now(), NO_TIME));
}

#[test]
fn no_response_is_a_page() {
    type End = fn(&mut ExchangeState, &mut Visitor) -> Effects;
    let ends: [(End, &str); 5] = [
        (|s, out| s.finished(out), "502"),
        (|s, out| s.reset(PEER, out), "502"),
        (|s, out| s.reset(Reset::Peer(Code::ACCEPT_QUEUE_FULL), out), "503"),
        (|s, out| s.reset(Reset::SessionClosed, out), "502"),
        (|s, out| s.give_up(&ErrorPage::new(504, 0, "late"), out), "504"),
    ];
    for (end, status) in ends {
        for prefix in [&b""[..], b"HTTP/1.1 20"] {
            let (mut state, mut out) = (http(), visitor(usize::MAX));
            let _ = state.data(prefix, now(), &mut out);
            let effects = end(&mut state, &mut out);
            assert!(out.text().starts_with(&format!("HTTP/1.1 {status}")), "{}", out.text());
            assert!(!out.aborted);
            assert!(matches!(effects.stream, StreamEffect::Cancel(_)), "{status}");
            assert!(!state.begin(&mut start(RequestDirection::Done), now(), NO_TIME));
            assert_eq!(state.detach(&mut out).stream, StreamEffect::None, "cancelled once");
        }
        // The rest of a body could be read as a request: the close is announced.
        let (mut state, mut out) = (upload(1), visitor(usize::MAX));
        let effects = end(&mut state, &mut out);
        assert!(out.text().contains("Connection: close"), "{}", out.text());
        out.assert_clean();
        assert!(!effects.wake_reader, "its thread discards the rest of the body");
    }
}

#[test]
fn a_response_that_is_not_valid_is_a_page() {
    let (mut state, mut out) = (http(), visitor(usize::MAX));
    let effects = state.data(b"SSH-2.0-x\r\n", now(), &mut out);
    assert!(effects.fault.is_some());
    assert_eq!(effects.stream, StreamEffect::Cancel(Code::STREAM_CANCELLED));
    assert!(out.text().starts_with("HTTP/1.1 502"));
    assert_eq!(state.status(), ExchangeStatus::Idle);
}

#[test]
fn a_body_that_was_cut_never_ends_clean() {
    type End = fn(&mut ExchangeState, &mut Visitor) -> Effects;
    let late =
        |s: &mut ExchangeState, out: &mut Visitor| s.give_up(&ErrorPage::new(504, 0, "late"), out);
    let ends: [End; 5] = [
        |s, out| s.reset(PEER, out),
        |s, out| s.reset(LOCAL, out),
        |s, out| s.reset(Reset::SessionClosed, out),
        late,
        |s, out| s.detach(out),
    ];
    for end in ends {
        for part in [UNTIL_CLOSE, PART] {
            let (mut state, mut out) = (http(), visitor(usize::MAX));
            let _ = state.data(part, now(), &mut out);
            let _ = end(&mut state, &mut out);
            out.assert_reset();
            assert_ne!(state.detach(&mut out).stream, StreamEffect::Finish);
        }
    }
    // An orderly end completes only a body that is delimited by it.
    let (mut state, mut out) = (http(), visitor(usize::MAX));
    let _ = state.data(PART, now(), &mut out);
    let _ = state.finished(&mut out);
    out.assert_reset();
    let (mut state, mut out) = (http(), visitor(usize::MAX));
    let _ = state.data(UNTIL_CLOSE, now(), &mut out);
    let _ = state.finished(&mut out);
    out.assert_clean();
    // A body with invalid chunks is not complete either.
    let (mut state, mut out) = (http(), visitor(usize::MAX));
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nx";
    let effects = state.data(chunked, now(), &mut out);
    assert!(effects.fault.is_some());
    out.assert_reset();
}

#[test]
fn a_reset_after_the_end_takes_nothing_back() {
    for reset in [PEER, Reset::SessionClosed] {
        for room in [30, usize::MAX] {
            let (mut state, mut out) = (http(), visitor(room));
            let _ = state.data(UNTIL_CLOSE, now(), &mut out);
            let _ = state.finished(&mut out);
            let _ = state.reset(reset, &mut out);
            out.room = usize::MAX;
            let _ = state.room(&mut out);
            out.assert_clean();
            assert!(out.text().ends_with("some"));
        }
    }
}

#[test]
fn a_limit_drops_what_waits_and_notifies_both_sides() {
    for mut state in [http(), pipe()] {
        let mut out = visitor(10);
        let consumed = state.data(UNTIL_CLOSE, now(), &mut out).consumed;
        assert!(state.park());
        let effects = state.reset(LOCAL, &mut out);
        assert_eq!(consumed + effects.consumed, UNTIL_CLOSE.len());
        assert_eq!((state.waiting(), state.owner()), (0, Owner::Attached));
        assert_eq!(state.status(), ExchangeStatus::Closed);
        out.assert_reset();
        // The session has reset the stream.
        assert_eq!(effects.stream, StreamEffect::None);
        assert_eq!(state.data(b"more", now(), &mut out).consumed, 4);
    }
}

#[test]
fn the_visitors_thread_writes_the_rest_of_an_ended_session() {
    for mut state in [http(), pipe()] {
        let mut out = visitor(10);
        let _ = state.data(UNTIL_CLOSE, now(), &mut out);
        assert!(state.park());
        let effects = state.reset(Reset::SessionClosed, &mut out);
        assert_eq!(state.owner(), Owner::Draining);
        assert!(effects.wake_reader);
        assert!(!state.park(), "no event of the socket is reported any more");
        assert_eq!(state.status(), ExchangeStatus::InProgress);
        out.room = usize::MAX;
        let _ = state.room(&mut out);
        assert_eq!(state.owner(), Owner::Attached);
        assert!(out.text().ends_with("some"));
        // The received bytes are incomplete.
        out.assert_reset();
    }
}

#[test]
fn a_complete_response_of_an_ended_session_ends_the_connection_after_it() {
    let (mut state, mut out) = (http(), visitor(10));
    let _ = state.data(OK, now(), &mut out);
    let _ = state.reset(Reset::SessionClosed, &mut out);
    assert_eq!(state.owner(), Owner::Draining);
    out.room = usize::MAX;
    let _ = state.room(&mut out);
    out.assert_clean();
    assert!(out.text().ends_with("ok"));
}

#[test]
fn a_request_on_a_kept_stream_is_sent_again_once() {
    let (mut state, mut out) = reused(b"frame");
    let (_, again) = state.take_retry().expect("nothing of a response has come");
    assert_eq!(again.retry_frame, b"frame");
    assert_eq!(state.moved().stream, StreamEffect::Finish);
    assert_eq!(state.status(), ExchangeStatus::InProgress);
    for reset in [PEER, LOCAL, Reset::SessionClosed] {
        assert_eq!(state.reset(reset, &mut out), Effects::default());
    }
    assert!(!out.finished && !out.aborted && out.got.is_empty(), "another exchange has it");
    // Not with a partial response, and not on the first stream.
    let (mut state, mut out) = reused(b"frame");
    let _ = state.data(b"HTTP", now(), &mut out);
    assert!(state.take_retry().is_none());
    assert!(http().take_retry().is_none());
    // If no stream can be opened, the visitor gets a page.
    let (mut state, mut out) = reused(b"frame");
    assert!(state.take_retry().is_some());
    let _ = state.finished(&mut out);
    assert!(out.text().starts_with("HTTP/1.1 502"));
}

#[test]
fn a_kept_stream_that_closes_under_an_unsafe_request_ends_as_a_direct_connection() {
    for end in [None, Some(PEER)] {
        let (mut state, mut out) = reused(b"");
        assert!(state.take_retry().is_none());
        let effects = match end {
            None => state.finished(&mut out),
            Some(reset) => state.reset(reset, &mut out),
        };
        assert_eq!(out.text(), "");
        out.assert_clean();
        assert!(effects.wake_reader);
    }
    // The end of the session is a fault of the tunnel.
    let (mut state, mut out) = reused(b"");
    let _ = state.reset(Reset::SessionClosed, &mut out);
    assert!(out.text().starts_with("HTTP/1.1 502"));
}

#[test]
fn the_visitors_direction_of_an_upgrade_outlives_the_agents() {
    for early_body in [false, true] {
        let mut filter = ResponseFilter::http();
        let context = RequestContext { upgrade: true, ..RequestContext::default() };
        filter.begin(context.clone());
        let request = match early_body {
            true => RequestDirection::Sending { rest: 5 },
            false => RequestDirection::Done,
        };
        let format = PageFormat::default();
        let start = RequestStart { context, format, request, retry_frame: Vec::new() };
        let (mut state, mut out) = (ExchangeState::new(filter, &start), visitor(usize::MAX));
        let head = b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
        let _ = state.data(head, now(), &mut out);
        let _ = state.body_done(&mut out);
        assert_eq!(state.finished(&mut out), Effects::default());
        out.assert_clean();
        assert_eq!(state.status(), ExchangeStatus::Tunnel, "its thread goes on");
        // A visitor that breaks off does not look complete.
        if early_body {
            let stream = state.detach(&mut out).stream;
            assert_eq!(stream, StreamEffect::Cancel(Code::STREAM_CANCELLED));
            continue;
        }
        let _ = state.request_done(&mut out);
        assert_eq!(state.status(), ExchangeStatus::Closed);
        assert_eq!(state.detach(&mut out).stream, StreamEffect::Finish);
    }
}

#[test]
fn the_directions_of_a_pipe_end_one_by_one() {
    let (mut state, mut out) = (pipe(), visitor(usize::MAX));
    let _ = state.data(b"some", now(), &mut out);
    assert_eq!(state.status(), ExchangeStatus::Tunnel);
    let effects = state.finished(&mut out);
    assert_eq!(effects, Effects::default(), "the visitor's direction goes on");
    out.assert_clean();
    assert!(state.request_done(&mut out).wake_reader);
    assert_eq!(state.detach(&mut out).stream, StreamEffect::Finish);

    let (mut state, mut out) = (pipe(), visitor(usize::MAX));
    assert_eq!(state.request_done(&mut out), Effects::default());
    let _ = state.data(b"some", now(), &mut out);
    let effects = state.finished(&mut out);
    assert!(effects.wake_reader);
    out.assert_clean();

    // After a reset that follows the agent's end, nothing accepts the visitor's bytes.
    let (mut state, mut out) = (pipe(), visitor(usize::MAX));
    let _ = state.finished(&mut out);
    assert!(state.reset(PEER, &mut out).wake_reader);
    out.assert_clean();
}

#[test]
fn a_pipe_that_was_cut_is_reset_at_each_step() {
    for before in [&b""[..], b"some"] {
        for reset in [PEER, LOCAL, Reset::SessionClosed] {
            for half_closed in [false, true] {
                let (mut state, mut out) = (pipe(), visitor(usize::MAX));
                let _ = state.data(before, now(), &mut out);
                if half_closed {
                    let _ = state.request_done(&mut out);
                }
                let _ = state.reset(reset, &mut out);
                out.assert_reset();
                assert_eq!(state.detach(&mut out).stream, StreamEffect::None);
            }
        }
    }
    // An orderly end would be an empty response in protocols that end with FIN.
    let (mut state, mut out) = (pipe(), visitor(usize::MAX));
    let _ = state.reset(Reset::Peer(Code::ACCEPT_QUEUE_FULL), &mut out);
    out.assert_reset();
}

#[test]
fn a_visitor_that_breaks_off_cancels_the_stream_at_each_step() {
    type Step = fn(&mut ExchangeState, &mut Visitor);
    let steps: [Step; 4] = [
        |_, _| {},
        |s, out| _ = s.data(PART, now(), out),
        |s, out| _ = (s.data(PART, now(), out), s.park()),
        |s, out| {
            out.room = 10;
            let _ = (s.data(UNTIL_CLOSE, now(), out), s.finished(out));
        },
    ];
    for make in [http, pipe, || upload(9)] {
        for step in steps {
            let (mut state, mut out) = (make(), visitor(usize::MAX));
            step(&mut state, &mut out);
            let effects = state.fail(Code::STREAM_CANCELLED, &mut out);
            assert_eq!(effects.stream, StreamEffect::Cancel(Code::STREAM_CANCELLED));
            out.assert_reset();
            assert_eq!((state.owner(), state.waiting()), (Owner::Attached, 0));
            assert_eq!(state.status(), ExchangeStatus::Closed);
            assert_eq!(state.detach(&mut out).stream, StreamEffect::None, "once");
            assert_eq!(state.data(b"more", now(), &mut out).consumed, 4);
            assert_eq!(state.reset(PEER, &mut out), Effects::default());
        }
    }
    let (mut state, mut out) = (http(), visitor(usize::MAX));
    out.broken = true;
    let effects = state.data(OK, now(), &mut out);
    assert_eq!(effects.consumed, OK.len());
    assert_eq!(effects.stream, StreamEffect::Cancel(Code::STREAM_CANCELLED));
}

#[test]
fn a_thread_that_leaves_early_cancels_the_stream() {
    // An upload that is not complete must not end with FIN, with any response.
    let (mut state, mut out) = (upload(9), visitor(usize::MAX));
    let _ = state.data(OK, now(), &mut out);
    let effects = state.detach(&mut out);
    assert_eq!(effects.stream, StreamEffect::Cancel(Code::STREAM_CANCELLED));
    let (mut state, mut out) = (http(), visitor(10));
    let consumed = state.data(OK, now(), &mut out).consumed;
    let effects = state.detach(&mut out);
    assert_eq!(consumed + effects.consumed, OK.len());
    out.assert_reset();
}

#[test]
fn a_visitor_that_reads_nothing_gets_the_first_and_the_last_reply() {
    let sending = RequestDirection::Sending { rest: u64::MAX };
    let filter = ResponseFilter::binary_messages();
    let (mut state, mut out) = (ExchangeState::new(filter, &start(sending)), visitor(0));
    for n in 0..1000 {
        let _ = state.reply(format!("pong {n:03};").as_bytes(), &mut out);
    }
    assert_eq!(state.waiting(), 9, "one reply waits");
    let _ = state.data(b"data", now(), &mut out);
    out.room = usize::MAX;
    let _ = state.room(&mut out);
    assert_eq!(out.text(), "pong 000;\u{fffd}\u{4}datapong 999;");
    let _ = state.reply(b"pong;", &mut out);
    assert!(out.text().ends_with("999;pong;"));
}
