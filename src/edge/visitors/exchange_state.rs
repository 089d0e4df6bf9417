//! State of one exchange between a visitor and an agent's stream, without a socket, a lock or
//! a clock: the direction to the agent ([`RequestDirection`]), the direction to the visitor
//! ([`ResponseDirection`]) and the thread that serves the exchange ([`Owner`]).
//!
//! Each call gets the visitor's connection as an [`Outlet`] and returns [`Effects`]. Every
//! end reaches both sides: the visitor's connection is finished or reset, and the stream is
//! finished or cancelled. [`super::exchange`] carries the effects out, and forgets the stream
//! after [`ExchangeState::detach`] or [`ExchangeState::moved`] alone.

use std::io;
use std::time::Duration;

use super::pages::{ErrorPage, PageFormat, UpstreamFault};
use super::response::{FilterProgress, RequestContext, ResponseEnd, ResponseFilter};
use crate::edge::actions;
use crate::edge::workers::Job;
use crate::http1::error::HttpError;
use crate::mux::Code;
use crate::session::waiting::WaitingBytes;
use crate::session::{Outlet, Reset};
use crate::time::Instant;

/// Most bytes of a request's body that are discarded after an early response. With more to
/// come the response announces the close of the connection (RFC 9112 section 9.6).
pub const MAX_DISCARDED_BODY_BYTES: u64 = 1024 * 1024;

/// The direction to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestDirection {
    /// At most `rest` bytes are still to be sent.
    Sending {
        /// `u64::MAX` if their number is not known.
        rest: u64,
    },
    /// The request was sent to its end.
    Done,
    /// The stream accepts nothing more: it was reset, or its session ended.
    Cut {
        /// The request had been sent to its end.
        complete: bool,
    },
}

/// The direction to the visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseDirection {
    /// Nothing of the response has come.
    Waiting,
    /// A part of the response has come.
    Streaming,
    /// Bytes pass unread.
    Tunnel,
    /// The response is complete. The bytes that wait are written first.
    Flushing(AfterFlush),
    /// The response is complete, and the visitor's connection stays.
    Done,
    /// The visitor's connection was finished.
    Finished,
    /// The visitor's connection was reset or has failed.
    Broken,
    /// Another exchange has taken over the request and the connection.
    Moved,
}

/// End of a response, once all of its bytes have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFlush {
    /// The visitor's connection stays.
    Stay,
    /// The visitor's connection is finished.
    Finish,
    /// The visitor's connection is reset, because the bytes are incomplete.
    Abort,
}

/// The thread that reads from the visitor and writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The visitor's thread reads. The reactor writes.
    Attached,
    /// The reactor reads and writes.
    Parked,
    /// The session ended: the visitor's thread writes the bytes that wait.
    Draining,
    /// The visitor's thread has left. Further bytes are consumed unread.
    Detached,
}

/// Whether the stream served a request before the current one.
#[derive(Debug)]
enum StreamUse {
    /// The stream was opened for this request.
    First,
    /// This frame sends the request again on a new stream.
    Retryable(Vec<u8>),
    /// The request must not be sent twice.
    NotRetryable,
}

/// Properties of a request.
pub struct RequestStart {
    /// For the response's filter.
    pub context: RequestContext,
    /// Form of a page that replaces the response.
    pub format: PageFormat,
    /// Rest of the request after the first frame.
    pub request: RequestDirection,
    /// First frame of a stream that sends the request again. Empty: must not be sent twice.
    pub retry_frame: Vec<u8>,
}

impl RequestStart {
    /// Start of a pipe, whose bytes are forwarded until the visitor ends.
    pub fn pipe() -> Self {
        RequestStart {
            context: RequestContext::default(),
            format: PageFormat::default(),
            request: RequestDirection::Sending { rest: u64::MAX },
            retry_frame: Vec::new(),
        }
    }
}

/// Work that a call leaves to the session and to the visitor's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the session has to carry them out"]
pub struct Effects {
    /// Bytes whose window goes back to the agent.
    pub consumed: usize,
    /// Effect on the stream.
    pub stream: StreamEffect,
    /// The thread that reads the visitor's socket has to return from its read.
    pub wake_reader: bool,
    /// Why the response is not valid, for the log.
    pub fault: Option<HttpError>,
}

