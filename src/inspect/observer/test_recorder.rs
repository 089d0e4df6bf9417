//! Records the events of an observer, for tests. The fuzz target of the same parser includes
//! this file.

use super::{ExchangeSink, HttpObserver, MessageEvent, Side};

/// Most bytes that an observer may hold.
const MAX_HEAP_BYTES: usize = 5_000;

/// Record of one exchange, by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) bytes: [Vec<u8>; 2],
    pub(super) ends: [Option<MessageEvent>; 2],
    pub(super) status: u16,
    pub(super) shown: bool,
    pub(super) gone: bool,
}

#[derive(Default)]
pub(super) struct Recorder(pub(super) Vec<Recorded>);

impl ExchangeSink for Recorder {
    fn begin(&mut self) -> u64 {
        self.0.push(Recorded::default());
        self.0.len() as u64 - 1
    }

    fn bytes(&mut self, exchange: u64, side: Side, bytes: &[u8]) -> bool {
        let seen = &mut self.0[exchange as usize];
        assert!(!bytes.is_empty(), "no bytes are told of");
        assert!(!seen.gone && seen.ends[side as usize].is_none(), "bytes after the end");
        seen.bytes[side as usize].extend_from_slice(bytes);
        true
    }

    fn event(&mut self, exchange: u64, side: Side, event: MessageEvent) {
        let seen = &mut self.0[exchange as usize];
        assert!(!seen.gone && seen.ends[side as usize].is_none(), "told after the end: {event:?}");
        match (event, side) {
            (MessageEvent::Head(_), Side::Request) => seen.shown = true,
            (MessageEvent::Head(status), Side::Response) => seen.status = status,
            (MessageEvent::Interim, _) => seen.bytes[side as usize].clear(),
            (MessageEvent::NotARequest, _) => seen.gone = true,
            (end, _) => seen.ends[side as usize] = Some(end),
        }
    }
}

impl Recorder {
    /// Passes bytes of one side to the observer, in pieces whose size depends on the rest.
    pub(super) fn feed(
        &mut self,
        observer: &mut HttpObserver,
        side: Side,
        bytes: &[u8],
        mut size: impl FnMut(usize) -> usize,
    ) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(size(rest.len()).clamp(1, rest.len()));
            observer.feed(side, now, self);
            assert!(
                observer.heap_bytes() <= MAX_HEAP_BYTES,
                "{} bytes held",
                observer.heap_bytes()
            );
            rest = later;
        }
    }

    /// Ends the connection. Returns the record: each side has an end with its length.
    pub(super) fn done(mut self, mut observer: HttpObserver) -> Vec<Recorded> {
        observer.abort(&mut self);
        assert!(observer.is_idle());
        self.0.retain(|seen| !seen.gone);
        for seen in &self.0 {
            for (end, bytes) in seen.ends.iter().zip(&seen.bytes) {
                let Some(MessageEvent::Complete(total) | MessageEvent::Incomplete(total)) = *end
                else {
                    panic!("a side without an end: {seen:?}")
                };
                assert_eq!(total, bytes.len() as u64);
            }
        }
        self.0
    }
}
