//! What is said of each request when it has ended: a [`Record`] follows it from its head on, and is told as a [`Finished`] to
//! [`crate::server::Service::finished`], once, however the request ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode, Version};

use crate::connection::{Connection, ConnectionInfo};
use crate::error::{Refusal, RequestError};
use crate::http::Headers;
use crate::http::h1::Head;
use crate::http::target::Target;
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
#[allow(dead_code, reason = "each of those who are told reads what it needs")]
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
    /// When its head was whole.
    pub(crate) began: Instant,
    /// From then to the first byte of the response.
    pub(crate) first_byte: Option<Duration>,
    /// From then to the end.
    pub(crate) duration: Duration,
    pub(crate) outcome: Outcome,
    /// What was asked for, and by whom; where somebody wants to know, see [`crate::server::Service::wants_details`].
    pub(crate) details: Option<&'a Details>,
}

impl Finished<'_> {
    /// When its head was whole, by the wall clock, which is asked here.
    #[allow(dead_code, reason = "for the access log")]
    pub(crate) fn time(&self) -> SystemTime {
        let now = SystemTime::now();
        now.checked_sub(self.duration).unwrap_or(now)
    }
}

/// What was asked for, and by whom: every byte as the client sent it.
#[derive(Debug, Clone, Default)]
#[allow(dead_code, reason = "each of those who are told reads what it needs")]
pub(crate) struct Details {
    /// The request target, without the host of HTTP/2.
    pub(crate) target: Bytes,
    /// Host and port that were asked for.
    pub(crate) host: Option<Bytes>,
    pub(crate) referer: Option<Bytes>,
    pub(crate) user_agent: Option<Bytes>,
    pub(crate) traceparent: Option<Bytes>,
}

impl Details {
    fn new(target: &Target, headers: &Headers) -> Self {
        let header = |name| headers.shared(name);
        Details {
            target: target.whole(),
            host: header("host"),
            referer: header("referer"),
            user_agent: header("user-agent"),
            traceparent: header("traceparent"),
        }
    }

    fn of_parts(parts: &Parts) -> Self {
        let header = |name| parts.headers.get(name).map(|value| Bytes::copy_from_slice(value.as_bytes()));
        let authority = parts.uri.authority().map(|authority| Bytes::copy_from_slice(authority.as_str().as_bytes()));
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        Details {
            target: Bytes::copy_from_slice(target.as_bytes()),
            host: authority.or_else(|| header("host")),
            referer: header("referer"),
            user_agent: header("user-agent"),
            traceparent: header("traceparent"),
        }
    }
}

/// What is gathered of a request while it is served. Nothing is allocated for it where nobody wants its details.
#[derive(Debug)]
pub(crate) struct Record {
    began: Instant,
    /// Its number on the connection: the stream of HTTP/2, and from 1 on in HTTP/1.
    pub(crate) stream: u32,
    first_byte: Option<Instant>,
    method: Option<Method>,
    version: Version,
    pub(crate) status: Option<StatusCode>,
    /// The name of the host's context; none with TLS, where the connection knows.
    pub(crate) host: Option<Arc<str>>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// How it ended, once that is known.
    pub(crate) outcome: Option<Outcome>,
    details: Option<Box<Details>>,
    /// What came of a body that another task reads.
    upload: Option<Arc<AtomicU64>>,
}

impl Record {
    /// Of a request whose head was whole at `began`, or was refused then.
    pub(crate) fn new(began: Instant, version: Version, stream: u32) -> Self {
        Record {
            began,
            stream,
            first_byte: None,
            method: None,
            version,
            status: None,
            host: None,
            route: None,
            received: 0,
            sent: 0,
            outcome: None,
            details: None,
            upload: None,
        }
    }

    /// Of a head that HTTP/1 has read.
    pub(crate) fn of_head(began: Instant, head: &Head, connection: &Connection, stream: u32) -> Self {
        let wants = connection.service.wants_details();
        let details = wants.then(|| Box::new(Details::new(&head.target, &head.headers)));
        connection
            .trace
            .of(stream)
            .tell(|| trace::asked(&head.method, head.version, &Details::new(&head.target, &head.headers)));
        Record { method: Some(head.method.clone()), details, ..Record::new(began, head.version, stream) }
    }

    /// Of a head that h2 has read.
    pub(crate) fn of_parts(began: Instant, parts: &Parts, connection: &Connection, stream: u32) -> Self {
        let details = connection.service.wants_details().then(|| Box::new(Details::of_parts(parts)));
        connection.trace.of(stream).tell(|| trace::asked(&parts.method, Version::HTTP_2, &Details::of_parts(parts)));
        Record { method: Some(parts.method.clone()), details, ..Record::new(began, Version::HTTP_2, stream) }
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
        let since = |now: Instant| now.saturating_duration_since(self.began);
        let duration = since(now);
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
            method: self.method.as_ref(),
            version: self.version,
            status: self.status,
            received,
            sent: self.sent,
            began: self.began,
            first_byte: self.status.map(|_| self.first_byte.map_or(duration, since)),
            duration,
            outcome,
            details: self.details.as_deref(),
        });
    }
}
