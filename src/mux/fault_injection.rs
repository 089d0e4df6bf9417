//! Faults put in on purpose, for the self-check of the simulator: each must be
//! found by it, or it is blind. Without the feature `planted-bugs` none of
//! this is in the program.

/// One planted fault.
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
    TombstoneMissing,
    /// The time for the echo is not set anew after a good one.
    BeatNotRearmed,
    /// Echoes come back with their bytes swapped.
    EchoSwapped,
    /// Bytes of the type, and of beats, are not given back.
    TypeNotCounted,
    /// The agent opens even ids, the edge odd ones.
    ParityMixed,
    /// A stream that found no window is never told of the new one.
    WritableLost,
    /// Unconsumed bytes stay in the account when a stream is reset.
    ResetLeaks,
    /// Unconsumed bytes of a stream leave the account when it is over.
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
        Bug::TombstoneMissing,
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

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants `bug`, or none, in the muxers that the calling thread runs.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether `bug` is planted.
#[cfg(feature = "planted-bugs")]
pub(super) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether `bug` is planted: never.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(super) const fn is(_: Bug) -> bool {
    false
}