/// Effect of a call on the stream. The stream is not forgotten yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamEffect {
    /// The stream stays as it is.
    #[default]
    None,
    /// The direction to the agent ends after what was sent.
    Finish,
    /// Both directions end at once.
    Cancel(Code),
}

/// Status of an exchange for the visitor's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeStatus {
    /// The response is not complete.
    InProgress,
    /// The connection is a byte pipe (after 101).
    Tunnel,
    /// Complete; the visitor may send another request.
    Idle,
    /// Complete or broken; the visitor's connection ends.
    Closed,
}

/// State of one exchange.
pub struct ExchangeState {
    request: RequestDirection,
    response: ResponseDirection,
    owner: Owner,
    stream_use: StreamUse,
    filter: ResponseFilter,
    context: RequestContext,
    format: PageFormat,
    output: Output,
    /// Time at which the last response was complete.
    idle_since: Instant,
}

impl ExchangeState {
    /// Creates the state for a stream that was opened for this request.
    pub fn new(mut filter: ResponseFilter, start: &RequestStart) -> Self {
        if !filter.is_tunnel() {
            filter.begin(start.context.clone());
        }
        ExchangeState {
            request: start.request,
            response: ResponseDirection::Waiting,
            owner: Owner::Attached,
            stream_use: StreamUse::First,
            filter,
            context: start.context.clone(),
            format: start.format,
            output: Output::default(),
            idle_since: Instant::ZERO,
        }
    }

    /// Accepts another request if the stream can carry it: the response before is complete, and
    /// `timeout` has not passed since then. Returns whether it was accepted. If so, the frame
    /// of `start` was taken.
    pub fn begin(&mut self, start: &mut RequestStart, now: Instant, timeout: Duration) -> bool {
        let fit = self.response == ResponseDirection::Done
            && self.request == RequestDirection::Done
            && self.owner == Owner::Attached
            && self.filter.is_reusable()
            && now.since(self.idle_since) <= timeout;
        if fit {
            self.filter.begin(start.context.clone());
            self.context = start.context.clone();
            self.format = start.format;
            self.request = start.request;
            self.response = ResponseDirection::Waiting;
            self.stream_use = match std::mem::take(&mut start.retry_frame) {
                frame if frame.is_empty() => StreamUse::NotRetryable,
                frame => StreamUse::Retryable(frame),
            };
        }
        fit
    }

    /// Returns the status.
    pub fn status(&self) -> ExchangeStatus {
        match self.response {
            ResponseDirection::Waiting
            | ResponseDirection::Streaming
            | ResponseDirection::Flushing(_)
            | ResponseDirection::Moved => ExchangeStatus::InProgress,
            ResponseDirection::Tunnel => ExchangeStatus::Tunnel,
            ResponseDirection::Done => ExchangeStatus::Idle,
            ResponseDirection::Finished if self.is_half_closed_tunnel() => ExchangeStatus::Tunnel,
            ResponseDirection::Finished | ResponseDirection::Broken => ExchangeStatus::Closed,
        }
    }

    /// Returns the thread that serves the exchange.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Returns whether the stream accepts nothing more.
    pub fn is_cut(&self) -> bool {
        matches!(self.request, RequestDirection::Cut { .. })
    }

    /// Returns whether a part of the response has come and left.
    pub fn is_delivered(&self) -> bool {
        self.response == ResponseDirection::Streaming && self.output.waiting.is_empty()
    }

    /// Returns the number of bytes that wait for the visitor's socket.
    pub fn waiting(&self) -> usize {
        self.output.waiting.len()
    }

    /// Returns whether the visitor's socket has to be watched for room.
    pub fn wants_room(&self) -> bool {
        self.output.room == Room::Full && !self.is_over()
    }

    /// Returns whether bytes wait for the visitor: here, or encrypted in its connection.
    pub fn is_blocked(&self) -> bool {
        self.output.is_pending() && !self.is_over()
    }

