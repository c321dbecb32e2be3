//! One request, from its head to the end of its response.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, Version};
use tokio::sync::oneshot;

use super::read::{self, Coming, Unread};
use super::respond::Respond;
use super::tunnel::Tunnel;
use super::upload::Upload;
use super::{SEND_BUFFER, Shared};
use crate::dispatch::{self, Admitted, Destination, Found, Outcome, Reply};
use crate::error::RequestError;
use crate::http::body::{Broken, incoming};
use crate::http::coding::{AcceptEncoding, Decoding};
use crate::http::{Body, Pieces, Request, Response, date};
use crate::record::{Outcome as End, Record};
use crate::trace::{Call, Event, StreamTrace};
use crate::websocket::Upgrade;

/// The most of a response that is handed over at once: the size of a frame and of a TLS record.
pub(super) const PIECE: usize = 16 * 1024;

/// A request whose answer goes straight to its stream, from any thread.
#[derive(Debug)]
pub(crate) struct Exchange {
    respond: Respond,
    asked: AcceptEncoding,
    open: Open,
    /// What the client sends on where it wants a WebSocket.
    tunnel: Option<Box<RecvStream>>,
    /// Somebody is to be woken when the stream is reset.
    watched: bool,
    /// Who answers, where that had to be known before the body was whole.
    found: Option<Box<Found>>,
}

