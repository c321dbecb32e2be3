//! The I/O of an HTTP/1 connection: a page around the [`Machine`].

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Method, Version};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::encode::{self, Persist};
use super::{CONTINUE, Event, Head, Limits, Machine, Wait};
use crate::connection::Connection;
use crate::dispatch::{self, Outcome};
use crate::error::RequestError;
use crate::farewell;
use crate::http::body::{Broken, Collected};
use crate::http::coding::Choice;
use crate::http::pace::Pace;
use crate::http::{Body, Pieces, Request, Response};
use crate::metrics::Close;
use crate::shutdown::{PATIENCE, Phase, draining_for};
use crate::stream::Stream;
use crate::timer::Timer;

/// Bodies up to this size are copied behind their head, so that both leave in one write.
const SMALL_BODY: usize = 16 * 1024;
/// Answers to pipelined requests gather up to this size before they are written.
const GATHER: usize = 64 * 1024;

/// Serves a connection to its end. `read` was read already; `opened` is when the wait for a request began.
pub(crate) async fn serve(stream: Stream, connection: Arc<Connection>, read: BytesMut, opened: Instant) -> Close {
    let mut machine = Machine::new(Limits::from(&*connection.service.config), opened);
    if !read.is_empty() {
        machine.receive(&read, opened);
    }
    drop(read);
    let phase = connection.service.lifecycle.subscribe();
    let timer = Timer::new(opened + connection.service.config.header_timeout);
    let mut io = Io { stream, connection, machine, phase, timer, out: BytesMut::new() };
    io.run().await.unwrap_or_else(|close| close)
}

struct Io {
    stream: Stream,
    connection: Arc<Connection>,
    machine: Machine,
    phase: watch::Receiver<Phase>,
    timer: Timer,
    /// Written and not yet sent.
    out: BytesMut,
}

impl Io {
    /// Request after request. `Err` is a connection that can do nothing more.
    async fn run(&mut self) -> Result<Close, Close> {
        loop {
            let (head, body) = match self.request().await {
                Ok(Some(request)) => request,
                Ok(None) => return self.goodbye(Close::Client).await,
                Err(Stop::Quiet(close)) => return self.goodbye(close).await,
                Err(Stop::Refuse(error)) => return self.refuse(&error).await,
                Err(Stop::Gone(close)) => {
                    if !self.machine.is_idle() {
                        self.connection.service.metrics.requests_aborted.add();
                    }
                    return Err(close);
                }
            };
            let method = head.method.clone();
            let (version, keep_alive) = (head.version, head.keep_alive);
            let choice = Choice::new(&self.connection.service.config.compression, &head.headers);
            let mut response = self.answer(head, body).await?;
            if response.settle(&method).is_err() {
                self.connection.service.metrics.handler_failures.add();
            }
            let service = &self.connection.service;
            response.encode(choice, service.config.compression_min_bytes, &service.encoders);
            let draining = *self.phase.borrow() != Phase::Serving;
            let persist = Persist::after(version, keep_alive, &response, draining);
            self.write(response, &method, version, persist).await?;
            if persist == Persist::Close {
                let why = if draining { Close::Shutdown } else { Close::Server };
                return self.linger(why).await;
            }
            self.machine.answered(Instant::now());
        }
    }

    /// Reads one request whole; none when the client is done.
    async fn request(&mut self) -> Result<Option<(Box<Head>, Bytes)>, Stop> {
        let mut head: Option<Box<Head>> = None;
        let mut body = Collected::default();
        let mut now = Instant::now();
        loop {
            match self.machine.next_event(now).map_err(Stop::Refuse)? {
                Event::Request(new) => {
                    if new.expects_continue && self.machine.buffered() == 0 {
                        self.out.extend_from_slice(CONTINUE);
                    }
                    head = Some(new);
                }
                Event::Body(data) => body.push(data),
                Event::EndOfBody => return Ok(head.map(|head| (head, body.finish()))),
                Event::End { clean: true } => return Ok(None),
                Event::End { clean: false } => return Err(Stop::Gone(Close::Aborted)),
                Event::NeedMore => now = self.wait_for_more().await?,
            }
        }
    }

    /// When it came. The clock is asked once for all that came together: each time would cost as much as a small copy.
    async fn wait_for_more(&mut self) -> Result<Instant, Stop> {
        self.flush().await.map_err(Stop::Gone)?;
        let (deadline, wait) = self.machine.deadline().unwrap_or_else(|| (Instant::now(), Wait::Idle));
        let idle = self.machine.is_idle();
        // At the server's end a connection between requests goes at once; an upload may use the whole grace.
        let patience = if wait == Wait::Idle { Duration::ZERO } else { PATIENCE };
        let machine = &mut self.machine;
        let mut now = None;
        tokio::select! {
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
            () = draining_for(&mut self.phase, patience), if wait != Wait::Body => Err(Stop::Quiet(Close::Shutdown)),
        }
    }

    /// Has a request answered. Meanwhile the client may send more, up to a bound, and is noticed when it leaves.
    async fn answer(&mut self, head: Box<Head>, body: Bytes) -> Result<Response, Close> {
        let Head { method, target, version, headers, .. } = *head;
        let service = &self.connection.service;
        service.metrics.request(version);
        let connection = Some(self.connection.info.clone());
        let request = Request { method, target, version, headers, body, connection, route: None };
        let outcome = dispatch::begin(&self.connection, request);
        let answer = match outcome {
            Ok(Outcome::Ready(response)) => Ok(response),
            Ok(Outcome::Waiting(mut waiting)) => {
                self.flush().await?;
                let cancellable = waiting.cancellable;
                self.read_ahead(waiting.response(), cancellable).await?
            }
            Err(error) => Err(error),
        };
        Ok(answer.unwrap_or_else(|error| {
            self.connection.refused(&error);
            Response::refusal(&error)
        }))
    }

