//! Where frames begin in a stream of bytes (RFC 9113 section 4.1), without looking into them.

/// What begins a frame.
const HEAD: usize = 9;
/// RFC 9113 section 6.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// The head of a frame, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) length: usize,
    pub(super) kind: u8,
    flags: u8,
}

impl Frame {
    pub(super) fn ends_stream(self) -> bool {
        self.flags & END_STREAM != 0
    }
}

/// Finds the heads of frames in bytes that come in any pieces.
#[derive(Debug)]
pub(super) struct Scan {
    /// Bytes up to the next head.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
    /// The frame whose payload is skipped is DATA, which is somebody else's to wait for.
    in_data: bool,
    /// Behind HEADERS without END_HEADERS: nothing but CONTINUATION may follow (RFC 9113 section 4.3).
    in_headers: bool,
}

impl Scan {
    /// For a stream with so many bytes before its first frame.
    pub(super) fn new(skip: usize) -> Self {
        Scan { skip, head: [0; HEAD], have: 0, in_data: false, in_headers: false }
    }

    /// Looks through more bytes, and hands over each frame that begins in them. Whether what was begun before them is whole.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) -> bool {
        let mut whole = false;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            whole |= !self.is_within();
            let taken = (HEAD - self.have).min(bytes.len() - skipped);
            let (head, rest) = bytes[skipped..].split_at(taken);
            bytes = rest;
            self.head[self.have..self.have + taken].copy_from_slice(head);
            self.have += taken;
            if self.have < HEAD {
                return whole;
            }
            self.have = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            let frame = Frame { length: u32::from_be_bytes([0, a, b, c]) as usize, kind, flags };
            self.skip = frame.length;
            self.in_data = kind == DATA;
            if matches!(kind, HEADERS | CONTINUATION) {
                self.in_headers = flags & END_HEADERS == 0;
            }
            found(frame);
        }
    }

    /// How much DATA is to come before the next head.
    pub(super) fn data_left(&self) -> usize {
        if self.in_data { self.skip } else { 0 }
    }

    /// Whether a head of a frame, a frame other than DATA, or a block of headers has begun and is not whole.
    pub(super) fn is_within(&self) -> bool {
        self.have > 0 || self.in_headers || (self.skip > 0 && !self.in_data)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn what_is_whole_and_what_is_not() {
        let block = [frame(HEADERS, 0, b"ab"), frame(CONTINUATION, END_HEADERS, b"c")].concat();
        for end in 1..block.len() {
            let mut scan = Scan::new(0);
            scan.feed(&block[..end], |_| ());
            assert!(scan.is_within(), "{end}");
        }
        let mut scan = Scan::new(0);
        scan.feed(&block, |_| ());
        assert!(!scan.is_within());
        scan.feed(&frame(DATA, 0, b"abc")[..10], |_| ());
        assert!(!scan.is_within(), "a body has a time-out of its own");
    }

    proptest! {
        #[test]
        fn any_frames_in_any_pieces(
            frames in prop::collection::vec((any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..9),
            piece in 1usize..50,
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect();
            let (mut scan, mut found) = (Scan::new(3), Vec::new());
            for piece in [&b"pre"[..], &wire].concat().chunks(piece) {
                scan.feed(piece, |frame| found.push((frame.kind, frame.flags, frame.length)));
            }
            let sent: Vec<_> = frames.iter().map(|(kind, flags, payload)| (*kind, *flags, payload.len())).collect();
            prop_assert_eq!(found, sent);
        }
    }
}
