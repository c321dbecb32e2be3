//! From what h2 read to a [`Request`], with the checks that it leaves to us.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use http::request::Parts;
use http::{HeaderMap, Method, Version, header};

use super::{MAX_HEADERS_HELD, Shared};
use crate::config::Config;
use crate::error::{Refusal, RequestError};
use crate::http::body::Collected;
use crate::http::coding::Decoding;
use crate::http::pace::Pace;
use crate::http::target::{self, Target};
use crate::http::{Headers, Request};

/// How long, in all and without progress, a client may go on sending a body that was refused.
const DISCARD: Duration = Duration::from_secs(10);
const DISCARD_IDLE: Duration = Duration::from_secs(2);

/// Checks the head of a request. The body is not read yet.
pub(super) fn head(shared: &Shared, parts: &Parts) -> Result<Box<Request>, RequestError> {
    let connection = &shared.connection;
    let config = &connection.service.config;
    if shared.activity.headers() > MAX_HEADERS_HELD.max(config.max_header_bytes) {
        let message = format!("the headers of this connection's requests are over {MAX_HEADERS_HELD} bytes together");
        return Err(RequestError::new(Refusal::HeaderBytes, message));
    }
    // The authority counts as the host header that it becomes.
    if parts.headers.len() + usize::from(parts.uri.authority().is_some()) > config.max_headers {
        let message = format!("more than {} header lines (max_headers)", config.max_headers);
        return Err(RequestError::new(Refusal::Headers, message));
    }
    if parts.headers.get(header::EXPECT).is_some_and(|it| !it.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(RequestError::new(Refusal::Expectation, "an expectation other than 100-continue"));
    }
    let host = host(parts)?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let tunnel = is_tunnel(parts, config);
    let target =
        Target::parse(if tunnel { &Method::GET } else { &parts.method }, Bytes::copy_from_slice(path.as_bytes()))?;
    let headers = Headers::from_map(host, &parts.headers);
    Ok(Box::new(Request {
        method: if tunnel { Method::GET } else { parts.method.clone() },
        target,
        version: Version::HTTP_2,
        headers,
        body: Bytes::new(),
        incoming: None,
        connection: Some(connection.info.clone()),
        id: None,
        route: None,
        pattern: None,
        told: OnceLock::new(),
        tunnel,
    }))
}

/// Finds the values that begin or end with white space, which RFC 9113 section 8.2.1 has malformed and h2 lets pass: two checks
/// of one header must not see two values.
pub(super) fn check_values(headers: &HeaderMap) -> Result<(), RequestError> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    match headers.iter().find(|(_, value)| is_space(value.as_bytes().first()) || is_space(value.as_bytes().last())) {
        Some((name, _)) => {
            Err(RequestError::new(Refusal::Header, format!("white space around the value of {name} (RFC 9113 8.2.1)")))
        }
        None => Ok(()),
    }
}

/// Whether it is an extended CONNECT for a WebSocket (RFC 8441 section 4). For everything else CONNECT is refused.
pub(super) fn is_tunnel(parts: &Parts, config: &Config) -> bool {
    let protocol = || parts.extensions.get::<h2::ext::Protocol>();
    config.websocket && parts.method == Method::CONNECT && protocol().is_some_and(|it| it.as_str() == "websocket")
}

/// What a request's headers take.
pub(super) fn header_bytes(parts: &Parts) -> usize {
    let path = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    path + parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
}

/// The host to put before the headers: `:authority`, which must agree with `Host` (RFC 9113 section 8.3.1).
fn host(parts: &Parts) -> Result<Option<&str>, RequestError> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (given, more) = (hosts.next(), hosts.next());
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    match (authority, given) {
        (_, _) if more.is_some() => Err(RequestError::new(Refusal::Host, "Host more than once")),
        (None, None) => Err(RequestError::new(Refusal::Host, "neither :authority nor Host")),
        (Some(authority), Some(given)) if !given.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {
            Err(RequestError::new(Refusal::Host, ":authority and Host differ"))
        }
        (_, Some(given)) => target::check_host(given.as_bytes()).map(|()| None),
        (Some(authority), None) => target::check_host(authority.as_bytes()).map(|()| Some(authority)),
    }
}

/// The length that a body is said to have. h2 resets streams that do not keep to it (RFC 9113 section 8.1.1).
pub(super) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Why there is no body.
pub(super) enum Unread {
    Refused(RequestError),
    /// The client reset the stream or left within the body.
    BrokenOff,
}

impl From<RequestError> for Unread {
    fn from(error: RequestError) -> Self {
        Unread::Refused(error)
    }
}

/// A body that is not here yet.
pub(super) struct Coming {
    pub(super) stream: RecvStream,
    /// The length that it is said to have.
    pub(super) declared: Option<u64>,
    /// It has content codings that are to be undone.
    pub(super) decoding: Option<Box<Decoding>>,
}

/// Reads a body whole, and counts what comes of it.
pub(super) async fn body(body: Coming, config: &Config, received: &mut u64) -> Result<Bytes, Unread> {
    let Coming { mut stream, declared, mut decoding } = body;
    let limit = config.max_request_read_bytes;
    if declared.is_some_and(|length| length > limit as u64) {
        tokio::spawn(discard(stream));
        return Err(too_large(limit).into());
    }
    let mut collected = Collected::default();
    let mut came = 0;
    let mut pace = Pace::begin(Instant::now());
    while !stream.is_end_stream() {
        let data = tokio::time::timeout_at((pace.since() + config.body_timeout).into(), stream.data())
            .await
            .map_err(|_| stalled())?;
        // Trailers come after the last of it, and are dropped.
        let Some(data) = data else { break };
        let data = data.map_err(|_| Unread::BrokenOff)?;
        release(&mut stream, data.len());
        pace.moved(data.len(), Instant::now());
        came += data.len();
        *received = came as u64;
        if came > limit {
            tokio::spawn(discard(stream));
            return Err(too_large(limit).into());
        }
        match &mut decoding {
            None => collected.push(data),
            Some(decoding) => {
                decoding.push(data);
                if let Err(error) = decoding.run_through(|piece| collected.push(piece)).await {
                    tokio::spawn(discard(stream));
                    return Err(error.into());
                }
            }
        }
    }
    if let Some(mut decoding) = decoding {
        decoding.end();
        decoding.run_through(|piece| collected.push(piece)).await?;
    }
    Ok(collected.finish())
}

pub(super) fn too_large(limit: usize) -> RequestError {
    RequestError::new(Refusal::BodyBytes, format!("a body of over {limit} bytes (max_request_read_bytes)"))
}

pub(super) fn stalled() -> RequestError {
    RequestError::new(Refusal::BodyTimeout, "the body made no progress (body_timeout)")
}

/// Lets the client send as much again.
pub(super) fn release(stream: &mut RecvStream, taken: usize) {
    // An error would mean that more is given back than was taken.
    let _ = stream.flow_control().release_capacity(taken);
}

/// Reads what is left of a refused body, so that the client gets to the response: some take a reset instead of one for a
/// failure, though RFC 9113 section 8.1 allows it.
pub(super) async fn discard(mut stream: RecvStream) {
    let read = async {
        while let Ok(Some(Ok(data))) = tokio::time::timeout(DISCARD_IDLE, stream.data()).await {
            release(&mut stream, data.len());
        }
    };
    let _ = tokio::time::timeout(DISCARD, read).await;
}
