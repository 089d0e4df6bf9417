//! Faults for the self-check of the simulator, which must find each of them. Without the
//! feature `fault-injection` none of this is in the program.

use crate::features;

/// One fault of the muxer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The sender takes one byte more than the window has.
    WindowOffByOne,
    /// The sender does not look at the window.
    GrantIgnoresWindow,
    /// WNDINC says one byte more than is owed.
    GivesTooMuch,
    /// No WNDINC once our own side has sent FIN.
    NoWindowAfterFin,
    /// FIN is forgotten while the stream's SYN waits.
    FinLost,
    /// FIN overtakes frames that wait.
    FinOvertakes,
    /// RST for a stream that is gone is answered with RST.
    RstAnswered,
    /// Each stray frame gets an RST.
    DoubleRst,
    /// Streams that were reset are not remembered.
    ResetStreamForgotten,
    /// The time for the echo is not set anew after a good one.
    BeatNotRearmed,
    /// Echoes come back with their bytes swapped.
    EchoSwapped,
    /// Bytes of the type, and of beats, are not given back.
    TypeNotCounted,
    /// The agent opens even ids, the edge odd ones.
    ParityMixed,
    /// A stream that found no window gets no event for the new one.
    WritableLost,
    /// Unconsumed bytes stay in the sum when a stream is reset.
    ResetLeaks,
    /// Unconsumed bytes of a stream leave the sum when it is over.
    LingerForgotten,
    /// A reset by the application is not sent.
    RstLost,
    /// The type's deadline is not kept.
    TypeWaitsForEver,
}

impl Bug {
    /// All of them.
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

/// Returns whether `bug` is injected. Without the feature: never, at no cost.
#[inline(always)]
pub(super) fn is(bug: Bug) -> bool {
    features::FAULT_INJECTION && INJECTED.get() == Some(bug)
}
