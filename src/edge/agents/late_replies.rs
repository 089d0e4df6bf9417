//! Responses to calls that cannot be sent at once: what they depend on is not decided yet, or
//! the link accepts nothing more. One thread serves all of them, and runs while there are any.
//! The calls themselves do not belong here.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::encoded_reply::EncodedReply;
use super::registry::EndpointRegistry;
use crate::mux::{Code, StreamId};
use crate::session::Session;
use crate::sys::sync::Mutex;
use crate::sys::{self, threads};
use crate::time::Instant;

/// Pause between two attempts. An endpoint that goes offline ends it early.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Time to send a response when the link is full.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the encoded response. `None`: it is not decided yet. Does not block.
pub type MakeReply = Box<dyn FnMut(Instant) -> Option<EncodedReply> + Send>;

/// All late responses.
#[derive(Default)]
pub struct LateReplies {
    state: Mutex<LateState>,
}

#[derive(Default)]
struct LateState {
    replies: Vec<LateReply>,
    is_running: bool,
}

/// A response that is late.
pub struct LateReply {
    session: Session,
    stream: StreamId,
    /// Ends with the call: the agent has reset it.
    call: Weak<()>,
    step: LateStep,
}

enum LateStep {
    Undecided(MakeReply),
    /// Bytes that are left, and the time by which they have to be sent.
    Sending(EncodedReply, Instant),
}

impl LateReply {
    /// Returns a response that is not decided yet.
    pub fn undecided(session: &Session, stream: StreamId, call: Weak<()>, make: MakeReply) -> Self {
        LateReply { session: session.clone(), stream, call, step: LateStep::Undecided(make) }
    }

    /// Returns a response with bytes that the link has not accepted.
    pub fn unsent(session: &Session, stream: StreamId, call: Weak<()>, rest: EncodedReply) -> Self {
        let step = LateStep::Sending(rest, sys::clock() + REPLY_TIMEOUT);
        LateReply { session: session.clone(), stream, call, step }
    }

    /// Goes on with it. Returns it if it has to be tried again.
    fn attempt(mut self, now: Instant) -> Option<Self> {
        // The session forgets the call at its end, and the agent's reset does the same.
        self.call.upgrade()?;
        if let LateStep::Undecided(make) = &mut self.step {
            match make(now) {
                Some(reply) => self.step = LateStep::Sending(reply, now + REPLY_TIMEOUT),
                None => return Some(self),
            }
        }
        if let LateStep::Sending(rest, until) = &mut self.step {
            match self.session.try_send(self.stream, &rest.bytes) {
                Ok(n) if n == rest.bytes.len() => self.session.finish(self.stream),
                Ok(n) if now < *until => {
                    rest.bytes.drain(..n);
                    return Some(self);
                }
                _ => self.session.cancel(self.stream, Code::INTERNAL_ERROR),
            }
        }
        self.session.release(self.stream);
        None
    }
}

impl LateReplies {
    /// Sends a response when that is possible. Fails without a thread: the call is dropped.
    pub fn push(
        self: &Arc<Self>,
        registry: &Arc<EndpointRegistry>,
        reply: LateReply,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        state.replies.push(reply);
        if std::mem::replace(&mut state.is_running, true) {
            return Ok(());
        }
        drop(state);
        let (this, registry) = (Arc::clone(self), Arc::clone(registry));
        let started = threads::ANSWER.spawn(Box::new(move || this.run(&registry)));
        started.map(|_| ()).inspect_err(|_| {
            let mut state = self.state.lock();
            state.is_running = false;
            let dropped = std::mem::take(&mut state.replies);
            drop(state);
            for reply in dropped {
                reply.session.cancel(reply.stream, Code::INTERNAL_ERROR);
            }
        })
    }

    fn run(&self, registry: &EndpointRegistry) {
        loop {
            let replies = std::mem::take(&mut self.state.lock().replies);
            let now = sys::clock();
            let left: Vec<LateReply> =
                replies.into_iter().filter_map(|reply| reply.attempt(now)).collect();
            let mut state = self.state.lock();
            state.replies.extend(left);
            if state.replies.is_empty() {
                state.is_running = false;
                return;
            }
            drop(state);
            registry.wait_for_unbind(RETRY_INTERVAL);
        }
    }
}
