//! The receiving half of the protocol (RFC 6455 section 5) as a state machine: bytes in, messages out. It reads no clock
//! and no socket, so every path through it can be tested and fuzzed.

use bytes::{Buf, Bytes, BytesMut};

use super::close::{Close, Violation};
use super::deflate::{Failed, Inflater};
use super::utf8::Utf8;

/// The longest payload of a control frame (RFC 6455 section 5.5).
pub(super) const MAX_CONTROL: usize = 125;
/// How many empty fragments one message may have: they take no room, so that no other limit ends them.
const MAX_EMPTY: u32 = 1_000;
/// Of compressed bytes so many are inflated at once: they become 512 KiB at most, in half a millisecond.
const SLICE: usize = 512;
/// After so much that was inflated others have their turn.
const TURN: usize = 256 * 1024;

/// What a message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8, checked.
    Text,
    /// Any bytes.
    Binary,
}

/// What was found in the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole message.
    Message(Kind, Bytes),
    /// To be answered by a pong with the same payload.
    Ping(Bytes),
    /// An answer to a ping, or unasked (RFC 6455 section 5.5.3).
    Pong(Bytes),
    /// The client's last word.
    Close(Close),
    /// Nothing yet, but much was done: others on the event loop should have their turn before it is asked again.
    Pause,
}

/// One connection's receiving half.
#[derive(Debug)]
pub struct Machine {
    max_message_bytes: usize,
    /// Whether messages may be compressed.
    inflates: bool,
    /// Inflated since others had their turn.
    turn: usize,
    /// Received and not yet understood. Without allocation while there is nothing.
    buffer: BytesMut,
    frame: Option<Frame>,
    /// The message whose last fragment has not come.
    message: Option<Message>,
    /// The payload of a control frame, as far as it has come.
    control: BytesMut,
}

/// A frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    left: usize,
}

#[derive(Debug)]
struct Message {
    kind: Kind,
    data: BytesMut,
    utf8: Utf8,
    empty: u32,
    /// How much of it was announced, as it comes.
    announced: usize,
    /// Where it is compressed.
    inflater: Option<Inflater>,
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// The bit of a message that is compressed (RFC 7692 section 6).
const RSV1: u8 = 0x40;

impl Machine {
    /// For messages of up to so many bytes, which may be compressed where `inflates` says so (RFC 7692).
    pub fn new(max_message_bytes: usize, inflates: bool) -> Self {
        let (buffer, control) = (BytesMut::new(), BytesMut::new());
        Machine { max_message_bytes, inflates, turn: 0, buffer, frame: None, message: None, control }
    }

    /// Takes bytes from the client.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing of a message has come whose rest has not.
    pub(super) fn is_between_messages(&self) -> bool {
        self.message.is_none() && self.frame.is_none() && self.buffer.is_empty()
    }

