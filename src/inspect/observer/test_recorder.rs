//! What a watch tells of a connection, kept for tests to look at. The fuzz target for the
//! same parser includes this file.

use super::{Note, Notes, Side, Watch};

/// Most bytes that a watch may hold.
const HELD: usize = 5_000;

/// What was recorded of one exchange, by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) bytes: [Vec<u8>; 2],
    pub(super) ends: [Option<Note>; 2],
    pub(super) status: u16,
    pub(super) shown: bool,
    pub(super) gone: bool,
}

#[derive(Default)]
pub(super) struct Recorder(pub(super) Vec<Seen>);

impl Notes for Recorder {
    fn begin(&mut self) -> u64 {
        self.0.push(Seen::default());
        self.0.len() as u64 - 1
    }

    fn bytes(&mut self, exchange: u64, side: Side, bytes: &[u8]) -> bool {
        let seen = &mut self.0[exchange as usize];
        assert!(!bytes.is_empty(), "no bytes are told of");
        assert!(!seen.gone && seen.ends[side as usize].is_none(), "bytes after the end");
        seen.bytes[side as usize].extend_from_slice(bytes);
        true
    }

    fn note(&mut self, exchange: u64, side: Side, note: Note) {
        let seen = &mut self.0[exchange as usize];
        assert!(!seen.gone && seen.ends[side as usize].is_none(), "told after the end: {note:?}");
        match (note, side) {
            (Note::Head(_), Side::Request) => seen.shown = true,
            (Note::Head(status), Side::Response) => seen.status = status,
            (Note::Interim, _) => seen.bytes[side as usize].clear(),
            (Note::NoRequest, _) => seen.gone = true,
            (end, _) => seen.ends[side as usize] = Some(end),
        }
    }
}

impl Recorder {
    /// Shows the watch bytes of one side, in pieces of a size chosen for what is left.
    pub(super) fn feed(
        &mut self,
        watch: &mut Watch,
        side: Side,
        bytes: &[u8],
        mut size: impl FnMut(usize) -> usize,
    ) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(size(rest.len()).clamp(1, rest.len()));
            watch.feed(side, now, self);
            assert!(watch.held() <= HELD, "{} bytes held", watch.held());
            rest = later;
        }
    }

    /// Breaks the connection off. What was recorded of it: each side has an end that knows
    /// its length.
    pub(super) fn done(mut self, mut watch: Watch) -> Vec<Seen> {
        watch.abort(&mut self);
        assert!(watch.is_quiet());
        self.0.retain(|seen| !seen.gone);
        for seen in &self.0 {
            for (end, bytes) in seen.ends.iter().zip(&seen.bytes) {
                let Some(Note::Whole(total) | Note::Part(total)) = *end else {
                    panic!("a side without an end: {seen:?}")
                };
                assert_eq!(total, bytes.len() as u64);
            }
        }
        self.0
    }
}
