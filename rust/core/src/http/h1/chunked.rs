//! The chunked transfer coding (RFC 9112 section 7.1), as strict as a decoder can be: no white space, no sign, no
//! bare LF, a bound on everything.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Refusal, RequestError};
use crate::http::trailers;

/// The most bytes of extensions on one chunk: nobody uses them, so nobody may make us read them for long.
const MAX_EXTENSION: usize = 256;

/// Decodes one body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    extension_bytes: usize,
    trailer_bytes: usize,
    /// The most of extensions, and of trailers, in a body.
    max_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a size.
    Size {
        size: u64,
        digits: u8,
    },
    /// In the extensions after it.
    Extension {
        size: u64,
        seen: usize,
        at: Extension,
    },
    /// Behind the CR of the size line.
    SizeEnd {
        size: u64,
    },
    /// In data.
    Data {
        left: u64,
    },
    /// Behind data, at its CR.
    DataEnd,
    /// Behind the CR behind data.
    DataEnd2,
    /// At the beginning of a trailer line, or of the empty line that ends the body.
    Trailer,
    Done,
}

/// Where in extensions: `*( ";" name [ "=" value ] )`, white space around what stands in them (RFC 9112 section 7.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    /// Before a name.
    Begin,
    Name,
    /// In the white space behind a name.
    Named,
    /// Behind the `=`.
    Equals,
    Value,
    Quoted,
    /// Behind a backslash in quotes.
    Escaped,
    /// Behind the closing quote.
    Unquoted,
    /// In the white space behind a value.
    Valued,
}

/// What came out of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// Some of the body.
    Data(Bytes),
    /// The body is whole.
    End,
    /// Not enough bytes.
    More,
}

impl Decoder {
    pub(super) fn new(max_bytes: usize) -> Self {
        Decoder { state: State::Size { size: 0, digits: 0 }, extension_bytes: 0, trailer_bytes: 0, max_bytes }
    }

    /// Takes what it can from the front of `buffer`.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, RequestError> {
        loop {
            if self.state == State::Trailer {
                return self.trailer(buffer);
            }
            if let State::Data { left } = self.state {
                let take = left.min(buffer.len() as u64) as usize;
                if take == 0 {
                    return Ok(Decoded::More);
                }
                let left = left - take as u64;
                self.state = if left == 0 { State::DataEnd } else { State::Data { left } };
                return Ok(Decoded::Data(buffer.split_to(take).freeze()));
            }
            if self.state == State::Done {
                return Ok(Decoded::End);
            }
            let Some(&byte) = buffer.first() else { return Ok(Decoded::More) };
            buffer.advance(1);
            self.state = step(self.state, byte)?;
            if let State::Extension { .. } = self.state {
                // A short one on each of many short chunks is no less to read.
                self.extension_bytes += 1;
                if self.extension_bytes > self.max_bytes {
                    return Err(RequestError::new(Refusal::Chunk, "chunk extensions longer than max_header_bytes"));
                }
            }
        }
    }

    /// Trailers are read to the end, checked and dropped (RFC 9110 section 6.5.1 allows that).
    fn trailer(&mut self, buffer: &mut BytesMut) -> Result<Decoded, RequestError> {
        loop {
            let Some(end) = memchr::memchr(b'\n', buffer) else {
                if self.trailer_bytes + buffer.len() > self.max_bytes {
                    return Err(too_long());
                }
                return Ok(Decoded::More);
            };
            let line = buffer.split_to(end + 1);
            self.trailer_bytes += line.len();
            if self.trailer_bytes > self.max_bytes {
                return Err(too_long());
            }
            if &line[..] == b"\r\n" {
                self.state = State::Done;
                return Ok(Decoded::End);
            }
            let mut slot = [httparse::EMPTY_HEADER; 1];
            let mut whole = line.to_vec();
            whole.extend_from_slice(b"\r\n");
            let crlf = line.ends_with(b"\r\n");
            if !crlf || !matches!(httparse::parse_headers(&whole, &mut slot), Ok(httparse::Status::Complete(_))) {
                return Err(RequestError::new(Refusal::Chunk, "malformed trailer"));
            }
            if trailers::is_never_one(slot[0].name) {
                let message = format!("{} in the trailers (RFC 9110 section 6.5.1)", slot[0].name);
                return Err(RequestError::new(Refusal::Chunk, message));
            }
        }
    }
}

fn too_long() -> RequestError {
    RequestError::new(Refusal::HeaderBytes, "trailers longer than max_header_bytes")
}

