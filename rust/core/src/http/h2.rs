//! HTTP/2 (RFC 9113) by hyper and h2, with this server's limits and time-outs around them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Version, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::{Collected, Pieces};
use super::headers::Headers;
use super::target::{self, Target};
use super::{Request, Response};
use crate::config::Config;
use crate::connection::Connection;
use crate::dispatch::{self, Outcome};
use crate::error::{Refusal, RequestError};
use crate::metrics::Close;
use crate::shutdown::draining;
use crate::stream::Prefixed;

/// Streams that one client may have open at once (RFC 9113 section 5.1.2 recommends no fewer than 100).
const MAX_STREAMS: u32 = 128;
/// How much of one request's body may be under way.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Streams that a client opened and reset before they were looked at: Rapid Reset, CVE-2023-44487.
const MAX_PENDING_RESETS: usize = 20;
/// Resets that a client provoked by sending nonsense: MadeYouReset, CVE-2025-8671.
const MAX_PROVOKED_RESETS: usize = 100;

pub(crate) async fn serve(stream: Prefixed, connection: Arc<Connection>) -> Close {
    let config = connection.service.config.clone();
    let mut phase = connection.service.lifecycle.subscribe();
    let activity = Arc::new(Activity::new());
    let service = {
        let (connection, activity) = (connection.clone(), activity.clone());
        service_fn(move |request| {
            let open = activity.open();
            let connection = connection.clone();
            async move { Ok::<_, Infallible>(exchange(&connection, request, open).await) }
        })
    };
    let serving = builder(&config).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut told_to_end = None;
    loop {
        let check = activity.deadline(&config);
        tokio::select! {
            biased;
            result = serving.as_mut() => return told_to_end.unwrap_or(match result {
                Ok(()) => Close::Client,
                Err(_) => Close::Aborted,
            }),
            () = draining(&mut phase), if told_to_end.is_none() => {
                told_to_end = Some(Close::Shutdown);
                serving.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(check) => {
                if !activity.is_over(&config) {
                    continue;
                }
                if let Some(close) = told_to_end {
                    return close; // It was told, and does not go.
                }
                told_to_end = Some(Close::Idle);
                activity.restart();
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

fn builder(config: &Config) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_PROVOKED_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(u32::try_from(config.max_read_buffer_size).unwrap_or(u32::MAX >> 1))
        .max_send_buf_size(256 * 1024)
        .auto_date_header(true);
    builder
}

/// One request and its response. Refusals are responses too: other streams go on.
async fn exchange(
    connection: &Connection,
    request: http::Request<Incoming>,
    open: Open,
) -> http::Response<Pieces<Open>> {
    let method = request.method().clone();
    let answer = match read(connection, request).await {
        Ok(request) => {
            connection.service.metrics.request(Version::HTTP_2);
            match dispatch::begin(connection, request) {
                Ok(Outcome::Ready(response)) => Ok(response),
                Ok(Outcome::Waiting(mut waiting)) => waiting.response().await,
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    let response = answer.unwrap_or_else(|error| {
        connection.refused(&error);
        Response::refusal(&error)
    });
    connection.service.metrics.response(response.status);
    let length = response.content_length(&method);
    let body = if response.is_bodiless(&method) { Bytes::new() } else { response.body };
    let mut out = http::Response::new(Pieces { left: body, _guard: open });
    *out.status_mut() = response.status;
    let headers = out.headers_mut();
    for (name, value) in response.headers {
        if !Response::is_framing(&name) {
            headers.append(name, value);
        }
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    out
}

async fn read(connection: &Connection, request: http::Request<Incoming>) -> Result<Request, RequestError> {
    let config = &connection.service.config;
    let (parts, body) = request.into_parts();
    if parts.headers.len() >= config.max_headers {
        let message = format!("more than {} header lines (max_headers)", config.max_headers);
        return Err(RequestError::new(Refusal::Headers, message));
    }
    let host = host(&parts)?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let target = Target::parse(&parts.method, Bytes::copy_from_slice(path.as_bytes()))?;
    let body = collect(body, config).await?;
    Ok(Request {
        method: parts.method,
        target,
        version: Version::HTTP_2,
        headers: Headers::from_map(host.as_deref(), &parts.headers),
        body,
        connection: connection.info.clone(),
    })
}

/// The host to put before the headers: `:authority`, which must agree with `Host` (RFC 9113 section 8.3.1).
fn host(parts: &http::request::Parts) -> Result<Option<String>, RequestError> {
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
        (Some(authority), None) => target::check_host(authority.as_bytes()).map(|()| Some(authority.to_string())),
    }
}

async fn collect(mut body: Incoming, config: &Config) -> Result<Bytes, RequestError> {
    let limit = config.max_request_read_bytes;
    let too_large =
        || RequestError::new(Refusal::BodyBytes, format!("a body of over {limit} bytes (max_request_read_bytes)"));
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut collected = Collected::default();
    while !body.is_end_stream() {
        let stalled = |_| RequestError::new(Refusal::BodyTimeout, "the body made no progress (body_timeout)");
        let frame = tokio::time::timeout(config.body_timeout, body.frame()).await.map_err(stalled)?;
        let Some(frame) = frame else { break };
        let frame =
            frame.map_err(|error| RequestError::new(Refusal::Framing, format!("the body broke off: {error}")))?;
        // Trailers are dropped.
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > limit {
            return Err(too_large());
        }
        collected.push(data);
    }
    Ok(collected.finish())
}

/// What goes on on one connection, to tell when nothing does.
struct Activity {
    streams: AtomicUsize,
    /// When the last stream began or ended; true before the first.
    since: Mutex<(Instant, bool)>,
}

/// A stream that is open.
struct Open(Arc<Activity>);

impl Activity {
    fn new() -> Self {
        Activity { streams: AtomicUsize::new(0), since: Mutex::new((Instant::now(), true)) }
    }

    fn open(self: &Arc<Self>) -> Open {
        self.streams.fetch_add(1, Relaxed);
        *self.since.lock() = (Instant::now(), false);
        Open(self.clone())
    }

    fn restart(&self) {
        *self.since.lock() = (Instant::now(), false);
    }

    fn allowed(config: &Config, first: bool) -> Duration {
        if first { config.header_timeout } else { config.keepalive_timeout }
    }

    /// When to look again.
    fn deadline(&self, config: &Config) -> Instant {
        let (since, first) = *self.since.lock();
        let deadline = since + Self::allowed(config, first);
        // While streams are open there is nothing to see before they end.
        if self.streams.load(Relaxed) > 0 { deadline.max(Instant::now() + config.keepalive_timeout) } else { deadline }
    }

    fn is_over(&self, config: &Config) -> bool {
        let (since, first) = *self.since.lock();
        self.streams.load(Relaxed) == 0 && since.elapsed() >= Self::allowed(config, first)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.since.lock() = (Instant::now(), false);
        self.0.streams.fetch_sub(1, Relaxed);
    }
}
