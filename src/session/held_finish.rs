//! A peer's FIN is reported only with the next event of the same record. A peer that cancels a
//! stream sends FIN and RST together (protocol 2.6), which is not an orderly end.

use crate::mux::{Code, Event, StreamId};

/// A FIN that was not reported yet.
#[derive(Debug, Default)]
pub(super) struct HeldFinish(Option<StreamId>);

/// Meaning of a held FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// The end of the peer's direction. The next event is handled separately.
    Orderly(StreamId),
    /// The stream was cancelled. The next event is that reset.
    Cancelled(StreamId, Code),
}

impl HeldFinish {
    /// Returns whether no FIN is held.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Processes the next event, or `None` at the end of a record. Returns the meaning of the
    /// held FIN.
    pub(super) fn next(&mut self, event: Option<&Event<'_>>) -> Option<Finish> {
        let finish = self.0.take().map(|finished| match event {
            // STREAM_CLOSED reports that the peer closed it completely after an orderly end.
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
