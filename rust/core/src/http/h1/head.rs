//! The head of a request: finding its end without reading a byte twice, then parsing it once.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use http::{Method, Version};

use crate::error::{Refusal, RequestError};
use crate::http::Request;
use crate::http::headers::{Headers, Span};
use crate::http::target::{self, Target};

/// The head of a request: everything before its body.
#[derive(Debug, Clone)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The target.
    pub target: Target,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The header lines.
    pub headers: Headers,
    /// How long the body is.
    pub framing: Framing,
    /// Whether the peer keeps the connection for another request (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether the peer waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

impl From<Head> for Request {
    /// Without a body, and of no connection.
    fn from(head: Head) -> Self {
        let Head { method, target, version, headers, .. } = head;
        let body = Bytes::new();
        Request {
            method,
            target,
            version,
            headers,
            body,
            incoming: None,
            connection: None,
            id: None,
            route: None,
            pattern: None,
            told: OnceLock::new(),
            tunnel: false,
        }
    }
}

/// How the end of a body is told (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its length, which may be 0.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// What is known of a head that is still arriving.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes looked at.
    at: usize,
    /// Where the current line begins.
    line: usize,
    /// The end of the request line, once seen.
    first_line: Option<usize>,
    /// Header lines seen.
    headers: usize,
}

impl Scan {
    /// How many header lines were found.
    pub(super) fn headers(&self) -> usize {
        self.headers
    }

    /// Looks at what was added to `buffer` since the last call: the length of the head once it is whole.
    ///
    /// Every line must end in CRLF: a bare LF or CR ends a line for some parsers and not for others, which is how
    /// requests are smuggled (RFC 9112 section 2.2 allows either choice).
    pub(super) fn find_end(
        &mut self,
        buffer: &BytesMut,
        max_bytes: usize,
        max_headers: usize,
    ) -> Result<Option<usize>, RequestError> {
        if let Some(&first) = buffer.first()
            && !first.is_ascii_alphabetic()
        {
            let hint = if first == 0x16 { " (a TLS handshake on a listener without TLS?)" } else { "" };
            let message = format!("the request line begins with byte {first:#04x}{hint}");
            return Err(RequestError::new(Refusal::RequestLine, message));
        }
        while let Some(found) = memchr::memchr(b'\n', &buffer[self.at..]) {
            let end = self.at + found;
            self.at = end + 1;
            if end == self.line || buffer[end - 1] != b'\r' {
                let refusal = if self.first_line.is_none() { Refusal::RequestLine } else { Refusal::Header };
                return Err(RequestError::new(refusal, "a line ends in LF without CR"));
            }
            if self.at > max_bytes {
                break;
            }
            let empty = end - 1 == self.line;
            self.line = self.at;
            match self.first_line {
                None => {
                    check_version(&buffer[..end - 1])?;
                    self.first_line = Some(self.at);
                }
                Some(_) if empty => return Ok(Some(self.at)),
                Some(_) => self.headers += 1,
            }
            if self.headers > max_headers {
                let message = format!("more than {max_headers} header lines (max_headers)");
                return Err(RequestError::new(Refusal::Headers, message));
            }
        }
        if buffer.len().max(self.at) > max_bytes {
            if self.first_line.is_none() && !buffer[..max_bytes].contains(&b' ') {
                // No target is too long where none has begun.
                let message = format!("a method of over {max_bytes} bytes (max_header_bytes)");
                return Err(RequestError::new(Refusal::RequestLine, message));
            }
            let refusal = if self.first_line.is_none() { Refusal::TargetBytes } else { Refusal::HeaderBytes };
            let what = if self.first_line.is_none() { "request line" } else { "head" };
            return Err(RequestError::new(refusal, format!("a {what} of over {max_bytes} bytes (max_header_bytes)")));
        }
        self.at = buffer.len();
        Ok(None)
    }
}

/// Whether a request line, without its CRLF, ends in a version that is spoken here. One that names another is told so (RFC
/// 9110 section 15.6.6); what names none is malformed, and `http/1.1` and `HTTP/1` name none (RFC 9112 section 2.3).
fn check_version(line: &[u8]) -> Result<(), RequestError> {
    if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
        return Ok(());
    }
    let mut parts = line.split(|&byte| byte == b' ');
    let version = parts.nth(2).filter(|_| parts.next().is_none());
    if let Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) = version {
        return Err(RequestError::new(Refusal::Version, "a version other than HTTP/1.0 and HTTP/1.1"));
    }
    Err(RequestError::new(Refusal::RequestLine, "the request line does not end in HTTP/1.0 or HTTP/1.1"))
}

/// How many headers are parsed without an allocation.
const USUAL_HEADERS: usize = 64;