fn step(state: State, byte: u8) -> Result<State, RequestError> {
    let malformed = |what: &'static str| Err(RequestError::new(Refusal::Chunk, what));
    Ok(match (state, byte) {
        (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            if digits == 15 {
                return malformed("a chunk size of more than 15 digits");
            }
            let digit = (byte as char).to_digit(16).unwrap_or(0);
            State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
        }
        (State::Size { digits: 0, .. }, _) => return malformed("a chunk without a size"),
        (State::Size { size, .. }, b'\r') => State::SizeEnd { size },
        (State::Size { size, .. }, b';') => State::Extension { size, seen: 0, at: Extension::Begin },
        (State::Size { .. }, _) => return malformed("malformed chunk size"),
        (State::Extension { size, at: Extension::Name | Extension::Value | Extension::Unquoted, .. }, b'\r') => {
            State::SizeEnd { size }
        }
        (State::Extension { seen: MAX_EXTENSION.., .. }, _) => return malformed("a chunk extension that does not end"),
        (State::Extension { size, seen, at }, byte) => match at.step(byte) {
            Some(at) => State::Extension { size, seen: seen + 1, at },
            None => return malformed("malformed chunk extension"),
        },
        (State::SizeEnd { size: 0 }, b'\n') => State::Trailer,
        (State::SizeEnd { size }, b'\n') => State::Data { left: size },
        (State::DataEnd, b'\r') => State::DataEnd2,
        (State::DataEnd2, b'\n') => State::Size { size: 0, digits: 0 },
        (State::DataEnd | State::DataEnd2, _) => return malformed("a chunk longer than its size"),
        _ => return malformed("a line that does not end in CRLF"),
    })
}

impl Extension {
    /// Where the byte leads; nowhere where it does not belong there.
    fn step(self, byte: u8) -> Option<Self> {
        use Extension::*;
        Some(match (self, byte) {
            (Begin | Named | Equals | Valued, b'\t' | b' ') => self,
            (Begin | Name, byte) if is_token(byte) => Name,
            (Name, b'\t' | b' ') => Named,
            (Name | Named, b'=') => Equals,
            (Name | Named | Value | Unquoted | Valued, b';') => Begin,
            (Equals, b'"') => Quoted,
            (Equals | Value, byte) if is_token(byte) => Value,
            (Value | Unquoted, b'\t' | b' ') => Valued,
            (Quoted, b'"') => Unquoted,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, b'\t' | 0x20..=0x7e | 0x80..) => Quoted,
            _ => return None,
        })
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes `pieces` one after the other; what is left over comes back too.
    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, Vec<u8>), RequestError> {
        let (mut decoder, mut buffer, mut body) = (Decoder::new(1024), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buffer)? {
                    Decoded::Data(data) => body.extend_from_slice(&data),
                    Decoded::End => return Ok((body, true, buffer.to_vec())),
                    Decoded::More => break,
                }
            }
        }
        Ok((body, false, buffer.to_vec()))
    }

    #[test]
    fn well_formed() {
        let (body, whole, rest) = decode(&[b"4\r\nWiki\r\n5;a=\"b\"\r\npedia\r\n0\r\nExpires: x\r\n\r\nGET"]).unwrap();
        assert_eq!((&body[..], whole, &rest[..]), (&b"Wikipedia"[..], true, &b"GET"[..]));
        for right in ["a", "a=b", " a", "\ta \t=\t b", "a;b", "a;b=c ;d", "a=\"b;=\\\"\\\\ \t\u{e9}\"", "a=\"\" ; b"] {
            let wire = format!("1;{right}\r\na\r\n0;{right}\r\n\r\n");
            assert_eq!(decode(&[wire.as_bytes()]).unwrap(), (b"a".to_vec(), true, Vec::new()), "{right:?}");
        }
    }

    #[test]
    fn malformed() {
        for bad in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            " 1\r\n",
            "1 \r\n",
            "0x1\r\n",
            "1\n",
            "1\r\r",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "1234567890abcdef\r\n",
            "1;\x01\r\n",
            "1;\r\n",
            "1; \r\n",
            "1;;\r\n",
            "1;a=\r\n",
            "1;a \r\n",
            "1;a b\r\n",
            "1;a=b c\r\n",
            "1;a=b \r\n",
            "1;a=\"b\r\n",
            "1;a=\"b\"c\r\n",
            "1;a=\"b\\\r\n",
            "1;=b\r\n",
            "1;a[=b\r\n",
            "0\r\ncontent-LENGTH: 1\r\n\r\n",
            "0\r\nA: b\r\nHost: c\r\n\r\n",
            "0\r\nbad trailer\r\n\r\n",
            "0\r\na: b\n\r\n",
            "0\r\n folded\r\n",
        ] {
            assert!(decode(&[bad.as_bytes()]).is_err(), "{bad:?}");
        }
        let endless = format!("1;{}", "x".repeat(300));
        assert!(decode(&[endless.as_bytes()]).is_err());
        let many = format!("1;{}\r\na\r\n", "x".repeat(200));
        assert!(decode(&[many.repeat(5).as_bytes()]).is_ok());
        assert!(decode(&[many.repeat(6).as_bytes()]).is_err());
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(300));
        assert!(decode(&[trailers.as_bytes()]).is_err());
        assert!(decode(&[b"0\r\n", &[b'a'; 2000]]).is_err());
    }

    proptest! {
        #[test]
        fn any_chunks_in_any_pieces(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8), cuts in prop::collection::vec(1usize..20, 1..40)) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let mut pieces = Vec::new();
            let mut rest = &wire[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let (body, whole, left) = decode(&pieces).unwrap();
            prop_assert!(whole && left.is_empty());
            prop_assert_eq!(body, chunks.concat());
        }

        #[test]
        fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&junk]);
        }
    }
}