impl Exchange {
    /// Begins with a stream that was just accepted. What is here whole is handed on at once; only what has to wait gets a
    /// task.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        now: Instant,
    ) {
        let (parts, body) = request.into_parts();
        let mut record = Record::new(now, Version::HTTP_2, parts.method.clone(), respond.stream_id().into());
        if let Err(error) = read::check_values(&parts.headers) {
            record.describe_parts(&parts, &shared.connection);
            shared.connection.refused(&error, record.id.as_deref());
            record.refused(&error, &shared.connection.trace);
            record.finish(&shared.connection, now);
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        let mut exchange = Box::new(Exchange {
            respond: Respond::Own(respond),
            asked: AcceptEncoding::default(),
            open: Open::new(shared, read::header_bytes(&parts), record),
            tunnel: None,
            watched: false,
            found: None,
        });
        let connection = &shared.connection;
        let tunnel = read::is_tunnel(&parts, &connection.service.config);
        let whole = tunnel || body.is_end_stream();
        let declared = if whole { None } else { read::declared_length(&parts.headers) };
        let waits = !whole && parts.headers.contains_key(header::EXPECT);
        let record = &mut exchange.open.record;
        let mut head = read::head(shared, &parts).inspect(|_| shared.activity.asked());
        match &mut head {
            Ok(request) => {
                record.describe(&request.target, &request.headers, connection);
                request.id = record.id.as_deref().cloned();
                exchange.asked = AcceptEncoding::of(&request.headers);
            }
            Err(_) => record.describe_parts(&parts, connection),
        }
        if !whole {
            exchange.open.trace().tell(|| Event::BodyBegun { length: declared });
        }
        match head {
            Err(error) => exchange.refuse(&error),
            Ok(request) if whole => {
                exchange.tunnel = tunnel.then(|| Box::new(body));
                exchange.call(request);
            }
            Ok(mut request) => match Decoding::of(&request.headers, &connection.service.config) {
                Err(error) => {
                    tokio::spawn(read::discard(body));
                    exchange.refuse(&error);
                }
                Ok(decoding) => {
                    let length = declared.filter(|_| decoding.is_none());
                    let body = Coming { stream: body, declared, decoding };
                    let found = Found::of(connection, &mut request, &mut exchange.open.record);
                    let streams = found.streams_body(length);
                    exchange.found = Some(Box::new(found));
                    if streams {
                        exchange.stream(request, body, waits);
                    } else {
                        let limit = connection.service.config.max_request_read_bytes as u64;
                        if waits && declared.is_none_or(|length| length <= limit) {
                            exchange.respond.go_on();
                        }
                        tokio::spawn(exchange.follow(request, body));
                    }
                }
            },
        }
    }

    /// Has the request answered; by a task, where there is a deadline.
    fn call(self: Box<Self>, request: Box<Request>) {
        if self.open.shared.connection.service.config.handler_timeout.is_none() {
            self.hand_on(request);
        } else {
            tokio::spawn(self.answer(request));
        }
    }

    /// Calls a handler that takes the body as it comes. One that is here whole needs no task.
    fn stream(mut self: Box<Self>, mut request: Box<Request>, body: Coming, waits: bool) {
        let connection = self.open.shared.connection.clone();
        if body.decoding.is_some() {
            request.headers = request.headers.decoded(None);
        }
        match Upload::begin(body, &connection.service.config) {
            Ok((body, None)) => {
                let bytes = body.len() as u64;
                self.open.record.received = bytes;
                self.open.trace().tell(|| Event::BodyEnded { bytes });
                request.body = body;
            }
            Ok((here, Some(mut rest))) => {
                let came = self.open.record.count_upload();
                rest.belong_to(request.id.clone());
                if waits && here.is_empty() {
                    let (respond, waiting) = self.respond.leave_to_say();
                    self.respond = respond;
                    rest.wait_to_be_asked(waiting);
                }
                let (feeder, incoming) = incoming();
                let (exchange, over) = oneshot::channel();
                feeder.push(here);
                request.incoming = Some(incoming);
                self.open.upload = Some(exchange);
                tokio::spawn(rest.feed(feeder, over, came, connection));
            }
            Err(Unread::Refused(error)) => return self.refuse(&error),
            Err(Unread::BrokenOff) => {
                connection.service.metrics.requests_aborted.add();
                return;
            }
        }
        self.call(request);
    }

    /// Hands the request to its handler, which answers on the stream.
    fn hand_on(mut self: Box<Self>, mut request: Box<Request>) {
        let found = self.found.take();
        let connection = &self.open.shared.connection;
        connection.service.metrics.request(Version::HTTP_2);
        match dispatch::admit(connection, &mut request, found, &mut self.open.record) {
            Ok(Admitted::By(handler)) => {
                let metrics = connection.service.metrics.clone();
                let call = Call::handed(&connection.trace, self.open.record.stream);
                handler.call(request, Reply::new(Destination::Stream(self), metrics, call));
            }
            Ok(Admitted::Answered(response)) => self.send(response),
            Err(error) => self.refuse(&error),
        }
    }

    /// Waits for a body.
    async fn follow(mut self: Box<Self>, mut request: Box<Request>, body: Coming) {
        let shared = self.open.shared.clone();
        let connection = &shared.connection;
        let service = &connection.service;
        let decoded = body.decoding.is_some();
        match read::body(body, &service.config, &mut self.open.record.received).await {
            Ok(body) => {
                let bytes = self.open.record.received;
                self.open.trace().tell(|| Event::BodyEnded { bytes });
                if decoded {
                    request.headers = request.headers.decoded(Some(body.len()));
                }
                request.body = body;
            }
            Err(Unread::Refused(error)) => return self.refuse(&error),
            Err(Unread::BrokenOff) => {
                service.metrics.requests_aborted.add();
                return;
            }
        }
        if service.config.handler_timeout.is_none() {
            return self.hand_on(request);
        }
        self.answer(request).await;
    }

    /// Waits for an answer that has a deadline.
    async fn answer(mut self: Box<Self>, request: Box<Request>) {
        let shared = self.open.shared.clone();
        let connection = &shared.connection;
        let service = &connection.service;
        service.metrics.request(Version::HTTP_2);
        let answer = match dispatch::begin(connection, request, self.found.take(), &mut self.open.record) {
            Ok(Outcome::Ready(response)) => Ok(response),
            Ok(Outcome::Waiting(mut waiting)) => tokio::select! {
                biased;
                answer = waiting.response() => answer,
                () = poll_fn(|cx| self.poll_abandoned(cx)) => return,
            },
            Err(error) => Err(error),
        };
        match answer {
            Ok(response) => self.send(response),
            Err(error) => self.refuse(&error),
        }
    }

    /// Ready when nobody waits for the answer any more: the stream was reset, or the connection is gone.
    pub(crate) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.watched = true;
        self.respond.poll_reset(cx)
    }

    /// The same without a wake to come, not even one that was asked for.
    pub(crate) fn is_abandoned(&mut self) -> bool {
        self.watched = false;
        self.respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Answers with a refusal. Other streams go on.
    fn refuse(mut self: Box<Self>, error: &RequestError) {
        self.open.record.refused(error, &self.open.shared.connection.trace);
        let response = self.open.shared.connection.refuse(error, self.open.record.id.as_deref());
        self.send(response);
    }

    /// Answers. A client that has left meanwhile does not get it.
    pub(crate) fn send(mut self: Box<Self>, mut response: Response) {
        if response.settle(&self.open.record.method).is_err() {
            self.open.shared.connection.service.metrics.handler_failures.add();
        }
        let service = &self.open.shared.connection.service;
        self.open.record.mark(&mut response, &service.config);
        response.encode(&self.asked, &self.open.record.method, &service.config, &service.encoders);
        if self.watched {
            // h2 would wake for the end of the response as well, and a handler that goes on after it be taken for abandoned.
            self.is_abandoned();
        }
        if self.tunnel.is_some() {
            return self.send_in_tunnel(response);
        }
        let Exchange { respond, mut open, .. } = *self;
        let Some(mut respond) = respond.take() else { return };
        let status = response.status;
        let metrics = &open.shared.connection.service.metrics;
        // Before the client can have it.
        metrics.response(status);
        let method = &open.record.method;
        let length = response.content_length(method);
        let body = if response.is_bodiless(method) { Body::default() } else { response.body };
        let Ok(mut stream) = respond.send_response(head(status, response.headers, length), body.is_empty()) else {
            // It is closed already; or h2 finds a fault with the headers, and the client shall not wait for ever.
            metrics.no_response(status);
            return respond.send_reset(Reason::INTERNAL_ERROR);
        };
        open.record.status = Some(status);
        open.trace().tell(|| Event::Response { status: status.as_u16(), length });
        if body.is_empty() {
            return open.record.is_whole();
        }
        let body = match body {
            Body::Whole(whole) if whole.len() <= SEND_BUFFER => {
                stream.reserve_capacity(whole.len());
                if stream.capacity() >= whole.len() {
                    let length = whole.len() as u64;
                    // An error means that the client has left.
                    if stream.send_data(whole, true).is_ok() {
                        open.record.sent = length;
                        open.record.is_whole();
                    }
                    return;
                }
                Body::Whole(whole)
            }
            body => body,
        };
        open.record.begins_response(Instant::now());
        let shared = open.shared.clone();
        shared.take_up(Sending::Body(Box::new(BodySending { stream, body, open })));
    }
}

