//! What is said of each request when it has ended: a [`Record`] follows it from its head on, and is told as a [`Finished`] to
//! [`crate::server::Service::finished`], once, however the request ends.

use std::cell::LazyCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use crate::config::Config;
use crate::connection::{Connection, ConnectionInfo};
use crate::error::{Refusal, RequestError};
use crate::http::target::Target;
use crate::http::{Headers, Response};
use crate::trace::{self, Event, Trace};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its response was written whole.
    Whole,
    /// The client left, or reset its stream, before that.
    Aborted,
    /// The client took none of the response for `write_timeout`.
    WriteTimeout,
    /// The body of the response broke off: who made it has failed.
    Handler,
    /// The server refused it, and answered itself where it could.
    Refused(Refusal),
    /// It was dropped at the end of the server's grace.
    Shutdown,
}

impl Outcome {
    /// The word for it in logs.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Outcome::Whole => "whole",
            Outcome::Aborted => "aborted",
            Outcome::WriteTimeout => "write_timeout",
            Outcome::Handler => "handler",
            Outcome::Refused(_) => "refused",
            Outcome::Shutdown => "shutdown",
        }
    }
}

/// One request that has ended.
#[derive(Debug)]
pub(crate) struct Finished<'a> {
    /// The connection on which it came.
    pub(crate) connection: &'a Arc<ConnectionInfo>,
    /// The name of its host's context: none for the default one, and where there is none.
    pub(crate) host: Option<&'a str>,
    /// The pattern of the route that led to who answered, as it was written. None without a router.
    pub(crate) route: Option<&'a str>,
    /// None where no head came whole, or it could not be parsed.
    pub(crate) method: Option<&'a Method>,
    pub(crate) version: Version,
    /// The status that was sent; none where nothing was.
    pub(crate) status: Option<StatusCode>,
    /// Bytes of its body that came, as they came: before they were decoded, without the framing of chunks. Of a WebSocket all
    /// that came.
    pub(crate) received: u64,
    /// Bytes of the response's body that were handed to the socket or to h2, as they went: after they were coded.
    pub(crate) sent: u64,
    /// When it was over.
    pub(crate) ended: Instant,
    /// When the first byte of the response was handed on, where that was before the end.
    pub(crate) first_byte: Option<Instant>,
    /// From the moment when its head was whole to the end.
    pub(crate) duration: Duration,
    pub(crate) outcome: Outcome,
    /// What it is called, where requests have ids.
    pub(crate) id: Option<&'a HeaderValue>,
    /// What was asked for, and by whom; where somebody wants to know, see [`crate::server::Service::wants_details`].
    pub(crate) details: Option<&'a Details>,
}

impl Finished<'_> {
    /// From its head to the first byte of the response, where there was any.
    pub(crate) fn time_to_first_byte(&self) -> Option<Duration> {
        let after_it = self.first_byte.map(|first_byte| self.ended.saturating_duration_since(first_byte));
        self.status.map(|_| self.duration.saturating_sub(after_it.unwrap_or_default()))
    }
}

/// What was asked for, and by whom: every byte as the client sent it, none of them copied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    /// The request target, without the host of HTTP/2. Where no head was parsed, the beginning of what came in its place.
    pub(crate) target: Bytes,
    /// The client that a trusted proxy names; none where none does, and then none where it is hidden.
    pub(crate) client: Option<Option<SocketAddr>>,
    headers: Bytes,
    /// Where those of [`HEADERS`] are.
    places: [Option<(u32, u32)>; HEADERS.len()],
}

const HEADERS: [&str; 4] = ["host", "referer", "user-agent", "traceparent"];

impl Details {
    pub(crate) fn new(target: Bytes, headers: &Headers) -> Self {
        let (headers, places) = headers.shared(HEADERS);
        Details { target, client: None, headers, places }
    }

    fn header(&self, at: usize) -> Option<&[u8]> {
        self.places[at].and_then(|(start, end)| self.headers.get(start as usize..end as usize))
    }

    /// Host and port that were asked for.
    pub(crate) fn host(&self) -> Option<&[u8]> {
        self.header(0)
    }

    pub(crate) fn referer(&self) -> Option<&[u8]> {
        self.header(1)
    }

    pub(crate) fn user_agent(&self) -> Option<&[u8]> {
        self.header(2)
    }

    pub(crate) fn traceparent(&self) -> Option<&[u8]> {
        self.header(3)
    }
}

/// What is gathered of a request while it is served. Nothing is allocated for it where nobody wants its details.
#[derive(Debug)]
pub(crate) struct Record {
    began: Instant,
    /// Its number on the connection: the stream of HTTP/2, and from 1 on in HTTP/1.
    pub(crate) stream: u32,
    first_byte: Option<Instant>,
    pub(crate) method: Method,
    /// Its head came whole, and could be parsed.
    has_head: bool,
    version: Version,
    pub(crate) status: Option<StatusCode>,
    /// The name of the host's context; none with TLS, where the connection knows.
    pub(crate) host: Option<Arc<str>>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// What it is called, where requests have ids.
    pub(crate) id: Option<Box<HeaderValue>>,
    /// How it ended, once that is known.
    pub(crate) outcome: Option<Outcome>,
    /// Not boxed: an allocation for each request is more than the room.
    details: Option<Details>,
    /// What came of a body that another task reads.
    upload: Option<Arc<AtomicU64>>,
}