    /// Returns the filter and the format for a new stream, with the frame that sends the
    /// request again. `None` if the request must not be sent again.
    pub fn take_retry(&mut self) -> Option<(ResponseFilter, RequestStart)> {
        if self.response != ResponseDirection::Waiting || !self.filter.has_no_bytes() {
            return None;
        }
        let StreamUse::Retryable(frame) = &mut self.stream_use else { return None };
        let start = RequestStart {
            context: self.context.clone(),
            format: self.format,
            request: RequestDirection::Done,
            retry_frame: std::mem::take(frame),
        };
        // If no stream can be opened, the visitor gets a page.
        self.stream_use = StreamUse::First;
        Some((ResponseFilter::http(), start))
    }

    /// Returns whether no byte of a response was received.
    pub fn has_no_response(&self) -> bool {
        self.response == ResponseDirection::Waiting && self.filter.has_no_bytes()
    }

    /// Returns the properties of the request for a stream to another agent. `None` if the
    /// request is not complete or its response has begun.
    pub fn failover_start(&self) -> Option<RequestStart> {
        let complete = self.request == RequestDirection::Done && self.owner == Owner::Attached;
        (complete && self.has_no_response()).then(|| RequestStart {
            context: self.context.clone(),
            format: self.format,
            request: RequestDirection::Done,
            retry_frame: Vec::new(),
        })
    }

    /// Records that another exchange has taken over.
    pub fn moved(&mut self) -> Effects {
        self.response = ResponseDirection::Moved;
        let stream = self.finish_stream();
        self.cut();
        Effects { stream, ..Effects::default() }
    }

    /// Returns whether bytes pass unread and only the agent's side has ended.
    fn is_half_closed_tunnel(&self) -> bool {
        let is_sending = matches!(self.request, RequestDirection::Sending { .. });
        is_sending && self.filter.is_tunnel()
    }

    /// Records that the last bytes of the request's body are about to be sent. After an upgrade
    /// the visitor's direction goes on.
    pub fn body_done(&mut self, out: &mut dyn Outlet) -> Effects {
        match self.filter.is_tunnel() {
            true => Effects::default(),
            false => self.request_done(out),
        }
    }

    /// Records that the visitor's direction ends after what was sent.
    pub fn request_done(&mut self, out: &mut dyn Outlet) -> Effects {
        if let RequestDirection::Sending { .. } = self.request {
            self.request = RequestDirection::Done;
        }
        self.settle(Effects::default(), out)
    }

    /// Writes bytes of the edge's own to the visitor, between those of the agent. If a reply
    /// waits already, only the last one of several follows it.
    pub fn reply(&mut self, bytes: &[u8], out: &mut dyn Outlet) -> Effects {
        if self.is_over() || matches!(self.response, ResponseDirection::Flushing(_)) {
            return Effects::default();
        }
        match self.output.reply(bytes, out) {
            Ok(()) => self.settle(Effects::default(), out),
            Err(code) => self.fail(code, out),
        }
    }

    /// Leaves the visitor's socket to the reactor. Returns whether there is something to wait
    /// for.
    pub fn park(&mut self) -> bool {
        let fit = self.owner == Owner::Attached && !self.is_over();
        if fit {
            self.owner = Owner::Parked;
        }
        fit
    }

    /// Gives the visitor's socket back to its thread.
    pub fn unpark(&mut self) {
        if self.owner == Owner::Parked {
            self.owner = Owner::Attached;
        }
    }

    /// Processes received bytes of the stream.
    pub fn data(&mut self, bytes: &[u8], now: Instant, out: &mut dyn Outlet) -> Effects {
        let all = Effects { consumed: bytes.len(), ..Effects::default() };
        if let ResponseDirection::Done | ResponseDirection::Flushing(AfterFlush::Stay) =
            self.response
        {
            // Bytes without a request: the filter does not take another one.
            let _ = self.filter.feed(bytes, &mut |_| {});
            return all;
        }
        if !self.takes_bytes() {
            return all;
        }
        self.announce_close();
        let was_tunnel = self.filter.is_tunnel();
        let before = self.output.waiting.len();
        let mut written = Ok(());
        let output = &mut self.output;
        let progress = self.filter.feed(bytes, &mut |piece| {
            written = written.and_then(|()| output.write(piece, out));
        });
        let fed = Fed { received: bytes.len(), before, was_tunnel };
        self.advance(fed, written, progress, now, out)
    }

    /// Returns whether received bytes are for the filter.
    fn takes_bytes(&self) -> bool {
        use ResponseDirection::{Streaming, Tunnel, Waiting};
        matches!(self.response, Waiting | Streaming | Tunnel) && self.owner != Owner::Detached
    }

