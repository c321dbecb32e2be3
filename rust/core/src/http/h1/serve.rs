//! The I/O of an HTTP/1 connection: a page around the [`Machine`].

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Version;
use tokio::sync::watch;

use super::encode::Persist;
use super::upload::{Pumped, Streamed, Upload};
use super::{CONTINUE, Event, Framing, Head, Limits, Machine, Refused, Wait};
use crate::connection::Connection;
use crate::dispatch::{self, Found, Outcome};
use crate::error::{Refusal, RequestError};
use crate::farewell;
use crate::http::body::{Collected, incoming};
use crate::http::coding::{AcceptEncoding, Decoding};
use crate::http::{Body, Request, Response};
use crate::metrics::{Close, State, Within};
use crate::record::{Outcome as End, Record};
use crate::shutdown::{Phase, out_of_patience};
use crate::stream::Stream;
use crate::timer::Timer;
use crate::trace::{Event as Step, StreamTrace};
use crate::websocket::{self, Counted, Upgrade};

/// The most of a body nobody wants that is read and dropped, to keep the connection for the next request.
const DRAIN: u64 = 128 * 1024;

/// How long what is in the kernel already may take to be read: the rest of a record of TLS may be missing.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// Serves a connection to its end. `read` was read already; `opened` is when the wait for a request began.
pub(crate) async fn serve(
    stream: Stream,
    connection: Arc<Connection>,
    within: Within,
    read: BytesMut,
    opened: Instant,
) -> Close {
    let mut machine = Machine::new(Limits::from(&*connection.service.config), opened);
    if !read.is_empty() {
        machine.receive(&read, opened);
    }
    drop(read);
    connection.trace.tell(|| Step::Protocol { name: "http/1" });
    let phase = connection.service.lifecycle.subscribe();
    let timer = Timer::new(opened + connection.service.config.header_timeout);
    let mut io = Io {
        stream,
        connection,
        within,
        machine,
        phase,
        timer,
        out: BytesMut::new(),
        upload: None,
        record: None,
        number: 1,
    };
    io.run().await.unwrap_or_else(|close| close)
}

pub(super) struct Io {
    pub(super) stream: Stream,
    pub(super) connection: Arc<Connection>,
    /// Whether it waits for a request, for those who count.
    within: Within,
    pub(super) machine: Machine,
    phase: watch::Receiver<Phase>,
    pub(super) timer: Timer,
    /// Written and not yet sent.
    pub(super) out: BytesMut,
    /// A body that its handler takes as it comes.
    upload: Option<Box<Upload>>,
    /// The request that is being read or answered.
    pub(super) record: Option<Record>,
    /// The how-manyeth on this connection that is.
    number: u32,
}

impl Drop for Io {
    /// Also when the server drops what is under way.
    fn drop(&mut self) {
        self.finish(Instant::now());
    }
}

impl Io {
    /// Request after request. `Err` is a connection that can do nothing more.
    async fn run(&mut self) -> Result<Close, Close> {
        // Read once for the end of a request and the beginning of the next: a look at the clock is 20 ns.
        let mut now = Instant::now();
        loop {
            let asked = match self.request(now).await {
                Ok(Some(asked)) => asked,
                Ok(None) => return self.goodbye(Close::Client).await,
                Err(Stop::Quiet(close)) => return self.goodbye(close).await,
                Err(Stop::Refuse(error)) => return self.refuse(&error).await,
                Err(Stop::Gone(close)) => {
                    if !self.machine.is_idle() {
                        self.connection.service.metrics.requests_aborted.add();
                        // One whose head has not come is a request too.
                        self.headless();
                    }
                    return Err(close);
                }
            };
            let head = &asked.head;
            let (method, version, keep_alive) = (head.method.clone(), head.version, head.keep_alive);
            let accepted = AcceptEncoding::of(&head.headers);
            let mut response = self.answer(asked).await?;
            if response.settle(&method).is_err() {
                self.connection.service.metrics.handler_failures.add();
            }
            // Where the client has sent another request already, the one after it is told: none is dropped.
            let draining = *self.phase.borrow() != Phase::Serving && self.machine.buffered() == 0;
            if draining {
                self.connection.trace.tell(|| Step::Draining {});
            }
            if let Some(upgrade) = response.upgrade.take() {
                if self.upload.take().is_some() {
                    // What is left of the body would be taken for frames. It is not read: it may never end.
                    drop(upgrade);
                    let why = "a WebSocket is asked for with a body that its handler has not read";
                    return self.refuse(&RequestError::new(Refusal::Framing, why)).await;
                }
                self.write(response, &method, version, Persist::Open).await?;
                // Boxed, so that a connection has no room for it while it has no use for it.
                return Box::pin(self.go_on(*upgrade)).await;
            }
            let keep_alive = keep_alive && self.may_keep(&response);
            let service = &self.connection.service;
            response.encode(&accepted, &method, &service.config, &service.encoders);
            let persist = Persist::after(version, keep_alive, &response, draining);
            self.write(response, &method, version, persist).await?;
            let drained = self.drain(persist).await?;
            if persist == Persist::Close || !drained {
                self.flush().await?;
                self.ended(End::Whole, Instant::now());
                let why = if draining { Close::Shutdown } else { Close::Server };
                return self.linger(why).await;
            }
            now = Instant::now();
            self.ended(End::Whole, now);
            self.machine.answered(now);
        }
    }

