//! Bytes of one stream from consecutive frames. They are delivered with one call, so that a
//! socket needs one system call. No other event is between them.

use std::io::IoSlice;
use std::sync::Arc;

use super::Sink;
use super::record_reader::BATCH_RECORDS;
use crate::mux::StreamId;

/// Received bytes that are not delivered yet.
pub(super) struct Gathered<'b> {
    stream: Option<StreamId>,
    sink: Option<Arc<dyn Sink>>,
    parts: [IoSlice<'b>; BATCH_RECORDS],
    count: usize,
}

impl<'b> Gathered<'b> {
    pub(super) fn new() -> Self {
        let parts = [IoSlice::new(&[]); BATCH_RECORDS];
        Gathered { stream: None, sink: None, parts, count: 0 }
    }

    /// Adds bytes of a stream. `sink` finds its receiver, for the first ones. Returns whether
    /// they were added: all must be of one stream, and their number is limited.
    pub(super) fn add(
        &mut self,
        stream: StreamId,
        bytes: &'b [u8],
        sink: impl FnOnce() -> Option<Arc<dyn Sink>>,
    ) -> bool {
        match self.stream {
            None => {
                self.stream = Some(stream);
                self.sink = sink();
            }
            Some(first) if first == stream && self.count < self.parts.len() => {}
            Some(_) => return false,
        }
        self.parts[self.count] = IoSlice::new(bytes);
        self.count += 1;
        true
    }

    /// Delivers the bytes. Returns how many are consumed.
    pub(super) fn deliver(&mut self) -> Option<(StreamId, usize)> {
        let stream = self.stream.take()?;
        let parts = &self.parts[..std::mem::take(&mut self.count)];
        let n = match self.sink.take() {
            Some(sink) => sink.data_parts(parts),
            // The stream's owner released it: its bytes are consumed.
            None => parts.iter().map(|part| part.len()).sum(),
        };
        (n > 0).then_some((stream, n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Reset;
    use crate::sys::sync::Mutex;

    /// Notes the lengths of the parts of each delivery, and consumes all but a byte.
    #[derive(Default)]
    struct Noted(Mutex<Vec<Vec<usize>>>);

    impl Sink for Noted {
        fn data(&self, _bytes: &[u8]) -> usize {
            unreachable!("parts are delivered together")
        }
        fn data_parts(&self, parts: &[IoSlice<'_>]) -> usize {
            let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
            let all: usize = lengths.iter().sum();
            self.0.lock().push(lengths);
            all - 1
        }
        fn finished(&self) {}
        fn reset(&self, _reset: Reset) {}
    }

    #[test]
    fn frames_of_one_stream_are_delivered_together() {
        let [one, two] = [3, 5].map(|n| StreamId::from_number(n).unwrap());
        let noted = Arc::new(Noted::default());
        let mut gathered = Gathered::new();
        let sink = || Some(Arc::clone(&noted) as Arc<dyn Sink>);
        assert!(gathered.deliver().is_none(), "nothing was added");
        for n in 1..=BATCH_RECORDS {
            assert!(gathered.add(one, &[7; 9][..n], sink));
        }
        assert!(!gathered.add(one, &[7], sink), "there is no room");
        assert_eq!(gathered.deliver(), Some((one, 9)));
        assert!(gathered.add(one, &[7; 4], sink));
        assert!(!gathered.add(two, &[7], sink), "another stream");
        assert_eq!(gathered.deliver(), Some((one, 3)));
        assert!(gathered.add(two, &[7; 6], || None), "a stream without a sink");
        assert_eq!(gathered.deliver(), Some((two, 6)));
        assert_eq!(*noted.0.lock(), [vec![1, 2, 3, 4], vec![4]]);
    }
}
