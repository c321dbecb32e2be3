//! The protocol of one HTTP/1 connection as a state machine: bytes in, events out. It reads no clock and no socket,
//! so every path through it can be tested, fuzzed and used by hand.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http::Method;

use super::chunked::{Decoded, Decoder};
use super::head::{self, Framing, Head, Scan};
use crate::config::Config;
use crate::error::{Refusal, RequestError};
use crate::http::pace::Pace;

/// What a peer may use of space and time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest head, in bytes.
    pub max_header_bytes: usize,
    /// The most header lines.
    pub max_headers: usize,
    /// The largest body, in bytes.
    pub max_body_bytes: u64,
    /// The longest a head may take.
    pub header_timeout: Duration,
    /// The longest a body may make no progress; a few bytes are none.
    pub body_timeout: Duration,
    /// The longest a connection may be idle between requests.
    pub keepalive_timeout: Duration,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Limits {
            max_header_bytes: config.max_header_bytes,
            max_headers: config.max_headers,
            max_body_bytes: config.max_request_read_bytes as u64,
            header_timeout: config.header_timeout,
            body_timeout: config.body_timeout,
            keepalive_timeout: config.keepalive_timeout,
        }
    }
}

/// What the machine found in the bytes so far.
#[derive(Debug)]
pub enum Event {
    /// Nothing whole: more bytes are needed.
    NeedMore,
    /// A head. Its body follows as events, also when it is empty.
    Request(Box<Head>),
    /// Some of the body.
    Body(Bytes),
    /// The body is whole. The machine waits for [`Machine::answered`].
    EndOfBody,
    /// The peer ended the connection; `clean` where no request was cut off by it.
    End {
        /// Whether it ended between two requests.
        clean: bool,
    },
}

/// What a peer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The first byte of the first request.
    First,
    /// The first byte of another request.
    Idle,
    /// The rest of a head.
    Head,
    /// More of a body.
    Body,
}

impl Wait {
    /// What a peer that let this time out gets: nothing between requests, a 408 within one.
    pub fn refusal(self) -> Option<RequestError> {
        match self {
            Wait::First | Wait::Idle => None,
            Wait::Head => {
                Some(RequestError::new(Refusal::HeaderTimeout, "the head did not arrive in time (header_timeout)"))
            }
            Wait::Body => Some(RequestError::new(Refusal::BodyTimeout, "the body made no progress (body_timeout)")),
        }
    }
}

#[derive(Debug)]
enum State {
    /// Between requests; `first` before there was any, `skipped` after an empty line.
    Idle {
        first: bool,
        skipped: bool,
    },
    Head(Scan),
    Length {
        left: u64,
    },
    Chunked {
        decoder: Decoder,
        seen: u64,
    },
    /// A whole request was handed out and is being answered.
    Answering,
}

/// The most room that is made for a body beyond what has come of it already.
const MUCH: u64 = 64 * 1024;

/// One connection's protocol state.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    state: State,
    /// Received and not yet understood. Without allocation while the connection is idle.
    buffer: BytesMut,
    ended: bool,
    /// The body is handed out as it comes.
    streamed: bool,
    /// The request is `HEAD`, as far as it has come.
    head: bool,
    /// How much of the body was handed out, without the framing of chunks.
    body: u64,
    /// The request that was refused, as far as it is known.
    refused: Option<Refused>,
    /// Since when the peer is waited for without progress.
    pace: Pace,
}

/// What is known of a request that was refused before anybody had its head.
#[derive(Debug)]
pub enum Refused {
    /// Its head is in order, its body is not.
    Head(Box<Head>),
    /// The beginning of what would have been its first line.
    Line(Bytes),
}

/// How much of a line that is no request line is kept.
const LINE: usize = 1024;

impl Refused {
    fn line(bytes: &[u8]) -> Self {
        let most = &bytes[..bytes.len().min(LINE)];
        let end = memchr::memchr(b'\n', most).unwrap_or(most.len());
        let line = &most[..end];
        Refused::Line(Bytes::copy_from_slice(line.strip_suffix(b"\r").unwrap_or(line)))
    }
}

