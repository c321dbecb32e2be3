//! The protocol of `multipart/form-data` without I/O: bytes in, parts out, whatever the pieces (RFC 2046 section 5.1).

use bytes::{Buf, BytesMut};
use memchr::memmem::Finder;

use super::part_head::PartHead;
use super::parts::Parts;
use super::{malformed, over};
use crate::error::RequestError;

/// What may stand between a boundary and the end of its line: `transport-padding`, which nobody sends.
const MAX_PADDING: usize = 256;

#[derive(Debug)]
pub(super) struct Multipart {
    state: State,
    /// What has come and is not used up.
    buffer: BytesMut,
    /// How much of it was looked through already, in a head.
    searched: usize,
    /// A line of the preamble or of a part begins with the buffer: a boundary may be right there, whose line end is that of
    /// the line before.
    line_begins: bool,
    /// CRLF, `--` and the boundary.
    delimiter: Finder<'static>,
    head_bytes: usize,
    head_lines: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first boundary: ignored.
    Preamble,
    /// Behind a boundary, in its line.
    Boundary,
    /// In the head of a part.
    Head,
    /// In the content of a part.
    Content,
    /// Behind the last boundary, in its line.
    LastBoundary,
    /// Behind that: ignored.
    Epilogue,
}

impl Multipart {
    pub(super) fn new(boundary: &[u8], head_bytes: usize, head_lines: usize) -> Self {
        let delimiter = [b"\r\n--", boundary].concat();
        Multipart {
            state: State::Preamble,
            buffer: BytesMut::new(),
            searched: 0,
            line_begins: true,
            delimiter: Finder::new(&delimiter).into_owned(),
            head_bytes,
            head_lines,
        }
    }

    pub(super) fn push(&mut self, piece: &[u8], parts: &mut Parts) -> Result<(), RequestError> {
        if self.state == State::Epilogue {
            return Ok(());
        }
        self.buffer.extend_from_slice(piece);
        while self.step(parts)? {}
        Ok(())
    }

    pub(super) fn end(&self) -> Result<(), RequestError> {
        match self.state {
            State::Epilogue => Ok(()),
            State::LastBoundary if self.buffer.iter().all(|byte| b" \t\r".contains(byte)) => Ok(()),
            State::LastBoundary => Err(Self::behind_a_boundary()),
            State::Preamble => Err(malformed("no line of it is the boundary that its content type names")),
            _ => Err(malformed("it ends before its last boundary")),
        }
    }

    /// Uses up some of what is there; whether more can be done with it.
    fn step(&mut self, parts: &mut Parts) -> Result<bool, RequestError> {
        match self.state {
            State::Preamble | State::Content => self.step_content(parts),
            State::Boundary if self.buffer.starts_with(b"--") => {
                self.buffer.advance(2);
                self.state = State::LastBoundary;
                Ok(true)
            }
            State::Boundary | State::LastBoundary => self.step_line_end(),
            State::Head => self.step_head(parts),
            State::Epilogue => {
                self.buffer.clear();
                Ok(false)
            }
        }
    }

    fn step_content(&mut self, parts: &mut Parts) -> Result<bool, RequestError> {
        let delimiter = self.delimiter.needle();
        if self.line_begins {
            let line = &delimiter[2..];
            if self.buffer.starts_with(line) {
                self.buffer.advance(line.len());
                return self.boundary(parts);
            }
            if line.starts_with(&self.buffer) {
                return Ok(false);
            }
            self.line_begins = false;
        }
        let found = self.delimiter.find(&self.buffer);
        // Without one the end may be the beginning of one.
        let certain = found.unwrap_or_else(|| (self.buffer.len() + 1).saturating_sub(delimiter.len()));
        if self.state == State::Content && certain > 0 {
            parts.content(&self.buffer[..certain])?;
        }
        self.buffer.advance(certain);
        if found.is_none() {
            return Ok(false);
        }
        self.buffer.advance(delimiter.len());
        self.boundary(parts)
    }

    fn boundary(&mut self, parts: &mut Parts) -> Result<bool, RequestError> {
        if self.state == State::Content {
            parts.end()?;
        }
        self.state = State::Boundary;
        Ok(true)
    }

    /// A boundary stands alone in its line. One that only begins it would be the end of a part to some readers and content to
    /// others.
    fn step_line_end(&mut self) -> Result<bool, RequestError> {
        let padding = self.buffer.iter().take_while(|byte| b" \t".contains(byte)).count();
        let next = match (self.state, &self.buffer[padding..]) {
            (_, [b'\r', b'\n', ..]) if self.state == State::Boundary => State::Head,
            (_, [b'\r', b'\n', ..]) => State::Epilogue,
            // It may yet be the last one.
            (State::Boundary, [b'-']) if padding == 0 => return Ok(false),
            (_, [] | [b'\r']) if padding <= MAX_PADDING => return Ok(false),
            _ => return Err(Self::behind_a_boundary()),
        };
        self.buffer.advance(padding + 2);
        self.state = next;
        self.searched = 0;
        Ok(true)
    }

    fn behind_a_boundary() -> RequestError {
        malformed("something stands behind a boundary in its line")
    }

    fn step_head(&mut self, parts: &mut Parts) -> Result<bool, RequestError> {
        // An empty line at once: there is no head at all.
        let end = if self.buffer.starts_with(b"\r\n") {
            Some(0)
        } else {
            let from = self.searched.saturating_sub(3);
            memchr::memmem::find(&self.buffer[from..], b"\r\n\r\n").map(|at| from + at + 2)
        };
        if end.unwrap_or(self.buffer.len()) > self.head_bytes {
            let number = parts.number();
            return Err(over(
                format_args!("the head of part {number} is longer than {} bytes", self.head_bytes),
                "max_header_bytes",
            ));
        }
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return Ok(false);
        };
        let head = PartHead::parse(&self.buffer[..end], parts.number(), self.head_lines)?;
        parts.begin(head)?;
        self.buffer.advance(end + 2);
        self.state = State::Content;
        self.line_begins = true;
        Ok(true)
    }
}