    /// Where what becomes of the request is told.
    pub(super) fn trace(&self) -> StreamTrace<'_> {
        self.connection.trace.of(self.number)
    }

    fn body_ended(&self) {
        self.trace().tell(|| Step::BodyEnded { bytes: self.machine.body_received() });
    }

    /// The request is done with, in the way that is known already, or else in this one.
    fn ended(&mut self, outcome: End, now: Instant) {
        if let Some(record) = &mut self.record {
            record.outcome.get_or_insert(outcome);
        }
        self.finish(now);
    }

    fn finish(&mut self, now: Instant) {
        if let Some(record) = &mut self.record {
            record.received += self.machine.body_received();
            record.finish(&self.connection, now);
            self.record = None;
            self.number = self.number.wrapping_add(1);
        }
    }

    /// Leaves the connection to a WebSocket.
    async fn go_on(&mut self, upgrade: Upgrade) -> Result<Close, Close> {
        self.flush().await?;
        let unread = self.machine.take_unread();
        let mut wire = Counted { stream: &mut self.stream, record: &mut self.record };
        let why = websocket::serve(&mut wire, &self.connection, upgrade, unread).await;
        match why {
            Close::Aborted => {}
            Close::WriteTimeout => self.broken_off(End::WriteTimeout),
            _ => self.broken_off(End::Whole),
        }
        self.finish(Instant::now());
        if matches!(why, Close::Refused | Close::Server | Close::Shutdown) {
            farewell::linger(&mut self.stream, &mut self.timer).await;
        }
        Ok(why)
    }

    /// Reads one request whole, or as much as is here where its handler takes the body as it comes; none when the client is
    /// done. It is `now`.
    async fn request(&mut self, mut now: Instant) -> Result<Option<Asked>, Stop> {
        let mut head: Option<Box<Head>> = None;
        let mut found = None;
        let mut body = Collected::default();
        let mut decoding = None;
        // Until it is known who wants the body: whether its client waits for `100 Continue`.
        let mut undecided = None;
        loop {
            match self.machine.next_event(now).map_err(Stop::Refuse)? {
                Event::Request(mut new) => {
                    let record = self.record.insert(Record::new(now, new.version, new.method.clone(), self.number));
                    record.describe(&new.target, &new.headers, &self.connection);
                    let expects = new.expects_continue && self.machine.buffered() == 0;
                    if new.framing != Framing::Length(0) {
                        let length = if let Framing::Length(length) = new.framing { Some(length) } else { None };
                        self.trace().tell(|| Step::BodyBegun { length });
                        let config = &self.connection.service.config;
                        decoding = Decoding::of(&new.headers, config).map_err(Stop::Refuse)?;
                    }
                    if decoding.is_some() {
                        self.machine.stream_body();
                        // Before any of it is decoded: that can be much, and is for the handler to take.
                        let who = self.find(&new);
                        if who.streams_body(None) {
                            new.headers = new.headers.decoded(None);
                            let streamed = Some(Streamed { expects, decoding });
                            return Ok(Some(Asked { head: new, body: Bytes::new(), streamed, found: Some(who) }));
                        }
                        found = Some(who);
                    }
                    undecided = Some(expects);
                    head = Some(new);
                }
                Event::Body(data) => match &mut decoding {
                    None => body.push(data),
                    Some(decoding) => {
                        decoding.push(data);
                        decoding.run_through(|piece| body.push(piece)).await.map_err(Stop::Refuse)?;
                    }
                },
                Event::EndOfBody => {
                    self.body_ended();
                    let Some(mut head) = head else { return Ok(None) };
                    if let Some(mut decoding) = decoding {
                        decoding.end();
                        decoding.run_through(|piece| body.push(piece)).await.map_err(Stop::Refuse)?;
                        head.headers = head.headers.decoded(Some(body.len()));
                    }
                    return Ok(Some(Asked { head, body: body.finish(), streamed: None, found }));
                }
                Event::End { clean: true } => return Ok(None),
                Event::End { clean: false } => return Err(Stop::Gone(Close::Aborted)),
                Event::NeedMore => {
                    // What is here whole by now needs no stream, and no question.
                    if let (Some(expects), Some(new)) = (undecided.take(), &head) {
                        if decoding.is_none() {
                            let length = if let Framing::Length(length) = new.framing { Some(length) } else { None };
                            let who = self.find(new);
                            if who.streams_body(length) {
                                self.machine.stream_body();
                                let (body, streamed) = (body.finish(), Some(Streamed { expects, decoding: None }));
                                return Ok(head.map(|head| Asked { head, body, streamed, found: Some(who) }));
                            }
                            found = Some(who);
                        }
                        if expects {
                            self.out.extend_from_slice(CONTINUE);
                        }
                    }
                    now = self.wait_for_more().await?;
                }
            }
        }
    }

    /// Who answers a request, of which only the head is here.
    fn find(&mut self, head: &Head) -> Box<Found> {
        let new = || Record::new(Instant::now(), head.version, head.method.clone(), self.number);
        let record = self.record.get_or_insert_with(new);
        Box::new(Found::of(&self.connection, &mut Request::from(head.clone()), record))
    }

    /// When it came. The clock is asked once for all that came together: each time would cost as much as a small copy.
    async fn wait_for_more(&mut self) -> Result<Instant, Stop> {
        self.flush().await.map_err(Stop::Gone)?;
        let (deadline, wait) = self.machine.deadline().unwrap_or_else(|| (Instant::now(), Wait::Idle));
        let (idle, since) = (self.machine.is_idle(), self.machine.waits_since());
        if idle {
            self.within.now(State::Http1Idle);
        }
        let machine = &mut self.machine;
        let mut now = None;
        let why = tokio::select! {
            biased;
            read = self.stream.read_some(|bytes| receive(machine, bytes, *now.get_or_insert_with(Instant::now))) => match read {
                Ok(_) => Ok(now.unwrap_or_else(Instant::now)),
                Err(_) if idle => Err(Stop::Gone(Close::Client)),
                Err(_) => Err(Stop::Gone(Close::Aborted)),
            },
            () = self.timer.until(deadline) => Err(match wait.refusal() {
                Some(error) => Stop::Refuse(error),
                None => Stop::Quiet(Close::Idle),
            }),
            // At the server's end an upload may use the whole grace.
            () = out_of_patience(&mut self.phase, since), if wait != Wait::Body => Err(Stop::Quiet(Close::Shutdown)),
        };
        if idle {
            self.within.now(State::Http1);
        }
        let Err(Stop::Quiet(why)) = why else { return why };
        let looked = self.last_look(why).await;
        if looked.is_err() {
            let setting = if wait == Wait::Idle { "keepalive_timeout" } else { "header_timeout" };
            self.connection.trace.tell(|| match why {
                Close::Shutdown => Step::Draining {},
                _ => Step::TimedOut { setting },
            });
        }
        looked
    }

    /// Before a connection is closed on which nothing is asked: what has come while this thread was busy elsewhere is read.
    /// A client that sends just then, and cannot know, would lose a request.
    async fn last_look(&mut self, why: Close) -> Result<Instant, Stop> {
        let machine = &mut self.machine;
        let mut now = None;
        if self.stream.has_unread() {
            tokio::select! {
                biased;
                read = self.stream.read_some(|bytes| receive(machine, bytes, *now.get_or_insert_with(Instant::now))) => {
                    return if read.is_ok() { Ok(now.unwrap_or_else(Instant::now)) } else { Err(Stop::Gone(Close::Client)) };
                }
                () = self.timer.until(Instant::now() + LAST_LOOK) => {}
            }
        }
        Err(Stop::Quiet(why))
    }

    /// Has a request answered. Meanwhile the client may send more, up to a bound, and is noticed when it leaves.
    async fn answer(&mut self, asked: Asked) -> Result<Response, Close> {
        let Asked { head, mut body, streamed, found } = asked;
        self.connection.service.metrics.request(head.version);
        let connection = Some(self.connection.info.clone());
        let incoming = streamed.map(|streamed| {
            let (feeder, incoming) = incoming();
            feeder.push(std::mem::take(&mut body));
            self.upload = Some(Box::new(Upload::new(feeder, streamed)));
            incoming
        });
        let new = || Record::new(Instant::now(), head.version, head.method.clone(), self.number);
        let record = self.record.get_or_insert_with(new);
        let id = record.id.as_deref().cloned();
        let request = Box::new(Request { body, incoming, connection, id, ..Request::from(*head) });
        let outcome = dispatch::begin(&self.connection, request, found, record);
        let answer = match outcome {
            Ok(Outcome::Ready(response)) => Ok(response),
            Ok(Outcome::Waiting(mut waiting)) => {
                self.flush().await?;
                let cancellable = waiting.cancellable;
                self.read_ahead(waiting.response(), cancellable).await?
            }
            Err(error) => Err(error),
        };
        Ok(answer.unwrap_or_else(|error| self.refusal(&error)))
    }

    /// Waits for something of the handler's, and meanwhile reads what the client sends, up to a bound, to notice when it
    /// leaves. One that only closed its sending half still gets its answer, unless `cancellable` says that its handler minds.
    pub(super) async fn read_ahead<T>(
        &mut self,
        awaited: impl Future<Output = T>,
        cancellable: bool,
    ) -> Result<T, Close> {
        let room = self.connection.service.config.max_read_buffer_size;
        let mut awaited = pin!(awaited);
        loop {
            let pumped = self.pump()?;
            let hungry = pumped == Pumped::Hungry;
            if hungry {
                // `100 Continue`, where the client waits for it.
                self.flush().await?;
            }
            let machine = &mut self.machine;
            let upload = self.upload.as_deref();
            if machine.ended() && cancellable && upload.is_none() {
                return Err(Close::Aborted);
            }
            let may_read = hungry || (upload.is_none() && !machine.ended() && machine.buffered() < room);
            let deadline = machine.deadline().filter(|_| hungry).map(|(deadline, _)| deadline);
            // For the last branch, which is made also where it is not taken: in place of a look at the clock.
            let since = machine.waits_since();
            tokio::select! {
                biased;
                done = &mut awaited => return Ok(done),
                read = self.stream.read_some(|bytes| receive(machine, bytes, Instant::now())), if may_read => {
                    if read.is_err() {
                        if hungry {
                            self.connection.service.metrics.requests_aborted.add();
                        }
                        return Err(Close::Aborted);
                    }
                }
                () = wanted(upload), if pumped == Pumped::Full && upload.is_some() => {}
                () = tokio::task::yield_now(), if pumped == Pumped::Turn => {}
                () = self.timer.until(deadline.unwrap_or(since)), if deadline.is_some() => self.late(),
            }
        }
    }

    /// Gives a handler what is here of the body that it takes as it comes.
    fn pump(&mut self) -> Result<Pumped, Close> {
        let Some(upload) = &mut self.upload else { return Ok(Pumped::Full) };
        let pumped = upload.pump(&mut self.machine, &mut self.out);
        match &pumped {
            Pumped::Hungry | Pumped::Turn | Pumped::Full => {}
            Pumped::Whole => {
                self.upload = None;
                self.body_ended();
            }
            Pumped::Left => {
                self.connection.service.metrics.requests_aborted.add();
                return Err(Close::Aborted);
            }
            // The answer is the handler's.
            Pumped::Refused(error) => self.refused_in_its_body(error),
        }
        Ok(pumped)
    }

    /// A body that is taken as it comes makes no progress: its handler is told.
    fn late(&mut self) {
        if let (Some(upload), Some(error)) = (&mut self.upload, Wait::Body.refusal()) {
            upload.refuse(&error);
            self.refused_in_its_body(&error);
        }
    }

    /// Tells that nothing more is read of a body which its handler has already.
    fn refused_in_its_body(&self, error: &RequestError) {
        self.trace().refused(error);
        self.connection.refused(error, self.record.as_ref().and_then(|record| record.id.as_deref()));
    }

    /// Whether another request may follow this response, as far as the body of this one goes: what is left of it is short.
    fn may_keep(&mut self, response: &Response) -> bool {
        let Some(upload) = &mut self.upload else { return true };
        // Never after a final status. Whether the body still comes then is the client's choice (RFC 9110 section 10.1.1).
        let expects = std::mem::take(&mut upload.expects);
        let short = match response.body {
            Body::Whole(_) => self.machine.body_left().is_some_and(|left| left <= DRAIN),
            // Its handler may go on reading.
            Body::Pieces(_) | Body::File(_) => true,
        };
        short && !expects && !upload.broken
    }

    /// Reads and drops what is left of a body after its response; whether that was all of it.
    async fn drain(&mut self, persist: Persist) -> Result<bool, Close> {
        let Some(upload) = self.upload.take() else { return Ok(true) };
        if persist == Persist::Close || upload.broken {
            return Ok(false);
        }
        if upload.ended {
            return Ok(true);
        }
        drop(upload);
        let mut now = Instant::now();
        self.machine.resume(now);
        let mut left = DRAIN;
        loop {
            match self.machine.next_event(now) {
                Ok(Event::Body(data)) => match left.checked_sub(data.len() as u64) {
                    Some(less) => left = less,
                    None => return Ok(false),
                },
                Ok(Event::EndOfBody) => {
                    self.body_ended();
                    return Ok(true);
                }
                Ok(Event::NeedMore | Event::Request(_)) => match self.wait_for_more().await {
                    Ok(then) => now = then,
                    Err(Stop::Gone(close)) => return Err(close),
                    Err(_) => return Ok(false),
                },
                Ok(Event::End { .. }) | Err(_) => return Ok(false),
            }
        }
    }

    async fn refuse(&mut self, error: &RequestError) -> Result<Close, Close> {
        let response = self.refusal(error);
        let method = self.machine.refused_method();
        self.write(response, &method, Version::HTTP_11, Persist::Close).await?;
        self.flush().await?;
        self.finish(Instant::now());
        self.linger(Close::Refused).await
    }

    /// The answer to a request that the server itself answers. Its head may not have come.
    fn refusal(&mut self, error: &RequestError) -> Response {
        let (trace, record) = (self.connection.trace.clone(), self.headless());
        record.refused(error, &trace);
        let id = record.id.clone();
        self.connection.refuse(error, id.as_deref())
    }

    /// The record of a request that is over, whose head may not have come, or was refused.
    fn headless(&mut self) -> &mut Record {
        let (machine, connection, number) = (&mut self.machine, &self.connection, self.number);
        self.record.get_or_insert_with(|| match machine.take_refused() {
            Some(Refused::Head(head)) => {
                let mut record = Record::new(Instant::now(), head.version, head.method.clone(), number);
                record.describe(&head.target, &head.headers, connection);
                record
            }
            Some(Refused::Line(line)) => Record::without_head(Instant::now(), line, connection, number),
            None => Record::without_head(Instant::now(), Bytes::new(), connection, number),
        })
    }

    /// Ends a connection on which nothing is under way.
    async fn goodbye(&mut self, why: Close) -> Result<Close, Close> {
        self.flush().await?;
        farewell::shut_down(&mut self.stream, &mut self.timer).await;
        Ok(why)
    }

    /// Ends a connection after its last response, such that the client can read it.
    async fn linger(&mut self, why: Close) -> Result<Close, Close> {
        self.flush().await?;
        farewell::shut_down(&mut self.stream, &mut self.timer).await;
        if !self.machine.ended() {
            farewell::linger(&mut self.stream, &mut self.timer).await;
        }
        Ok(why)
    }
}

/// Until a handler wants more of its body.
async fn wanted(upload: Option<&Upload>) {
    match upload {
        Some(upload) if !upload.broken => poll_fn(|cx| upload.feeder.poll_wanted(upload.expects, cx)).await,
        _ => std::future::pending().await,
    }
}

fn receive(machine: &mut Machine, bytes: &[u8], now: Instant) {
    if bytes.is_empty() {
        machine.receive_end();
    } else {
        machine.receive(bytes, now);
    }
}

/// A request, of whose body at least the beginning is here.
struct Asked {
    head: Box<Head>,
    body: Bytes,
    /// Its handler takes the rest of the body as it comes.
    streamed: Option<Streamed>,
    /// Who answers, where that had to be known before the body was whole. Boxed, so that a connection has no room for it while
    /// it has no use for it.
    found: Option<Box<Found>>,
}

/// Why no request came.
enum Stop {
    /// Nothing was asked: close without a word.
    Quiet(Close),
    /// Tell the client what was wrong.
    Refuse(RequestError),
    /// The client cannot be told.
    Gone(Close),
}