    /// What was found next; none where more bytes are needed.
    ///
    /// # Errors
    /// The client broke the rules or passed a limit; the connection is of no use after it.
    pub fn next_event(&mut self) -> Result<Option<Event>, Violation> {
        loop {
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.head()? {
                    Some(frame) => frame,
                    None => {
                        if self.buffer.is_empty() {
                            // A connection that waits keeps no buffer.
                            self.buffer = BytesMut::new();
                        }
                        return Ok(None);
                    }
                },
            };
            if frame.left > 0 && self.buffer.is_empty() {
                self.frame = Some(frame);
                return Ok(None);
            }
            let event = if frame.opcode & 0x8 == 0 { self.data(frame)? } else { self.control(frame)? };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// The head of a frame (RFC 6455 section 5.2), once it is whole.
    fn head(&mut self) -> Result<Option<Frame>, Violation> {
        let &[first, second, ..] = &self.buffer[..] else { return Ok(None) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
        let coded = self.inflates && matches!(opcode, TEXT | BINARY) && first & 0x70 == RSV1;
        if first & 0x70 != 0 && !coded {
            return Err(Violation::protocol("a reserved bit is set"));
        }
        if second & 0x80 == 0 {
            return Err(Violation::protocol("a frame without a mask"));
        }
        let short = usize::from(second & 0x7F);
        match opcode {
            CONTINUATION if self.message.is_none() => {
                return Err(Violation::protocol("a continuation of nothing"));
            }
            TEXT | BINARY if self.message.is_some() => {
                return Err(Violation::protocol("a message within a message"));
            }
            CONTINUATION | TEXT | BINARY => {}
            CLOSE | PING | PONG if !fin => return Err(Violation::protocol("a control frame in fragments")),
            CLOSE | PING | PONG if short > MAX_CONTROL => {
                return Err(Violation::protocol("a control frame of over 125 bytes"));
            }
            CLOSE | PING | PONG => {}
            _ => return Err(Violation::protocol("an opcode that is reserved")),
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let size = 2 + extended + 4;
        if self.buffer.len() < size {
            return Ok(None);
        }
        let (length, least) = match (short, &self.buffer[2..]) {
            (126, &[a, b, ..]) => (u64::from(u16::from_be_bytes([a, b])), 126),
            (127, &[a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 1 << 16),
            _ => (short as u64, 0),
        };
        if length < least || length >> 63 != 0 {
            return Err(Violation::protocol("a length that is not written as it has to be"));
        }
        // Before a byte of it comes.
        let (have, coded) =
            self.message.as_ref().map_or((0, coded), |message| (message.announced, message.inflater.is_some()));
        let most = if coded { most_coded(self.max_message_bytes) } else { self.max_message_bytes };
        if opcode & 0x8 == 0 && length > (most - have) as u64 {
            return Err(Violation::too_large(self.max_message_bytes));
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.buffer[size - 4..size]);
        self.buffer.advance(size);
        if matches!(opcode, TEXT | BINARY) {
            let kind = if opcode == TEXT { Kind::Text } else { Kind::Binary };
            let inflater = coded.then(Inflater::new);
            let (data, utf8) = (BytesMut::new(), Utf8::default());
            self.message = Some(Message { kind, data, utf8, empty: 0, announced: 0, inflater });
        }
        if let Some(message) = self.message.as_mut().filter(|_| opcode & 0x8 == 0) {
            message.announced += length as usize;
        }
        Ok(Some(Frame { fin, opcode, mask, left: length as usize }))
    }

    /// What has come of a payload, up to `most`, unmasked.
    fn payload(&mut self, frame: &mut Frame, most: usize) -> BytesMut {
        let length = frame.left.min(self.buffer.len()).min(most);
        let whole = length == self.buffer.len();
        let mut data = if whole { std::mem::take(&mut self.buffer) } else { self.buffer.split_to(length) };
        unmask(&mut data, frame.mask);
        frame.left -= length;
        frame.mask.rotate_left(length % 4);
        data
    }

    fn data(&mut self, mut frame: Frame) -> Result<Option<Event>, Violation> {
        let was_empty = frame.left == 0;
        let Some(mut message) = self.message.take() else { return Ok(None) };
        let data = self.payload(&mut frame, if message.inflater.is_some() { SLICE } else { usize::MAX });
        message.empty += u32::from(was_empty);
        if message.empty > MAX_EMPTY {
            return Err(Violation::policy("too many empty fragments"));
        }
        let (is_last, before) = (frame.left == 0 && frame.fin, message.data.len());
        let mut inflated = Ok(());
        if let Some(inflater) = &mut message.inflater {
            let (into, most) = (&mut message.data, self.max_message_bytes);
            inflated = inflater.feed(&data, into, most);
            if is_last && inflated.is_ok() {
                inflated = inflater.finish(into, most);
            }
            self.turn += data.len() + message.data.len() - before;
        } else if message.data.is_empty() {
            message.data = data;
        } else {
            message.data.extend_from_slice(&data);
        }
        // As it comes: what cannot become text is refused before the rest is there (RFC 6455 section 8.1).
        if message.kind == Kind::Text && !message.utf8.feed(&message.data[before..]) {
            return Err(Violation::not_text());
        }
        // Behind that, so that the first fault counts, however the bytes were cut.
        inflated.map_err(|failed| match failed {
            Failed::TooLarge => Violation::too_large(self.max_message_bytes),
            Failed::Wrong => Violation::not_deflate(),
        })?;
        if is_last {
            if !message.utf8.is_whole() {
                return Err(Violation::not_text());
            }
            return Ok(Some(Event::Message(message.kind, message.data.freeze())));
        }
        self.message = Some(message);
        if frame.left > 0 {
            self.frame = Some(frame);
        }
        if self.turn < TURN {
            return Ok(None);
        }
        self.turn = 0;
        Ok(Some(Event::Pause))
    }

    fn control(&mut self, mut frame: Frame) -> Result<Option<Event>, Violation> {
        let data = self.payload(&mut frame, usize::MAX);
        self.control.extend_from_slice(&data);
        if frame.left > 0 {
            self.frame = Some(frame);
            return Ok(None);
        }
        let data = std::mem::take(&mut self.control).freeze();
        Ok(Some(match frame.opcode {
            PING => Event::Ping(data),
            PONG => Event::Pong(data),
            _ => Event::Close(Close::parse(&data)?),
        }))
    }
}

/// How many bytes a compressed message may have on its way: what does not shrink grows a little.
fn most_coded(max_message_bytes: usize) -> usize {
    max_message_bytes + max_message_bytes / 1024 + 64
}

/// Takes the mask away (RFC 6455 section 5.3), eight bytes at a time.
fn unmask(data: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = data.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Writes the head of a frame to the client, which has no mask (RFC 6455 section 5.1).
fn head(opcode: u8, length: usize) -> BytesMut {
    let mut head = BytesMut::with_capacity(10);
    head.extend_from_slice(&[0x80 | opcode]);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => head.extend_from_slice(&[short]),
        (_, Ok(medium)) => {
            head.extend_from_slice(&[126]);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            head.extend_from_slice(&[127]);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    head
}

/// The frame of a message: its head and its payload, to be sent together; whether that is compressed.
pub(super) fn message(kind: Kind, payload: Bytes, coded: bool) -> [Bytes; 2] {
    let opcode = if kind == Kind::Text { TEXT } else { BINARY };
    [head(if coded { RSV1 | opcode } else { opcode }, payload.len()).freeze(), payload]
}

pub(super) fn ping(payload: &[u8]) -> Bytes {
    control(PING, payload)
}

pub(super) fn pong(payload: &[u8]) -> Bytes {
    control(PONG, payload)
}

/// A close frame; without a payload for [`Close::NONE`].
pub(super) fn close(close: &Close) -> Bytes {
    control(CLOSE, &close.payload())
}

fn control(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = head(opcode, payload.len());
    frame.extend_from_slice(payload);
    frame.freeze()
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
