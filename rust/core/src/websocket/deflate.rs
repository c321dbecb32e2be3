//! Compression of messages: permessage-deflate (RFC 7692).
//!
//! Each message is coded by itself in both directions ("no context takeover", section 7.1.1), which a server may demand of
//! any client. So a connection that waits keeps nothing for it; a coder's window and tables, which would stay with each
//! connection otherwise, are 310 KiB to send and 44 KiB to receive. And what a stranger gets into one message tells nothing
//! of another's length.

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::HeaderValue;

use crate::locks::Mutex;

const NAME: &str = "permessage-deflate";
/// The largest window there is, as a power of two, and the one that is used where the client asks for no other.
const WINDOW: u8 = 15;
/// Shorter messages are sent as they are: by themselves they shrink by little, and would leave in one packet anyway.
const LEAST: usize = 256;
/// How much of a message is tried, to see whether it shrinks.
const TRIED: usize = 16 * 1024;
/// Of 1 KiB of JSON it leaves 19% in a third of the time in which levels 2 to 6 leave 17%; of 4 KiB of prose 68% in less than
/// half of the time in which they leave 48%. Most messages are short, and of the first kind.
const LEVEL: Compression = Compression::new(1);
/// What a flush leaves at the end, and is not sent (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// What client and server have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deflate {
    /// The window of what the server sends, where the client has asked for one.
    window: Option<u8>,
}

impl Deflate {
    /// The first of the client's offers that can be met (RFC 7692 section 5.1).
    pub(super) fn from_offers<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        values.find_map(|value| value.split(|&byte| byte == b',').find_map(Deflate::from_offer))
    }

    fn from_offer(offer: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(offer).ok()?.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let (mut window, mut known) = (None, Vec::new());
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start()))),
                None => (part, None),
            };
            // An offer with what is not known, or twice, or has a wrong value, is declined (section 7.1).
            match (name, value) {
                ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
                // It is a hint, and the largest is what is made room for.
                ("client_max_window_bits", Some(bits)) => drop(window_bits(bits, 8)?),
                // The library has no window of 8.
                ("server_max_window_bits", Some(bits)) => window = Some(window_bits(bits, 9)?),
                _ => return None,
            }
            if known.contains(&name) {
                return None;
            }
            known.push(name);
        }
        Some(Deflate { window })
    }

    /// What the client is told (section 7.1).
    pub(super) fn header(self) -> HeaderValue {
        const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let named = self.window.map(|bits| HeaderValue::try_from(format!("{AGREED}; server_max_window_bits={bits}")));
        named.and_then(Result::ok).unwrap_or(HeaderValue::from_static(AGREED))
    }

    /// A message, coded; none where it would not be smaller.
    pub(super) fn shrink(self, message: &[u8]) -> Option<Bytes> {
        if message.len() < LEAST {
            return None;
        }
        let window = self.window.unwrap_or(WINDOW);
        let new = || Compress::new_with_window_bits(LEVEL, false, window);
        let mut coder = if window == WINDOW { DEFLATERS.take().unwrap_or_else(new) } else { new() };
        let coded = shrink(&mut coder, message);
        if window == WINDOW {
            coder.reset();
            DEFLATERS.give(coder);
        }
        coded
    }
}

/// A value may stand in quotes (RFC 6455 section 9.1).
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// Without a zero before it (RFC 7692 section 7.1.2.1).
fn window_bits(text: &str, least: u8) -> Option<u8> {
    (least..=WINDOW).find(|bits| bits.to_string() == text)
}

fn shrink(coder: &mut Compress, message: &[u8]) -> Option<Bytes> {
    let mut coded = Vec::with_capacity(message.len().min(TRIED) + 64);
    let (tried, rest) = message.split_at(message.len().min(TRIED));
    deflate(coder, tried, &mut coded)?;
    // What gains less than a sixteenth is compressed already, or noise.
    if coded.len() > tried.len() - tried.len() / 16 {
        return None;
    }
    if !rest.is_empty() {
        coded.reserve(rest.len() / 2);
        deflate(coder, rest, &mut coded)?;
    }
    let length = coded.strip_suffix(&TAIL)?.len();
    coded.truncate(length);
    (length < message.len()).then(|| Bytes::from(coded))
}

/// To the end, so that all of it can be inflated.
fn deflate(coder: &mut Compress, mut from: &[u8], into: &mut Vec<u8>) -> Option<()> {
    loop {
        let before = coder.total_in();
        coder.compress_vec(from, into, FlushCompress::Sync).ok()?;
        from = &from[(coder.total_in() - before) as usize..];
        if from.is_empty() && into.len() < into.capacity() {
            return Some(());
        }
        into.reserve(into.len().max(1024));
    }
}

/// A message that is being inflated.
#[derive(Debug)]
pub(super) struct Inflater(Option<Decompress>);

/// Why a message cannot be inflated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It is larger than it may be.
    TooLarge,
    /// It is not what the format allows.
    Wrong,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Inflater(Some(INFLATERS.take().unwrap_or_else(|| Decompress::new_with_window_bits(false, WINDOW))))
    }

    /// Inflates what has come of it behind what was there before, up to `most` in all.
    pub(super) fn feed(&mut self, mut from: &[u8], into: &mut BytesMut, most: usize) -> Result<(), Failed> {
        let Some(decoder) = &mut self.0 else { return Err(Failed::Wrong) };
        let mut space = [0; 8 * 1024];
        loop {
            let before = (decoder.total_in(), decoder.total_out());
            let status = decoder.decompress(from, &mut space, FlushDecompress::Sync);
            let (took, made) = (decoder.total_in() - before.0, (decoder.total_out() - before.1) as usize);
            from = &from[took as usize..];
            // What is good goes in before the fault is told.
            let room = most - into.len();
            into.extend_from_slice(&space[..made.min(room)]);
            if made > room {
                return Err(Failed::TooLarge);
            }
            let status = status.map_err(|_| Failed::Wrong)?;
            if status == Status::StreamEnd {
                // A block may say that it is the last (RFC 7692 section 7.2.3.4). What follows it begins anew.
                decoder.reset(false);
            } else if from.is_empty() && made < space.len() {
                return Ok(());
            } else if took == 0 && made == 0 {
                return Err(Failed::Wrong);
            }
            if from.is_empty() && status == Status::StreamEnd {
                return Ok(());
            }
        }
    }

    /// The last of it has come.
    pub(super) fn finish(&mut self, into: &mut BytesMut, most: usize) -> Result<(), Failed> {
        self.feed(&TAIL, into, most)
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        if let Some(mut decoder) = self.0.take() {
            decoder.reset(false);
            INFLATERS.give(decoder);
        }
    }
}

/// Coders that nobody uses now: to make one takes longer than to code a short message.
struct Spare<T>(Mutex<Vec<T>>);

/// How many are kept of each kind, for all servers of the process: as many as work at once on a usual machine.
const MAX_SPARE: usize = 8;

static DEFLATERS: Spare<Compress> = Spare(Mutex::new(Vec::new()));
static INFLATERS: Spare<Decompress> = Spare(Mutex::new(Vec::new()));

impl<T> Spare<T> {
    /// Waits for nobody, neither here nor below: the process may have been forked while another thread had the lock.
    fn take(&self) -> Option<T> {
        self.0.try_lock()?.pop()
    }

    fn give(&self, coder: T) {
        if let Some(mut spare) = self.0.try_lock()
            && spare.len() < MAX_SPARE
        {
            spare.push(coder);
        }
    }
}

#[cfg(test)]
#[path = "deflate_tests.rs"]
mod tests;
