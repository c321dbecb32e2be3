//! HTTP/2 (RFC 9113) by hyper and h2, with this server's limits and time-outs around them.

use std::convert::Infallible;
use std::sync::Arc;
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

use super::body::{Collected, Pieces, Progress};
use super::headers::Headers;
use super::target::{self, Target};
use super::{Request, Response};
use crate::config::Config;
use crate::connection::Connection;
use crate::dispatch::{self, Outcome};
use crate::error::{Refusal, RequestError};
use crate::metrics::Close;
use crate::shutdown::draining_for;
use crate::stream::Prefixed;

/// Streams that one client may have open at once (RFC 9113 section 5.1.2 recommends no fewer than 100).
const MAX_STREAMS: u32 = 128;
/// How much of one request's body may be under way.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Streams that a client opened and reset before they were looked at: Rapid Reset, CVE-2023-44487.
const MAX_PENDING_RESETS: usize = 20;
/// Resets that a client provoked by sending nonsense: MadeYouReset, CVE-2025-8671.
const MAX_PROVOKED_RESETS: usize = 100;

/// How long a client that was told to go, and has no stream left, may take to do so.
const GOODBYE: Duration = Duration::from_secs(2);
/// The least time between two looks at what goes on.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);
/// How long, in all and without progress, a client may go on sending a body that was refused.
const DISCARD: Duration = Duration::from_secs(10);
const DISCARD_IDLE: Duration = Duration::from_secs(2);

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
    let mut told = None;
    loop {
        tokio::select! {
            biased;
            result = serving.as_mut() => return told.unwrap_or(match result {
                Ok(()) => Close::Client,
                Err(_) => Close::Aborted,
            }),
            () = draining_for(&mut phase, Duration::ZERO), if told.is_none() => {
                told = Some(Close::Shutdown);
                activity.touch();
                serving.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(activity.next_look(&config, told.is_some())) => {
                match activity.verdict(&config, told.is_some()) {
                    Verdict::Fine => {}
                    Verdict::Stalled => return Close::WriteTimeout,
                    Verdict::Idle => {
                        // The first time it is told with GOAWAY. The second time it did not go.
                        if let Some(close) = told {
                            return close;
                        }
                        told = Some(Close::Idle);
                        activity.touch();
                        serving.as_mut().graceful_shutdown();
                    }
                }
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
    mut open: Open,
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
        Err(Unread::Refused(error)) => Err(error),
        // Nobody is there to be answered; what is returned goes nowhere.
        Err(Unread::BrokenOff) => {
            connection.service.metrics.requests_aborted.add();
            return http::Response::new(Pieces { left: Bytes::new(), progress: open });
        }
    };
    let response = answer.unwrap_or_else(|error| {
        connection.refused(&error);
        Response::refusal(&error)
    });
    connection.service.metrics.response(response.status);
    let length = response.content_length(&method);
    let body = if response.is_bodiless(&method) { Bytes::new() } else { response.body };
    open.answered();
    let mut out = http::Response::new(Pieces { left: body, progress: open });
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

/// Why there is no request.
enum Unread {
    Refused(RequestError),
    /// The client reset the stream or left within the body.
    BrokenOff,
}

impl From<RequestError> for Unread {
    fn from(error: RequestError) -> Self {
        Unread::Refused(error)
    }
}

async fn read(connection: &Connection, request: http::Request<Incoming>) -> Result<Request, Unread> {
    let config = &connection.service.config;
    let (parts, body) = request.into_parts();
    if parts.headers.len() >= config.max_headers {
        let message = format!("more than {} header lines (max_headers)", config.max_headers);
        return Err(RequestError::new(Refusal::Headers, message).into());
    }
    if parts.headers.get(header::EXPECT).is_some_and(|it| !it.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(RequestError::new(Refusal::Expectation, "an expectation other than 100-continue").into());
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

async fn collect(mut body: Incoming, config: &Config) -> Result<Bytes, Unread> {
    let limit = config.max_request_read_bytes;
    let too_large =
        || RequestError::new(Refusal::BodyBytes, format!("a body of over {limit} bytes (max_request_read_bytes)"));
    if body.size_hint().lower() > limit as u64 {
        tokio::spawn(discard(body));
        return Err(too_large().into());
    }
    let mut collected = Collected::default();
    while !body.is_end_stream() {
        let stalled = |_| RequestError::new(Refusal::BodyTimeout, "the body made no progress (body_timeout)");
        let frame = tokio::time::timeout(config.body_timeout, body.frame()).await.map_err(stalled)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Unread::BrokenOff)?;
        // Trailers are dropped.
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > limit {
            tokio::spawn(discard(body));
            return Err(too_large().into());
        }
        collected.push(data);
    }
    Ok(collected.finish())
}

/// Reads what is left of a refused body, so that the client gets to the response: some take a reset instead of one for a
/// failure, though RFC 9113 section 8.1 allows it.
async fn discard(mut body: Incoming) {
    let read = async { while let Ok(Some(Ok(_))) = tokio::time::timeout(DISCARD_IDLE, body.frame()).await {} };
    let _ = tokio::time::timeout(DISCARD, read).await;
}

/// What goes on on one connection, to tell when nothing does, and whose fault that is.
struct Activity(Mutex<Going>);

struct Going {
    /// Streams whose response is not handed over whole.
    streams: usize,
    /// Those of them whose request is being read or answered: not the client's turn.
    answering: usize,
    /// When the first stream began, the client took some of a response, or the last stream ended.
    since: Instant,
    /// Before the first stream.
    first: bool,
}

enum Verdict {
    Fine,
    /// No stream for too long.
    Idle,
    /// The client takes nothing of what is ready for it.
    Stalled,
}

impl Activity {
    fn new() -> Self {
        Activity(Mutex::new(Going { streams: 0, answering: 0, since: Instant::now(), first: true }))
    }

    fn open(self: &Arc<Self>) -> Open {
        let mut going = self.0.lock();
        // While others are open this is no progress of theirs: a client that takes nothing could win time by it.
        if going.streams == 0 {
            going.since = Instant::now();
        }
        going.streams += 1;
        going.answering += 1;
        going.first = false;
        Open { activity: self.clone(), answered: false }
    }

    fn touch(&self) {
        self.0.lock().since = Instant::now();
    }

    /// When to look again: at the end of the client's patience, but never later than the shortest that it could get
    /// meanwhile, because streams that begin and end do not wake whoever looks.
    fn next_look(&self, config: &Config, told: bool) -> Instant {
        let shortest = config.write_timeout.min(config.keepalive_timeout).min(config.header_timeout);
        let latest = Instant::now() + shortest.max(SHORTEST_LOOK);
        let going = self.0.lock();
        going.patience(config, told).map_or(latest, |patience| (going.since + patience).min(latest))
    }

    fn verdict(&self, config: &Config, told: bool) -> Verdict {
        let going = self.0.lock();
        match going.patience(config, told) {
            Some(patience) if going.since.elapsed() < patience => Verdict::Fine,
            Some(_) if going.streams == 0 => Verdict::Idle,
            Some(_) => Verdict::Stalled,
            None => Verdict::Fine,
        }
    }
}

impl Going {
    /// How long nothing may happen; none where it is not the client's turn.
    fn patience(&self, config: &Config, told: bool) -> Option<Duration> {
        match (self.streams, self.answering) {
            (0, _) if told => Some(GOODBYE),
            (0, _) if self.first => Some(config.header_timeout),
            (0, _) => Some(config.keepalive_timeout),
            (streams, answering) if streams > answering => Some(config.write_timeout),
            _ => None,
        }
    }
}

/// A stream that is open.
struct Open {
    activity: Arc<Activity>,
    answered: bool,
}

impl Open {
    /// From here on it is the client's turn.
    fn answered(&mut self) {
        let mut going = self.activity.0.lock();
        // The first that is the client's turn begins its time.
        if going.streams == going.answering {
            going.since = Instant::now();
        }
        going.answering -= 1;
        drop(going);
        self.answered = true;
    }
}

impl Progress for Open {
    fn moved(&self) {
        self.activity.touch();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut going = self.activity.0.lock();
        going.streams -= 1;
        going.answering -= usize::from(!self.answered);
        if going.streams == 0 {
            going.since = Instant::now();
        }
    }
}