    /// Waits for something of the handler's, and meanwhile reads what the client sends, up to a bound, to notice when it
    /// leaves. One that only closed its sending half still gets its answer, unless `cancellable` says that its handler minds.
    async fn read_ahead<T>(&mut self, awaited: impl Future<Output = T>, cancellable: bool) -> Result<T, Close> {
        let room = self.connection.service.config.max_read_buffer_size;
        let mut awaited = pin!(awaited);
        loop {
            let machine = &mut self.machine;
            if machine.ended() && cancellable {
                return Err(Close::Aborted);
            }
            let may_read = !machine.ended() && machine.buffered() < room;
            tokio::select! {
                biased;
                done = &mut awaited => return Ok(done),
                read = self.stream.read_some(|bytes| receive(machine, bytes, Instant::now())), if may_read => {
                    read.map_err(|_| Close::Aborted)?;
                }
            }
        }
    }

    /// Writes a response, or gathers it where another request is waiting already.
    async fn write(
        &mut self,
        response: Response,
        method: &Method,
        version: Version,
        persist: Persist,
    ) -> Result<(), Close> {
        self.connection.service.metrics.response(response.status);
        let bodiless = response.is_bodiless(method);
        let chunked = !bodiless && response.body.length().is_none() && version != Version::HTTP_10;
        encode::head(&mut self.out, &response, method, persist, chunked);
        match response.body {
            _ if bodiless => {}
            Body::Whole(body) => self.add(&body).await?,
            // Boxed, so that a connection has no room for it while it has no use for it.
            Body::Pieces(pieces) => Box::pin(self.write_pieces(pieces, chunked)).await?,
        }
        if self.out.len() >= GATHER || self.machine.buffered() == 0 {
            self.flush().await?;
        }
        Ok(())
    }

    /// Adds to what is written: a copy of what is small, what is large itself.
    async fn add(&mut self, body: &[u8]) -> Result<(), Close> {
        if body.len() <= SMALL_BODY {
            self.out.extend_from_slice(body);
            return Ok(());
        }
        let before = std::mem::take(&mut self.out);
        self.send(&before, body).await
    }

    /// Writes a body as it comes. One that breaks off ends the connection, so that the client sees that.
    async fn write_pieces(&mut self, mut pieces: Pieces, chunked: bool) -> Result<(), Close> {
        while let Some(piece) = self.next_piece(&mut pieces).await? {
            let Ok(piece) = piece else {
                self.connection.service.metrics.handler_failures.add();
                self.flush().await?;
                return Err(Close::Server);
            };
            if chunked {
                encode::chunk(&mut self.out, piece.len());
            }
            self.add(&piece).await?;
            if chunked {
                self.out.extend_from_slice(encode::CHUNK_END);
            }
            if self.out.len() >= GATHER {
                self.flush().await?;
            }
        }
        if chunked {
            self.out.extend_from_slice(encode::LAST_CHUNK);
        }
        Ok(())
    }

    /// The next piece of a body. What is written leaves before it is waited for, and meanwhile the client is noticed when it
    /// leaves.
    async fn next_piece(&mut self, pieces: &mut Pieces) -> Result<Option<Result<Bytes, Broken>>, Close> {
        if let Poll::Ready(piece) = poll_fn(|cx| Poll::Ready(pieces.poll_next(cx))).await {
            return Ok(piece);
        }
        self.flush().await?;
        let stops = pieces.stops_at_half_close();
        self.read_ahead(pieces.next(), stops).await
    }

    async fn flush(&mut self) -> Result<(), Close> {
        if self.out.is_empty() {
            return Ok(());
        }
        // Taken, not borrowed: an idle connection keeps no write buffer.
        let out = std::mem::take(&mut self.out);
        self.send(&out, &[]).await
    }

    /// Sends bytes as fast as the client takes them, as long as it takes some: `head`, and `body` with it.
    async fn send(&mut self, mut head: &[u8], mut body: &[u8]) -> Result<(), Close> {
        let patience = self.connection.service.config.write_timeout;
        let mut pace = Pace::begin(Instant::now());
        while !(head.is_empty() && body.is_empty()) {
            let stream = &mut self.stream;
            let write = poll_fn(|cx| {
                let both = [IoSlice::new(head), IoSlice::new(body)];
                let left = &both[usize::from(head.is_empty())..2 - usize::from(body.is_empty())];
                Pin::new(&mut *stream).poll_write_vectored(cx, left)
            });
            tokio::select! {
                biased;
                sent = write => match sent {
                    Ok(0) | Err(_) => return Err(Close::Aborted),
                    Ok(n) => {
                        pace.moved(n, Instant::now());
                        let of_head = n.min(head.len());
                        head = &head[of_head..];
                        body = &body[n - of_head..];
                    }
                },
                () = self.timer.until(pace.since() + patience) => return Err(Close::WriteTimeout),
            }
        }
        tokio::select! {
            biased;
            flushed = self.stream.flush() => flushed.map_err(|_| Close::Aborted),
            () = self.timer.until(Instant::now() + patience) => Err(Close::WriteTimeout),
        }
    }

    async fn refuse(&mut self, error: &RequestError) -> Result<Close, Close> {
        self.connection.refused(error);
        self.write(Response::refusal(error), &Method::GET, Version::HTTP_11, Persist::Close).await?;
        self.linger(Close::Refused).await
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

fn receive(machine: &mut Machine, bytes: &[u8], now: Instant) {
    if bytes.is_empty() {
        machine.receive_end();
    } else {
        machine.receive(bytes, now);
    }
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