impl Exchange {
    /// Answers whoever wants a WebSocket. To it any 2xx says that it has one (RFC 8441 section 5).
    fn send_in_tunnel(mut self: Box<Self>, mut response: Response) {
        let Some(receiving) = self.tunnel.take() else { return };
        let Some(upgrade) = response.upgrade.take() else {
            if response.status.is_success() {
                response = Response::plain(StatusCode::NOT_IMPLEMENTED);
            }
            return self.send(response);
        };
        let Exchange { respond, mut open, .. } = *self;
        let Some(mut respond) = respond.take() else { return };
        let metrics = open.shared.connection.service.metrics.clone();
        metrics.response(StatusCode::OK);
        match respond.send_response(head(StatusCode::OK, response.headers, None), false) {
            Ok(sending) => {
                open.record.status = Some(StatusCode::OK);
                open.trace().tell(|| Event::Response { status: 200, length: None });
                open.record.begins_response(Instant::now());
                let tunnel = Tunnel { sending, receiving, open, ended: false };
                tunnel.open.shared.clone().take_up(Sending::Tunnel(Box::new(tunnel), upgrade));
            }
            Err(_) => {
                metrics.no_response(StatusCode::OK);
                respond.send_reset(Reason::INTERNAL_ERROR);
            }
        }
    }
}

/// The head of a response, without the headers that are a connection's own (RFC 9113 section 8.2.2).
fn head(status: StatusCode, headers: Vec<(HeaderName, HeaderValue)>, length: Option<u64>) -> http::Response<()> {
    let mut map = HeaderMap::try_with_capacity(headers.len() + 2).unwrap_or_default();
    let mut dated = false;
    let mut named = Vec::new();
    for (name, value) in headers {
        dated |= name == header::DATE;
        if name == header::CONNECTION {
            named.push(value);
        } else if !Response::is_framing(&name) && !is_of_http_1(&name) {
            // An error is a map that is full, beyond what `Response::check` allows.
            let _ = map.try_append(name, value);
        }
    }
    // `Connection` names others that are meant for one connection (RFC 9110 section 7.6.1).
    for value in named.iter().filter_map(|value| value.to_str().ok()) {
        value.split(',').for_each(|name| drop(map.remove(name.trim())));
    }
    if !dated {
        let _ = map.try_append(header::DATE, date::now());
    }
    if let Some(length) = length {
        let _ = map.try_append(header::CONTENT_LENGTH, length.into());
    }
    let mut head = http::Response::new(());
    *head.status_mut() = status;
    *head.headers_mut() = map;
    head
}

fn is_of_http_1(name: &HeaderName) -> bool {
    // The answer to a key that HTTP/2 has not (RFC 8441 section 5).
    [header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::SEC_WEBSOCKET_ACCEPT].contains(name)
        || name.as_str() == "proxy-connection"
}

/// What needs a task.
#[derive(Debug)]
pub(super) enum Sending {
    Body(Box<BodySending>),
    Tunnel(Box<Tunnel>, Box<Upgrade>),
}

impl Sending {
    pub(super) async fn run(self) {
        match self {
            Sending::Body(body) => body.run().await,
            Sending::Tunnel(tunnel, upgrade) => tunnel.run(*upgrade).await,
        }
    }
}

/// A response body that h2 does not take at once, because it is large, the client's windows are small, or it is still being
/// made. What is whole is a reference to the handler's bytes: what a client that reads nothing can make a server hold is what
/// its streams' handlers returned.
#[derive(Debug)]
pub(super) struct BodySending {
    stream: SendStream<Bytes>,
    body: Body,
    open: Open,
}