impl Record {
    /// Of a request without a head, which was refused or broken off at `began`; `line` is the beginning of what came in its
    /// place.
    pub(crate) fn without_head(began: Instant, line: Bytes, connection: &Connection, stream: u32) -> Self {
        let service = &connection.service;
        let details = service.wants_details().then(|| Details { target: line, ..Details::default() });
        let id = service.request_id(|_| None).map(Box::new);
        Record { has_head: false, id, details, ..Record::new(began, Version::HTTP_11, Method::GET, stream) }
    }

    /// Of a request whose head was whole at `began`.
    pub(crate) fn new(began: Instant, version: Version, method: Method, stream: u32) -> Self {
        Record {
            began,
            stream,
            first_byte: None,
            method,
            has_head: true,
            version,
            status: None,
            host: None,
            route: None,
            received: 0,
            sent: 0,
            id: None,
            outcome: None,
            details: None,
            upload: None,
        }
    }

    /// Keeps what somebody wants to know of its head.
    pub(crate) fn describe(&mut self, target: &Target, headers: &Headers, connection: &Connection) {
        self.describe_by(|| target.whole(), || headers, connection);
    }

    /// The same of a head that h2 has read, and that is refused.
    pub(crate) fn describe_parts(&mut self, parts: &Parts, connection: &Connection) {
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let host = parts.uri.authority().map(|host| host.as_str());
        // Made where somebody asks for it: who sends what is refused may send much.
        let both = LazyCell::new(|| Headers::behind(target, host, &parts.headers));
        self.describe_by(|| both.0.clone(), || &both.1, connection);
    }

    fn describe_by<'a>(
        &mut self,
        target: impl Fn() -> Bytes,
        headers: impl Fn() -> &'a Headers,
        connection: &Connection,
    ) {
        let service = &connection.service;
        connection
            .trace
            .of(self.stream)
            .tell(|| trace::asked(&self.method, self.version, &Details::new(target(), headers())));
        if service.wants_details() {
            let mut details = Details::new(target(), headers());
            if let Some(forwarding) = &connection.info.forwarding {
                details.client = forwarding.read(headers()).map(|told| told.client);
            }
            self.details = Some(details);
        }
        let given = |name: &HeaderName| headers().get(name.as_str());
        self.id = service.request_id(|name| given(name).filter(|_| is_believed(connection))).map(Box::new);
    }

    /// Puts the id into a response that does not say another one.
    pub(crate) fn mark(&self, response: &mut Response, config: &Config) {
        if let (Some(name), Some(id)) = (&config.request_id_header, &self.id)
            && !response.headers.iter().any(|(known, _)| known == name)
        {
            response.headers.push((name.clone(), (**id).clone()));
        }
    }

    /// The first byte of the response has been handed on.
    pub(crate) fn begins_response(&mut self, now: Instant) {
        if self.status.is_some() && self.first_byte.is_none() {
            self.first_byte = Some(now);
        }
    }

    /// Where another task counts what comes of the body.
    pub(crate) fn count_upload(&mut self) -> Arc<AtomicU64> {
        self.upload.insert(Arc::default()).clone()
    }

    /// The response was handed over whole: to a request that was refused, the refusal.
    pub(crate) fn is_whole(&mut self) {
        self.outcome.get_or_insert(Outcome::Whole);
    }

    pub(crate) fn refused(&mut self, error: &RequestError, trace: &Trace) {
        self.outcome = Some(Outcome::Refused(error.refusal));
        trace.of(self.stream).refused(error);
    }

    /// Tells who wants to know.
    pub(crate) fn finish(&self, connection: &Connection, now: Instant) {
        let service = &connection.service;
        // Whoever knows why has said so. Else nobody was left to say anything.
        let outcome = self.outcome.unwrap_or_else(|| match service.lifecycle.has_stopped() {
            true => Outcome::Shutdown,
            false => Outcome::Aborted,
        });
        let host = connection.context.as_ref().map_or(self.host.as_deref(), |context| context.host());
        let duration = now.saturating_duration_since(self.began);
        let received = self.received + self.upload.as_ref().map_or(0, |came| came.load(Relaxed));
        connection.trace.of(self.stream).tell(|| Event::RequestEnded {
            status: self.status.map(|status| status.as_u16()),
            received: Some(received),
            sent: Some(self.sent),
            outcome: outcome.label(),
        });
        service.finished(&Finished {
            connection: &connection.info,
            host,
            route: self.route.as_deref().filter(|route| !route.is_empty()),
            method: self.has_head.then_some(&self.method),
            version: self.version,
            status: self.status,
            received,
            sent: self.sent,
            ended: now,
            first_byte: self.first_byte,
            duration,
            outcome,
            id: self.id.as_deref(),
            details: self.details.as_ref(),
        });
    }
}

/// Whether the peer may say what its requests are called: anybody, unless there are proxies whose business that is.
fn is_believed(connection: &Connection) -> bool {
    let proxies = &connection.service.config.trusted_proxies;
    proxies.is_empty() || proxies.has(&connection.info.peer)
}
