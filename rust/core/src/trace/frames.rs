//! Frames of HTTP/2 that end something, as they are on the wire: resets and GOAWAY, of either side, with their codes.

use super::{Event, Trace};

/// What begins a frame (RFC 9113 section 4.1).
const HEAD: usize = 9;
/// RFC 9113 section 6.
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
/// The last stream and the code of a GOAWAY. A reset has its code alone.
const MOST: usize = 8;

/// Follows what one side sends, in any pieces.
#[derive(Debug)]
pub(crate) struct Frames {
    trace: Trace,
    by: &'static str,
    /// Bytes up to the next head.
    skip: usize,
    /// The head of a frame, and the beginning of what is in it.
    bytes: [u8; HEAD + MOST],
    have: usize,
}

impl Frames {
    /// For the side of that name, with so many bytes before its first frame. None where nobody listens.
    pub(crate) fn new(trace: &Trace, by: &'static str, skip: usize) -> Option<Box<Self>> {
        let frames = || Box::new(Frames { trace: trace.clone(), by, skip, bytes: [0; HEAD + MOST], have: 0 });
        trace.is_on().then(frames)
    }

    /// Looks through more bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.wanted() - self.have).min(bytes.len());
            let (now, rest) = bytes.split_at(taken);
            self.bytes[self.have..self.have + taken].copy_from_slice(now);
            self.have += taken;
            bytes = rest;
            if self.have == self.wanted() && self.have >= HEAD {
                self.told();
                self.skip = self.length() - (self.have - HEAD);
                self.have = 0;
            }
        }
    }

    /// How much of a frame has to be here.
    fn wanted(&self) -> usize {
        if self.have < HEAD {
            return HEAD;
        }
        let inside = match self.bytes[3] {
            RST_STREAM => 4,
            GOAWAY => MOST,
            _ => 0,
        };
        HEAD + inside.min(self.length())
    }

    fn length(&self) -> usize {
        let [a, b, c, ..] = self.bytes;
        u32::from_be_bytes([0, a, b, c]) as usize
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = &self.bytes[at..at + 4];
        bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    fn told(&self) {
        let by = self.by;
        match (self.bytes[3], self.have - HEAD) {
            (RST_STREAM, 4) => {
                let (stream, code) = (self.number(5) & 0x7FFF_FFFF, code(self.number(HEAD)));
                self.trace.of(stream).tell(|| Event::Reset { by, code });
            }
            (GOAWAY, MOST) => {
                let (last, code) = (self.number(HEAD) & 0x7FFF_FFFF, code(self.number(HEAD + 4)));
                self.trace.tell(|| Event::Goaway { by, code, last });
            }
            _ => {}
        }
    }
}

/// The name of an error code (RFC 9113 section 7).
fn code(number: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(number as usize).copied().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::connection::Address;
    use crate::trace::{Opened, Queue};

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
    }

    proptest! {
        #[test]
        fn resets_and_goaways_are_found_in_any_pieces(
            kinds in prop::collection::vec((0u8..10, prop::collection::vec(any::<u8>(), 0..40)), 0..12),
            piece in 1usize..40,
        ) {
            let queue = Arc::new(Queue::new());
            let address = Address::Unix(None);
            let opened = Opened::accepted(Some(&queue), 1, &address, &address, false);
            let asked = || Event::Request { method: "GET".into(), target: "/".into(), version: "HTTP/2", host: "".into() };
            let mut frames = Frames::new(&opened.trace, "client", 3).unwrap();
            let mut wire = b"pre".to_vec();
            let mut expected = Vec::new();
            for (kind, payload) in &kinds {
                match (*kind, payload.len()) {
                    (RST_STREAM, 4..) => expected.push("reset"),
                    (GOAWAY, 8..) => expected.push("goaway"),
                    _ => {}
                }
                wire.extend(frame(*kind, 5, payload));
            }
            opened.trace.of(5).tell(asked);
            wire.chunks(piece).for_each(|piece| frames.feed(piece));
            drop(opened);
            let taken = queue.take().unwrap();
            let told = taken.iter().map(|record| record.event.name()).filter(|name| matches!(*name, "reset" | "goaway"));
            prop_assert_eq!(told.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_they_say() {
        let queue = Arc::new(Queue::new());
        let address = Address::Unix(None);
        let opened = Opened::accepted(Some(&queue), 1, &address, &address, false);
        let mut frames = Frames::new(&opened.trace, "server", 0).unwrap();
        frames.feed(&frame(GOAWAY, 0, &[0, 0, 0, 9, 0, 0, 0, 11, b'x']));
        drop((opened, frames));
        let goaway = Event::Goaway { by: "server", code: "ENHANCE_YOUR_CALM", last: 9 };
        assert_eq!(queue.take().unwrap()[1].event, goaway);
    }
}
