//! Writing the head of a response (RFC 9112 section 4).

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue, Method, Version, header};

use crate::http::{Response, Trailers, date};

/// What the server says about the connection after this response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persist {
    /// Nothing: it stays open, as HTTP/1.1 connections do.
    Open,
    /// `keep-alive`: it stays open for an HTTP/1.0 client that asked.
    KeepAlive,
    /// `close`.
    Close,
}

impl Persist {
    /// What to say after a response to a request of that version whose client does or does not keep the connection. A
    /// server that ends keeps none.
    pub(crate) fn after(version: Version, keep_alive: bool, response: &Response, draining: bool) -> Self {
        // Without a length and without chunks, which HTTP/1.0 does not know, the end of the body is that of the connection.
        let is_end = version == Version::HTTP_10 && response.body.length().is_none();
        let asked_to_close = response
            .headers
            .iter()
            .any(|(name, value)| name == header::CONNECTION && value.as_bytes().eq_ignore_ascii_case(b"close"));
        match version {
            _ if !keep_alive || asked_to_close || draining || is_end => Persist::Close,
            Version::HTTP_10 => Persist::KeepAlive,
            _ => Persist::Open,
        }
    }
}

/// Appends the head of `response` to `out`; `chunked` where its body goes in chunks.
pub(crate) fn head(out: &mut BytesMut, response: &Response, method: &Method, persist: Persist, chunked: bool) {
    let status = response.status;
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.put_slice(b"\r\n");
    let (mut dated, mut upgrade) = (false, false);
    for (name, value) in &response.headers {
        if Response::is_framing(name) {
            continue;
        }
        dated |= name == header::DATE;
        upgrade |= name == header::UPGRADE;
        line(out, name, value);
    }
    if !dated {
        out.put_slice(b"date: ");
        out.put_slice(date::now().as_bytes());
        out.put_slice(b"\r\n");
    }
    // Where it comes in chunks, though its length is known, trailers follow (RFC 9112 section 6.2: never both).
    if let Some(length) = response.content_length(method).filter(|_| !chunked) {
        out.put_slice(b"content-length: ");
        // Writing to a BytesMut cannot fail.
        let _ = write!(out, "{length}\r\n");
    }
    if chunked {
        out.put_slice(b"transfer-encoding: chunked\r\n");
    }
    match persist {
        // `Upgrade` is for this connection alone, and says so (RFC 9110 section 7.8).
        Persist::Open if upgrade => out.put_slice(b"connection: upgrade\r\n"),
        Persist::Open => {}
        Persist::Close if upgrade => out.put_slice(b"connection: close, upgrade\r\n"),
        Persist::KeepAlive => out.put_slice(b"connection: keep-alive\r\n"),
        Persist::Close => out.put_slice(b"connection: close\r\n"),
    }
    out.put_slice(b"\r\n");
}

/// Appends what comes before a chunk of that length; after it comes [`CHUNK_END`].
pub(crate) fn chunk(out: &mut BytesMut, length: usize) {
    // Writing to a BytesMut cannot fail.
    let _ = write!(out, "{length:x}\r\n");
}

pub(crate) const CHUNK_END: &[u8] = b"\r\n";

/// Appends the last chunk, and what follows it.
pub(crate) fn last_chunk(out: &mut BytesMut, trailers: &Trailers) {
    out.put_slice(b"0\r\n");
    trailers.iter().for_each(|(name, value)| line(out, name, value));
    out.put_slice(b"\r\n");
}

fn line(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn trailers_stand_between_the_last_chunk_and_its_end() {
        let mut trailers = Trailers::default();
        let mut out = BytesMut::new();
        last_chunk(&mut out, &trailers);
        trailers.push(HeaderName::from_static("x-a"), HeaderValue::from_static("1")).unwrap();
        trailers.push(HeaderName::from_static("x-b"), HeaderValue::from_static("")).unwrap();
        last_chunk(&mut out, &trailers);
        assert_eq!(&out[..], b"0\r\n\r\n0\r\nx-a: 1\r\nx-b: \r\n\r\n");
    }

    #[test]
    fn framing_headers_are_the_servers() {
        let response = Response::new(StatusCode::OK, "hello")
            .with(header::CONTENT_TYPE, "text/plain")
            .with(header::CONNECTION, "upgrade")
            .with(header::DATE, "then")
            .with(header::CONTENT_LENGTH, "5");
        let mut out = BytesMut::new();
        head(&mut out, &response, &Method::GET, Persist::Close, false);
        assert_eq!(
            &out[..],
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: then\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
        );
    }
}
