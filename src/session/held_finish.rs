//! The peer's FIN is held back until the next event of the same record: a peer that gives
//! a stream up sends FIN and RST in one go (protocol 2.6), and that is not an orderly end.

use crate::mux::{Code, Event, StreamId};

/// A FIN that was not reported yet.
#[derive(Debug, Default)]
pub(super) struct HeldFinish(Option<StreamId>);

/// What a held FIN turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// The end of the peer's direction. The event that follows counts too.
    Orderly(StreamId),
    /// The stream was given up. The event that follows was the reset.
    Cancelled(StreamId, Code),
}

impl HeldFinish {
    /// Takes the next event, or `None` at the end of a record. Returns what became of the
    /// FIN that was held.
    pub(super) fn next(&mut self, event: Option<&Event<'_>>) -> Option<Finish> {
        let finish = self.0.take().map(|finished| match event {
            // STREAM_CLOSED says that it was closed for good after an orderly end.
            Some(Event::Reset { stream, code })
                if *stream == finished && *code != Code::STREAM_CLOSED =>
            {
                Finish::Cancelled(finished, *code)
            }
            _ => Finish::Orderly(finished),
        });
        if let Some(Event::Finished { stream }) = event {
            self.0 = Some(*stream);
        }
        finish
    }
}