/// The client has left, or the connection is gone.
struct Left;

impl BodySending {
    /// Hands the body over, piece by piece, as the client takes it.
    async fn run(mut self) {
        let sent = match std::mem::take(&mut self.body) {
            Body::Whole(left) => {
                self.open.clients_turn();
                self.hand_over(left, true).await
            }
            Body::Pieces(pieces) => self.follow(pieces).await,
            Body::File(file) => self.follow(file.pieces()).await,
        };
        // An error means that nobody wants the rest.
        if sent.is_ok() {
            self.open.record.is_whole();
        }
    }

    async fn hand_over(&mut self, mut left: Bytes, last: bool) -> Result<(), Left> {
        while !left.is_empty() {
            // One byte, though more is ready: `send_data` asks for what it holds, and a window that is reserved for a
            // stream which waits is lost to the others.
            self.stream.reserve_capacity(1);
            while self.stream.capacity() == 0 {
                match poll_fn(|cx| self.stream.poll_capacity(cx)).await {
                    Some(Ok(_)) => {}
                    // Reset, or the connection is gone.
                    Some(Err(_)) | None => return Err(Left),
                }
            }
            self.open.shared.activity.touch();
            let piece = left.split_to(left.len().min(PIECE));
            let length = piece.len() as u64;
            self.stream.send_data(piece, last && left.is_empty()).map_err(|_| Left)?;
            self.open.record.sent += length;
        }
        Ok(())
    }

    /// Sends a body as it comes. One that breaks off is a reset, so that the client sees that.
    async fn follow(&mut self, mut pieces: Pieces) -> Result<(), Left> {
        loop {
            let stream = &mut self.stream;
            let piece = tokio::select! {
                biased;
                _ = poll_fn(|cx| stream.poll_reset(cx)) => return Err(Left),
                piece = pieces.next() => piece,
            };
            match piece {
                Some(Ok(piece)) => {
                    self.open.clients_turn();
                    let last = pieces.is_over();
                    self.hand_over(piece, last).await?;
                    if last {
                        return Ok(());
                    }
                    self.open.servers_turn();
                }
                Some(Err(Broken)) => {
                    self.open.shared.connection.service.metrics.handler_failures.add();
                    self.open.record.outcome = Some(End::Handler);
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Ok(());
                }
                None => {
                    let mut map = HeaderMap::new();
                    for (name, value) in pieces.trailers() {
                        // An error is a map that is full, beyond what `Trailers` takes.
                        let _ = map.try_append(name, value);
                    }
                    let ended = if map.is_empty() {
                        self.stream.send_data(Bytes::new(), true)
                    } else {
                        self.stream.send_trailers(map)
                    };
                    return ended.map_err(|_| Left);
                }
            }
        }
    }
}

/// A stream that is open, as [`super::activity::Activity`] counts them.
pub(super) struct Open {
    pub(super) shared: Arc<Shared>,
    answered: bool,
    headers: usize,
    /// What is said of the request at its end, which is that of this.
    pub(super) record: Record,
    /// Its end tells whoever reads the request's body that nobody wants the rest.
    upload: Option<oneshot::Sender<()>>,
}

impl Open {
    fn new(shared: &Arc<Shared>, headers: usize, record: Record) -> Self {
        shared.activity.opened(headers);
        Open { shared: shared.clone(), answered: false, headers, record, upload: None }
    }

    /// Where what becomes of the request is told.
    pub(super) fn trace(&self) -> StreamTrace<'_> {
        self.shared.connection.trace.of(self.record.stream)
    }

    /// Some of the answer is there.
    fn clients_turn(&mut self) {
        self.shared.activity.answered();
        self.answered = true;
    }

    /// The client has taken what there was, and more is to come.
    fn servers_turn(&mut self) {
        self.shared.activity.more_to_come();
        self.answered = false;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let now = Instant::now();
        self.shared.activity.ended(self.answered, self.headers, now);
        self.record.finish(&self.shared.connection, now);
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("answered", &self.answered).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_a_connection_are_left_out() {
        let headers = [
            ("x-kept", "1"),
            ("x-kept", "2"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("content-length", "99"),
        ];
        let headers = headers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let head = head(StatusCode::OK, headers.to_vec(), Some(3));
        let names: Vec<_> = head.headers().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-kept", "x-kept", "date", "content-length"]);
        assert_eq!(head.headers()["content-length"], "3");
    }

    #[test]
    fn a_date_that_is_given_stays() {
        let headers = vec![(header::DATE, HeaderValue::from_static("then"))];
        let head = head(StatusCode::OK, headers, None);
        assert_eq!(head.headers().get_all(header::DATE).iter().collect::<Vec<_>>(), ["then"]);
    }
}