    /// Sets in the filter, before the first byte of a response, whether the connection ends after
    /// it: the head is written with that byte.
    fn announce_close(&mut self) {
        if self.filter.has_no_bytes() {
            self.filter.begin(RequestContext { close: self.closes(), ..self.context.clone() });
        }
    }

    /// Returns whether the rules for the next head may block the thread that runs them.
    pub fn may_block(&self) -> bool {
        // A part of a head makes the response `Streaming`. The rules run at the end of the head.
        self.takes_bytes()
            && self.filter.is_before_head()
            && self.context.plan.as_ref().is_some_and(|plan| plan.may_block())
    }

    /// Has another thread do `work`, which may block for the rules. Returns `false` if no thread
    /// is free.
    pub fn offload(&self, work: Job) -> bool {
        self.context.plan.as_ref().is_some_and(|plan| plan.offload(work))
    }

    /// Ends a response with a page, because no thread is free for its rules.
    pub fn refuse(&mut self, page: &ErrorPage, out: &mut dyn Outlet) -> Effects {
        self.format.close = true;
        self.page(page, Effects::default(), out)
    }

    /// Lends the filter, which then works without this state and its lock. Until
    /// [`ExchangeState::give_back`] the caller defers the bytes and the end of the agent; a reset
    /// by the edge itself ends the response at once, as [`ExchangeState::give_up`] does.
    pub fn lend_filter(&mut self) -> ResponseFilter {
        self.announce_close();
        let mut placeholder = ResponseFilter::http();
        placeholder.begin(RequestContext { plan: None, ..self.context.clone() });
        std::mem::replace(&mut self.filter, placeholder)
    }

    /// Takes the filter back, with its result. The emitted bytes are dropped if the response has
    /// ended in the meantime.
    pub fn give_back(
        &mut self,
        filter: ResponseFilter,
        lent: LentFeed<'_>,
        now: Instant,
        out: &mut dyn Outlet,
    ) -> Effects {
        let LentFeed { received, emitted, progress } = lent;
        if !self.takes_bytes() {
            return Effects { consumed: received, ..Effects::default() };
        }
        self.filter = filter;
        let before = self.output.waiting.len();
        let written = self.output.write(emitted, out);
        // A filter before a head is not that of a tunnel.
        let fed = Fed { received, before, was_tunnel: false };
        self.advance(fed, written, progress, now, out)
    }

    /// Processes the result of the filter.
    fn advance(
        &mut self,
        fed: Fed,
        written: Result<(), Code>,
        progress: FilterProgress,
        now: Instant,
        out: &mut dyn Outlet,
    ) -> Effects {
        let Fed { received, before, was_tunnel } = fed;
        if let Err(code) = written {
            let effects = self.fail(code, out);
            return Effects { consumed: effects.consumed + received, ..effects };
        }
        let held = self.output.waiting.len().saturating_sub(before).min(received);
        self.output.unconsumed += held;
        let effects = Effects { consumed: received - held, ..Effects::default() };
        match progress {
            FilterProgress::InProgress if self.filter.is_tunnel() => {
                self.response = ResponseDirection::Tunnel;
                if !was_tunnel && !self.is_cut() {
                    // An upgrade: the visitor's direction goes on after the request.
                    self.request = RequestDirection::Sending { rest: u64::MAX };
                }
            }
            // An interim response alone is not a part of the response.
            FilterProgress::InProgress if self.filter.has_no_bytes() => {}
            FilterProgress::InProgress => self.response = ResponseDirection::Streaming,
            FilterProgress::Done => {
                self.idle_since = now;
                self.response = ResponseDirection::Flushing(match self.filter.keeps_visitor() {
                    true => AfterFlush::Stay,
                    false => AfterFlush::Finish,
                });
            }
            failed => return self.filter_failed(failed, effects, out),
        }
        self.settle(effects, out)
    }