impl Machine {
    /// A machine for a connection that was opened at `now`.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Machine {
            limits,
            state: State::Idle { first: true, skipped: false },
            buffer: BytesMut::new(),
            ended: false,
            streamed: false,
            head: false,
            body: 0,
            refused: None,
            pace: Pace::begin(now),
        }
    }

    /// Takes bytes from the peer.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        if let State::Length { left } = self.state
            && self.buffer.capacity() - self.buffer.len() < bytes.len()
        {
            // At once what a body needs, as far as what has come makes it credible: an announcement takes no memory.
            let more = (left - left.min(self.buffer.len() as u64)).min((self.buffer.len() as u64).max(MUCH));
            self.buffer.reserve(bytes.len().max(more as usize));
        }
        self.buffer.extend_from_slice(bytes);
        // The clock of a head runs from its first byte, that of a body from its last progress.
        if matches!(self.state, State::Length { .. } | State::Chunked { .. }) {
            self.pace.moved(bytes.len(), now);
        }
    }

    /// Notes that the peer will send nothing more.
    pub fn receive_end(&mut self) {
        self.ended = true;
    }

    /// How many bytes were received and not yet understood.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The method that a refusal answers: `HEAD` has no body, not even of a refusal (RFC 9110 section 9.3.2).
    pub fn refused_method(&self) -> Method {
        if self.head { Method::HEAD } else { Method::GET }
    }

    /// Whether the peer has ended its side.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next event.
    ///
    /// # Errors
    /// A request that must be refused; the connection is of no use after it.
    pub fn next_event(&mut self, now: Instant) -> Result<Event, RequestError> {
        match &mut self.state {
            State::Idle { skipped, .. } => {
                // One empty line before a request is ignored (RFC 9112 section 2.2), and begins none.
                if !*skipped && self.buffer.starts_with(b"\r\n") {
                    self.buffer.advance(2);
                    *skipped = true;
                }
                if !*skipped && &self.buffer[..] == b"\r" {
                    return Ok(if self.ended { Event::End { clean: true } } else { Event::NeedMore });
                }
                if self.buffer.is_empty() {
                    // An idle connection keeps no buffer.
                    self.buffer = BytesMut::new();
                    return Ok(if self.ended { Event::End { clean: true } } else { Event::NeedMore });
                }
                self.pace = Pace::begin(now);
                self.state = State::Head(Scan::default());
                self.next_event(now)
            }
            State::Head(scan) => {
                self.head = self.buffer.starts_with(b"HEAD ");
                let limits = &self.limits;
                let found = scan.find_end(&self.buffer, limits.max_header_bytes, limits.max_headers);
                match found.inspect_err(|_| self.refused = Some(Refused::line(&self.buffer)))? {
                    Some(length) => {
                        let headers = scan.headers();
                        let mut bytes = self.take(length);
                        let head = head::parse(&mut bytes, headers);
                        let head = Box::new(head.inspect_err(|_| self.refused = Some(Refused::line(&bytes)))?);
                        self.pace = Pace::begin(now);
                        self.body = 0;
                        match self.body_state(head.framing) {
                            Ok(state) => self.state = state,
                            Err(error) => {
                                self.refused = Some(Refused::Head(head));
                                return Err(error);
                            }
                        }
                        Ok(Event::Request(head))
                    }
                    None => Ok(self.more_or_end()),
                }
            }
            State::Length { left: 0 } => {
                self.state = State::Answering;
                Ok(Event::EndOfBody)
            }
            State::Length { left } if self.streamed && !self.buffer.is_empty() => {
                let length = (*left).min(self.buffer.len() as u64);
                *left -= length;
                self.body += length;
                Ok(Event::Body(self.take(length as usize).freeze()))
            }
            // It stays in the buffer until it is whole, so that nobody has to join its pieces.
            State::Length { left } if (self.buffer.len() as u64) < *left => Ok(self.more_or_end()),
            State::Length { left } => {
                let length = std::mem::take(left);
                self.body += length;
                Ok(Event::Body(self.take(length as usize).freeze()))
            }
            State::Chunked { decoder, seen } => match decoder.decode(&mut self.buffer)? {
                Decoded::Data(data) => {
                    *seen += data.len() as u64;
                    self.body = *seen;
                    if *seen > self.limits.max_body_bytes {
                        return Err(body_too_large(self.limits.max_body_bytes));
                    }
                    Ok(Event::Body(data))
                }
                Decoded::End => {
                    self.state = State::Answering;
                    Ok(Event::EndOfBody)
                }
                Decoded::More => Ok(self.more_or_end()),
            },
            State::Answering => Ok(Event::NeedMore),
        }
    }

    /// The first bytes of the buffer; all of it without sharing it.
    fn take(&mut self, length: usize) -> BytesMut {
        if length == self.buffer.len() { std::mem::take(&mut self.buffer) } else { self.buffer.split_to(length) }
    }

    fn body_state(&self, framing: Framing) -> Result<State, RequestError> {
        match framing {
            Framing::Length(length) if length > self.limits.max_body_bytes => {
                Err(body_too_large(self.limits.max_body_bytes))
            }
            Framing::Length(length) => Ok(State::Length { left: length }),
            Framing::Chunked => Ok(State::Chunked { decoder: Decoder::new(self.limits.max_header_bytes), seen: 0 }),
        }
    }

    fn more_or_end(&self) -> Event {
        if self.ended { Event::End { clean: false } } else { Event::NeedMore }
    }

    /// Takes what was received and belongs to no request that was handed out: the connection goes on without HTTP.
    pub fn take_unread(&mut self) -> BytesMut {
        if let State::Head(_) = self.state {
            self.state = State::Idle { first: false, skipped: false };
        }
        std::mem::take(&mut self.buffer)
    }

    /// Notes that the request was answered and another may follow.
    pub fn answered(&mut self, now: Instant) {
        self.streamed = false;
        self.body = 0;
        self.state = State::Idle { first: false, skipped: false };
        self.pace = Pace::begin(now);
    }

    /// Has the body of this request handed out as it comes.
    pub fn stream_body(&mut self) {
        self.streamed = true;
    }

    /// Notes that the peer is waited for again, after a while in which nothing of its body was read.
    pub fn resume(&mut self, now: Instant) {
        self.pace = Pace::begin(now);
    }

    /// How much of the body is to come, as far as its length tells.
    pub fn body_left(&self) -> Option<u64> {
        match self.state {
            State::Length { left } => Some(left),
            State::Chunked { .. } => None,
            State::Idle { .. } | State::Head(_) | State::Answering => Some(0),
        }
    }

    /// What is known of a request that was refused, or has not come whole, before anybody had its head.
    pub fn take_refused(&mut self) -> Option<Refused> {
        let begun = matches!(self.state, State::Head(_)) && !self.buffer.is_empty();
        self.refused.take().or_else(|| begun.then(|| Refused::line(&self.buffer)))
    }

    /// How much of the body has come, without the framing of chunks.
    pub fn body_received(&self) -> u64 {
        let waits = match self.state {
            State::Length { left } => left.min(self.buffer.len() as u64),
            _ => 0,
        };
        self.body + waits
    }

    /// Whether the connection is between requests, so that closing it loses nothing.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. }) && self.buffer.is_empty()
    }

    /// Since when the peer is waited for without progress.
    pub fn waits_since(&self) -> Instant {
        self.pace.since()
    }

    /// When the peer's time is over, and for what; none while the peer is not waited for.
    pub fn deadline(&self) -> Option<(Instant, Wait)> {
        let (allowed, wait) = match self.state {
            State::Idle { first: true, .. } => (self.limits.header_timeout, Wait::First),
            State::Idle { first: false, .. } => (self.limits.keepalive_timeout, Wait::Idle),
            State::Head(_) => (self.limits.header_timeout, Wait::Head),
            State::Length { .. } | State::Chunked { .. } => (self.limits.body_timeout, Wait::Body),
            State::Answering => return None,
        };
        Some((self.pace.since() + allowed, wait))
    }
}

fn body_too_large(limit: u64) -> RequestError {
    RequestError::new(Refusal::BodyBytes, format!("a body of over {limit} bytes (max_request_read_bytes)"))
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
