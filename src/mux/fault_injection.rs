//! Faults for the self-check of the simulator, which must find each of them. They are not part
//! of the program without the feature `fault-injection`.

use crate::features;

/// A fault of the muxer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The sender uses one byte more than the window has.
    WindowOffByOne,
    /// The sender ignores the window.
    GrantIgnoresWindow,
    /// WNDINC has one byte more than is due.
    GivesTooMuch,
    /// WNDINC is not sent after our own FIN.
    NoWindowAfterFin,
    /// FIN is lost while the stream's SYN waits.
    FinLost,
    /// FIN is sent before frames that wait.
    FinOvertakes,
    /// RST for an unknown stream is answered with RST.
    RstAnswered,
    /// Each stray frame gets an RST.
    DoubleRst,
    /// Streams that were reset are forgotten at once.
    ResetStreamForgotten,
    /// The deadline of the echo is not renewed after a good one.
    BeatNotRearmed,
    /// Echoes are returned with their bytes swapped.
    EchoSwapped,
    /// Bytes of the type and of heartbeats are not returned to the window.
    TypeNotCounted,
    /// The agent opens even ids, the edge odd ones.
    ParityMixed,
    /// A stream that found no window gets no event for the new one.
    WritableLost,
    /// Unconsumed bytes stay in the sum after a reset.
    ResetLeaks,
    /// Unconsumed bytes leave the sum when their stream ends.
    LingerForgotten,
    /// A reset by the application is not sent.
    RstLost,
    /// The deadline of the type is ignored.
    TypeWaitsForEver,
}

impl Bug {
    /// All faults.
    pub const ALL: [Bug; 18] = [
        Bug::WindowOffByOne,
        Bug::GrantIgnoresWindow,
        Bug::GivesTooMuch,
        Bug::NoWindowAfterFin,
        Bug::FinLost,
        Bug::FinOvertakes,
        Bug::RstAnswered,
        Bug::DoubleRst,
        Bug::ResetStreamForgotten,
        Bug::BeatNotRearmed,
        Bug::EchoSwapped,
        Bug::TypeNotCounted,
        Bug::ParityMixed,
        Bug::WritableLost,
        Bug::ResetLeaks,
        Bug::LingerForgotten,
        Bug::RstLost,
        Bug::TypeWaitsForEver,
    ];
}

thread_local! {
    static INJECTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Injects `bug`, or none, into the muxers that the calling thread runs.
pub fn inject(bug: Option<Bug>) {
    INJECTED.set(bug);
}

/// Returns whether `bug` is injected. Always false without the feature, at no cost.
#[inline(always)]
pub(super) fn is(bug: Bug) -> bool {
    features::FAULT_INJECTION && INJECTED.get() == Some(bug)
}