    /// Ends a response that the filter does not pass on.
    fn filter_failed(
        &mut self,
        failed: FilterProgress,
        effects: Effects,
        out: &mut dyn Outlet,
    ) -> Effects {
        let (code, fault) = match failed {
            FilterProgress::Invalid(error) => {
                let effects = Effects { fault: Some(error), ..effects };
                let page = ErrorPage::bad_answer(UpstreamFault::Invalid(error));
                return self.upstream_failed(&page, effects, out);
            }
            FilterProgress::ActionFailed(error) => {
                return self.page(&actions::failure(&error).into(), effects, out);
            }
            FilterProgress::Replaced => {
                let reply = self.filter.take_replacement();
                let page = reply.map_or_else(ErrorPage::no_stream, ErrorPage::from);
                return self.page(&page, effects, out);
            }
            FilterProgress::Broken(error) => (Code::STREAM_CANCELLED, Some(error)),
            FilterProgress::Closed => (Code::STREAM_CANCELLED, None),
            FilterProgress::EncodingFailed | FilterProgress::InProgress | FilterProgress::Done => {
                (Code::INTERNAL_ERROR, None)
            }
        };
        let failed = self.fail(code, out);
        Effects { consumed: effects.consumed + failed.consumed, fault, ..failed }
    }

    /// Processes the orderly end of the agent's direction.
    pub fn finished(&mut self, out: &mut dyn Outlet) -> Effects {
        let none = Effects::default();
        if self.is_over() || self.owner == Owner::Detached {
            return none;
        }
        let tunnel = self.filter.is_tunnel();
        let no_bytes = self.filter.has_no_bytes();
        let mut tail = Vec::new();
        let end = self.filter.end(&mut |piece| tail.extend_from_slice(piece));
        if let Err(code) = self.output.write(&tail, out) {
            return self.fail(code, out);
        }
        match (self.response, end) {
            (ResponseDirection::Flushing(AfterFlush::Finish | AfterFlush::Abort), _) => {}
            (ResponseDirection::Done | ResponseDirection::Flushing(AfterFlush::Stay), _) => {}
            (_, ResponseEnd::Complete) => {
                self.response = ResponseDirection::Flushing(AfterFlush::Finish);
            }
            (_, ResponseEnd::NotStarted) => {
                let page = ErrorPage::bad_answer(UpstreamFault::Closed);
                return self.no_response(no_bytes, &page, out);
            }
            (_, ResponseEnd::Truncated) => {
                self.response = ResponseDirection::Flushing(AfterFlush::Abort);
            }
        }
        let mut effects = none;
        if !tunnel && self.request == RequestDirection::Done {
            // The other direction ends too.
            effects.stream = StreamEffect::Finish;
        }
        self.settle(effects, out)
    }

    /// Processes the end of both directions.
    pub fn reset(&mut self, reset: Reset, out: &mut dyn Outlet) -> Effects {
        self.unpark();
        if self.owner == Owner::Detached || self.response == ResponseDirection::Moved {
            self.cut();
            return Effects::default();
        }
        if let Reset::Local(code) = reset {
            // A limit was reached: the memory is needed at once.
            self.cut();
            return self.fail(code, out);
        }
        let mut effects = self.stream_lost(reset, out);
        if reset == Reset::SessionClosed && self.output.is_pending() && !self.is_over() {
            // No event of the socket is reported after that.
            self.owner = Owner::Draining;
            effects.wake_reader = true;
        }
        effects
    }

    /// Processes a reset by the agent or the end of the session.
    fn stream_lost(&mut self, reset: Reset, out: &mut dyn Outlet) -> Effects {
        let session_closed = reset == Reset::SessionClosed;
        let no_bytes = self.filter.has_no_bytes();
        match (self.response, self.filter.cut()) {
            (ResponseDirection::Flushing(AfterFlush::Stay), _) if session_closed => {
                self.response = ResponseDirection::Flushing(AfterFlush::Finish);
            }
            (
                ResponseDirection::Flushing(_)
                | ResponseDirection::Done
                | ResponseDirection::Finished
                | ResponseDirection::Broken
                | ResponseDirection::Moved,
                _,
            ) => {}
            (_, ResponseEnd::NotStarted) => {
                let page = match reset.code() {
                    Code::ACCEPT_QUEUE_FULL => ErrorPage::agent_full(),
                    // The agent reached the service, which then broke off.
                    Code::STREAM_CANCELLED => ErrorPage::bad_answer(UpstreamFault::BrokeOff),
                    _ => ErrorPage::no_stream(),
                };
                return self.no_response(no_bytes && !session_closed, &page, out);
            }
            (_, ResponseEnd::Truncated | ResponseEnd::Complete) => {
                self.response = ResponseDirection::Flushing(AfterFlush::Abort);
            }
        }
        self.cut();
        self.settle(Effects::default(), out)
    }