/// Parses a whole head of so many lines, as [`Scan`] found them, and takes it where it is in order.
pub(super) fn parse(bytes: &mut BytesMut, headers: usize) -> Result<Head, RequestError> {
    let mut usual = [const { MaybeUninit::uninit() }; USUAL_HEADERS];
    let mut many;
    let slots = if headers <= USUAL_HEADERS {
        &mut usual[..]
    } else {
        many = Box::new_uninit_slice(headers);
        &mut many[..]
    };

    let start = bytes.as_ptr() as usize;
    let place = |part: &[u8]| {
        let from = part.as_ptr() as usize - start;
        (from as u32, (from + part.len()) as u32)
    };
    let mut parsed = httparse::Request::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut parsed, bytes, slots)
        .map_err(describe)?;
    if status.is_partial() {
        return Err(RequestError::new(Refusal::Header, "the head ends too early"));
    }
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
        .map_err(|_| RequestError::new(Refusal::RequestLine, "malformed method"))?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let target = place(parsed.path.unwrap_or_default().as_bytes());
    let mut rules = Rules::default();
    let mut spans = Vec::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        rules.see(header.name.as_bytes(), header.value)?;
        spans.push(Span { name: place(header.name.as_bytes()), value: place(header.value) });
    }
    let decided = rules.decide(version)?;
    if method == Method::TRACE && decided.framing != Framing::Length(0) {
        return Err(RequestError::new(Refusal::Framing, "TRACE with a body (RFC 9110 section 9.3.8)"));
    }

    for span in &spans {
        bytes[span.name.0 as usize..span.name.1 as usize].make_ascii_lowercase();
    }
    let block: Bytes = std::mem::take(bytes).freeze();
    let target = Target::parse(&method, block.slice(target.0 as usize..target.1 as usize))
        .inspect_err(|_| *bytes = BytesMut::from(&block[..]))?;
    Ok(Head {
        method,
        target,
        version,
        headers: Headers::new(block, spans),
        framing: decided.framing,
        keep_alive: decided.keep_alive,
        expects_continue: decided.expects_continue,
    })
}

fn describe(error: httparse::Error) -> RequestError {
    let (refusal, message) = match error {
        httparse::Error::TooManyHeaders => (Refusal::Headers, "too many header lines (max_headers)"),
        httparse::Error::HeaderName => {
            (Refusal::Header, "malformed header name (or a folded line, RFC 9112 section 5.2)")
        }
        httparse::Error::HeaderValue => (Refusal::Header, "control character in a header value"),
        _ => (Refusal::RequestLine, "malformed request line"),
    };
    RequestError::new(refusal, message)
}

/// What the framing headers say, gathered in one pass.
#[derive(Default)]
struct Rules {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

struct Decided {
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
}

impl Rules {
    fn see(&mut self, name: &[u8], value: &[u8]) -> Result<(), RequestError> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            4 if is("host") => {
                self.hosts += 1;
                target::check_host(value)?;
            }
            14 if is("content-length") => {
                // Twice is refused even where both agree: RFC 9110 section 8.6 allows that.
                if self.length.is_some() {
                    return Err(RequestError::new(Refusal::Framing, "Content-Length more than once"));
                }
                self.length = Some(parse_length(value)?);
            }
            17 if is("transfer-encoding") => {
                if self.chunked {
                    return Err(RequestError::new(Refusal::Framing, "Transfer-Encoding more than once"));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    // RFC 9112 section 6.1: 501 for a coding that is not known, 400 where chunked is not last.
                    let known = value.iter().all(|b| b.is_ascii_alphanumeric() || b",- ".contains(b));
                    let mut codings = value.rsplit(|&b| b == b',').map(<[u8]>::trim_ascii);
                    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
                    let last = codings.next().is_some_and(is_chunked);
                    // Nor is it applied twice (RFC 9112 section 7.1).
                    let others = codings.all(|coding| !coding.is_empty() && !is_chunked(coding));
                    let refusal = if known && last && others { Refusal::NotImplemented } else { Refusal::Framing };
                    return Err(RequestError::new(refusal, "a Transfer-Encoding other than chunked"));
                }
                self.chunked = true;
            }
            10 if is("connection") => {
                for token in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            6 if is("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(RequestError::new(Refusal::Expectation, "an expectation other than 100-continue"));
                }
                self.expects_continue = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn decide(self, version: Version) -> Result<Decided, RequestError> {
        let old = version == Version::HTTP_10;
        match self.hosts {
            1 => {}
            0 if old => {}
            0 => return Err(RequestError::new(Refusal::Host, "no Host header")),
            _ => return Err(RequestError::new(Refusal::Host, "Host more than once")),
        }
        let framing = match (self.chunked, self.length) {
            (true, Some(_)) => {
                return Err(RequestError::new(Refusal::Framing, "both Content-Length and Transfer-Encoding"));
            }
            (true, None) if old => {
                return Err(RequestError::new(Refusal::Framing, "Transfer-Encoding in HTTP/1.0"));
            }
            (true, None) => Framing::Chunked,
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        Ok(Decided {
            framing,
            keep_alive: if old { self.keep_alive && !self.close } else { !self.close },
            // An HTTP/1.0 client cannot understand an interim response (RFC 9110 section 10.1.1).
            expects_continue: self.expects_continue && !old && framing != Framing::Length(0),
        })
    }
}

/// Digits only: no sign, no list, nothing that overflows, no zeros first, which some take for octal.
fn parse_length(value: &[u8]) -> Result<u64, RequestError> {
    let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    if !digits || (value.len() > 1 && value.starts_with(b"0")) {
        return Err(RequestError::new(Refusal::Framing, "malformed Content-Length"));
    }
    Ok(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}