    /// Writes after the visitor's socket became writable.
    pub fn room(&mut self, out: &mut dyn Outlet) -> Effects {
        if self.is_over() {
            return Effects::default();
        }
        match self.output.drain(out) {
            Ok(consumed) => self.settle(Effects { consumed, ..Effects::default() }, out),
            Err(code) => self.fail(code, out),
        }
    }

    /// Ends a response that takes too long: `page` replaces it, or a partial response is reset.
    pub fn give_up(&mut self, page: &ErrorPage, out: &mut dyn Outlet) -> Effects {
        match self.response {
            ResponseDirection::Waiting | ResponseDirection::Streaming => match self.filter.cut() {
                ResponseEnd::NotStarted => {
                    self.format.close = true;
                    self.upstream_failed(page, Effects::default(), out)
                }
                _ => self.fail(Code::STREAM_CANCELLED, out),
            },
            ResponseDirection::Tunnel | ResponseDirection::Flushing(_) => {
                self.fail(Code::STREAM_CANCELLED, out)
            }
            _ => Effects::default(),
        }
    }

    /// Processes a failure of the visitor's connection.
    pub fn fail(&mut self, code: Code, out: &mut dyn Outlet) -> Effects {
        if self.response == ResponseDirection::Moved {
            return Effects::default();
        }
        self.response = ResponseDirection::Broken;
        if self.owner != Owner::Detached {
            self.owner = Owner::Attached;
        }
        out.abort();
        let consumed = self.output.clear();
        Effects { consumed, stream: self.cancel_stream(code), ..Effects::default() }
    }

    /// Ends the exchange when the visitor's thread leaves. A response that is not complete ends
    /// with a reset of the visitor's connection. The stream may be forgotten after this call.
    pub fn detach(&mut self, out: &mut dyn Outlet) -> Effects {
        let whole = match self.response {
            ResponseDirection::Done | ResponseDirection::Finished => true,
            ResponseDirection::Waiting if !self.filter.is_tunnel() => false,
            ResponseDirection::Waiting
            | ResponseDirection::Streaming
            | ResponseDirection::Tunnel
            | ResponseDirection::Flushing(_) => {
                out.abort();
                self.response = ResponseDirection::Broken;
                false
            }
            ResponseDirection::Broken | ResponseDirection::Moved => false,
        };
        self.owner = Owner::Detached;
        let consumed = self.output.clear();
        let stream = match whole && self.request == RequestDirection::Done {
            true => self.finish_stream(),
            // The upstream must not take a part of a request for all of it.
            false => self.cancel_stream(Code::STREAM_CANCELLED),
        };
        Effects { consumed, stream, ..Effects::default() }
    }

    /// The stream is given back between two requests. It takes no other one.
    pub fn reclaim(&mut self) -> Effects {
        let stream = self.cancel_stream(Code::STREAM_CANCELLED);
        Effects { stream, ..Effects::default() }
    }

    /// Returns whether the visitor's connection ends after the response under way.
    fn closes(&self) -> bool {
        let unbounded = match self.request {
            RequestDirection::Sending { rest } => rest > MAX_DISCARDED_BODY_BYTES,
            RequestDirection::Done | RequestDirection::Cut { .. } => false,
        };
        self.context.close || unbounded
    }

    fn is_over(&self) -> bool {
        use ResponseDirection::{Broken, Finished, Moved};
        matches!(self.response, Finished | Broken | Moved)
    }

    /// Records that the stream accepts nothing more. Returns whether that was known before.
    fn cut(&mut self) -> bool {
        let complete = match self.request {
            RequestDirection::Sending { .. } => false,
            RequestDirection::Done => true,
            RequestDirection::Cut { .. } => return false,
        };
        self.request = RequestDirection::Cut { complete };
        true
    }

    fn finish_stream(&self) -> StreamEffect {
        match self.is_cut() {
            true => StreamEffect::None,
            false => StreamEffect::Finish,
        }
    }

    fn cancel_stream(&mut self, code: Code) -> StreamEffect {
        match self.cut() {
            true => StreamEffect::Cancel(code),
            false => StreamEffect::None,
        }
    }

    /// Processes the end of a stream without a response. `no_bytes`: no byte of one was
    /// received.
    fn no_response(&mut self, no_bytes: bool, page: &ErrorPage, out: &mut dyn Outlet) -> Effects {
        if no_bytes && matches!(self.stream_use, StreamUse::NotRetryable) {
            // The upstream closed a kept connection while the request was on its way. The
            // visitor sees what it would see without a tunnel, and may send it again.
            self.response = ResponseDirection::Flushing(AfterFlush::Finish);
            let stream = self.cancel_stream(Code::STREAM_CANCELLED);
            return self.settle(Effects { stream, ..Effects::default() }, out);
        }
        self.upstream_failed(page, Effects::default(), out)
    }

    /// Writes a page about a failed upstream in place of the response.
    fn upstream_failed(
        &mut self,
        page: &ErrorPage,
        effects: Effects,
        out: &mut dyn Outlet,
    ) -> Effects {
        // A status below 500 is about the visitor.
        if let Some(plan) = self.context.plan.as_ref().filter(|_| page.status >= 500) {
            plan.upstream_failed(page.status);
        }
        self.page(page, effects, out)
    }

    /// Writes a page in place of the response, and cancels the stream.
    fn page(&mut self, page: &ErrorPage, effects: Effects, out: &mut dyn Outlet) -> Effects {
        let sending = matches!(self.request, RequestDirection::Sending { .. });
        let close = self.format.close || sending;
        let bytes = page.render(PageFormat { close, ..self.format });
        let stream = self.cancel_stream(Code::STREAM_CANCELLED);
        let effects = Effects { stream, ..effects };
        // The page is the response: nothing more comes.
        self.filter = ResponseFilter::http();
        self.response = ResponseDirection::Flushing(match close {
            true => AfterFlush::Finish,
            false => AfterFlush::Stay,
        });
        match self.output.write(&bytes, out) {
            Ok(()) => self.settle(effects, out),
            Err(code) => {
                let failed = self.fail(code, out);
                Effects { consumed: effects.consumed + failed.consumed, ..effects }
            }
        }
    }

    /// Ends directions whose bytes have all been written. Called after each change.
    fn settle(&mut self, mut effects: Effects, out: &mut dyn Outlet) -> Effects {
        if let Err(code) = self.output.flush(out) {
            let failed = self.fail(code, out);
            let stream = match effects.stream {
                StreamEffect::Cancel(_) => effects.stream,
                _ => failed.stream,
            };
            return Effects { consumed: effects.consumed + failed.consumed, stream, ..effects };
        }
        if !self.output.is_pending() {
            if self.owner == Owner::Draining {
                self.owner = Owner::Attached;
            }
            match self.response {
                ResponseDirection::Flushing(AfterFlush::Stay) => {
                    self.response = ResponseDirection::Done;
                }
                ResponseDirection::Flushing(AfterFlush::Finish) => {
                    out.finish();
                    self.response = ResponseDirection::Finished;
                }
                ResponseDirection::Flushing(AfterFlush::Abort) => {
                    let failed = self.fail(Code::STREAM_CANCELLED, out);
                    if let StreamEffect::Cancel(_) = failed.stream {
                        effects.stream = failed.stream;
                    }
                }
                _ => {}
            }
        }
        // The thread keeps reading while a body is on its way. A close before the end of the
        // body would reset the connection, and the response would be lost.
        let reads_on = match self.request {
            RequestDirection::Sending { .. } => true,
            RequestDirection::Done => false,
            RequestDirection::Cut { complete } => !complete && !self.filter.is_tunnel(),
        };
        effects.wake_reader |= self.response == ResponseDirection::Finished && !reads_on;
        effects
    }
}

/// Result of a filter that was lent.
pub struct LentFeed<'a> {
    /// Number of the bytes of the stream that it got.
    pub received: usize,
    /// Bytes for the visitor.
    pub emitted: &'a [u8],
    /// Its progress.
    pub progress: FilterProgress,
}

/// Bytes that the filter got.
struct Fed {
    /// Their number.
    received: usize,
    /// Bytes that waited for the visitor before.
    before: usize,
    /// Whether they passed unread before.
    was_tunnel: bool,
}

/// Whether the visitor's socket accepted all bytes at the last attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Room {
    #[default]
    Ready,
    Full,
}

/// Bytes on their way to the visitor's socket. An error is the code for the stream.
#[derive(Debug, Default)]
struct Output {
    waiting: WaitingBytes,
    /// Waiting bytes of the stream whose window was not returned yet.
    unconsumed: usize,
    room: Room,
    /// Bytes that wait up to the end of the last reply.
    reply_ahead: usize,
    /// Reply that follows when no other one waits. Without this limit a visitor that sends pings
    /// and reads nothing fills the memory.
    held_reply: Vec<u8>,
}

impl Output {
    /// Writes a reply. Replaces the held one if an earlier reply still waits.
    fn reply(&mut self, bytes: &[u8], out: &mut dyn Outlet) -> Result<(), Code> {
        if self.reply_ahead > 0 {
            self.held_reply = bytes.to_vec();
            return Ok(());
        }
        self.write(bytes, out)?;
        self.reply_ahead = self.waiting.len();
        Ok(())
    }

    /// Lets the held reply wait behind all bytes, once the reply before it has left.
    fn release_reply(&mut self) -> Result<(), Code> {
        if self.reply_ahead > 0 || self.held_reply.is_empty() {
            return Ok(());
        }
        if !self.waiting.push(&std::mem::take(&mut self.held_reply)) {
            return Err(Code::INTERNAL_ERROR);
        }
        self.reply_ahead = self.waiting.len();
        Ok(())
    }

    /// Returns whether something is left, here or in the outlet.
    fn is_pending(&self) -> bool {
        !self.waiting.is_empty() || self.room == Room::Full
    }

    /// Writes `bytes`. Bytes that the outlet does not accept wait.
    fn write(&mut self, mut bytes: &[u8], out: &mut dyn Outlet) -> Result<(), Code> {
        while self.waiting.is_empty() && self.room == Room::Ready && !bytes.is_empty() {
            match write_some(out, bytes)? {
                0 => self.room = Room::Full,
                n => bytes = &bytes[n..],
            }
        }
        match bytes.is_empty() || self.waiting.push(bytes) {
            true => Ok(()),
            false => Err(Code::INTERNAL_ERROR),
        }
    }

    /// Writes the bytes that wait. Returns how many bytes of the stream are consumed.
    fn drain(&mut self, out: &mut dyn Outlet) -> Result<usize, Code> {
        self.room = Room::Ready;
        let mut consumed = 0;
        while !self.waiting.is_empty() {
            let n = write_some(out, self.waiting.as_slice())?;
            if n == 0 {
                self.room = Room::Full;
                return Ok(consumed);
            }
            self.waiting.take(n);
            self.reply_ahead = self.reply_ahead.saturating_sub(n);
            self.release_reply()?;
            let back = n.min(self.unconsumed);
            self.unconsumed -= back;
            consumed += back;
        }
        // A head that became longer counts fewer bytes than were received.
        Ok(consumed + std::mem::take(&mut self.unconsumed))
    }

    /// Sends the bytes that the outlet itself buffers.
    fn flush(&mut self, out: &mut dyn Outlet) -> Result<(), Code> {
        if self.is_pending() {
            return Ok(());
        }
        match out.flush() {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.room = Room::Full;
                Ok(())
            }
            Err(_) => Err(Code::STREAM_CANCELLED),
        }
    }

    /// Drops the bytes that wait. Returns how many bytes of the stream are consumed.
    fn clear(&mut self) -> usize {
        self.waiting.clear();
        self.reply_ahead = 0;
        self.held_reply.clear();
        self.room = Room::Ready;
        std::mem::take(&mut self.unconsumed)
    }
}

/// Writes a prefix of `bytes`. Returns its length; 0 if the outlet takes nothing now.
fn write_some(out: &mut dyn Outlet, bytes: &[u8]) -> Result<usize, Code> {
    match out.write(bytes) {
        Ok(n) => Ok(n),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(_) => Err(Code::STREAM_CANCELLED),
    }
}

#[cfg(test)]
mod tests;
