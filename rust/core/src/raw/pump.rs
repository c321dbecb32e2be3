//! The task of a connection whose bytes a callback has: it moves them between the socket and the pipe.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use tokio::sync::watch;

use super::connection::deadline;
use super::error::StreamError;
use super::pipe::{End, Pipe, Plan};
use super::{Connection, Streams};
use crate::error::{Report, Stage};
use crate::farewell;
use crate::metrics::Close;
use crate::shutdown::{Phase, draining};
use crate::stream::Stream;
use crate::timer::Timer;
use crate::trace::{Event, Trace};

/// Gives a connection to its callback and does its I/O until both are done with it.
pub(crate) async fn serve(
    stream: Stream,
    connection: Arc<crate::connection::Connection>,
    streams: Arc<Streams>,
) -> Close {
    let pipe = Arc::new(Pipe::new(connection.service.config.max_read_buffer_size));
    let phase = connection.service.lifecycle.subscribe();
    let write_timeout = connection.service.config.write_timeout;
    let now = Instant::now();
    let mut pump = Pump {
        stream,
        pipe: pipe.clone(),
        sending: Bytes::new(),
        unflushed: false,
        ended: false,
        shut: false,
        blocked: false,
        active: now,
        trace: connection.trace.clone(),
        began: now,
        begun: false,
        received: 0,
        sent: 0,
    };
    connection.trace.tell(|| Event::Protocol { name: "stream" });
    let mut waits = Waits {
        phase,
        timer: Timer::new(now + write_timeout),
        write_timeout,
        turn: deadline(connection.service.config.stream_timeout),
        drain: Drain::No,
    };
    streams.handler.call(Connection::new(pipe, connection.clone()));
    drop(streams);
    loop {
        match waits.next(&mut pump).await {
            Happened::Changed => {}
            Happened::Done => {
                if pump.may_linger() {
                    farewell::linger(&mut pump.stream, &mut waits.timer).await;
                }
                return pump.reason();
            }
            Happened::Late => {
                pump.trace.tell(|| Event::TimedOut { setting: "write_timeout" });
                pump.pipe.fail(StreamError::WriteTimeout(write_timeout));
            }
            Happened::NoThread => {
                pump.trace.tell(|| Event::TimedOut { setting: "stream_timeout" });
                connection.service.observer.report(no_thread(&connection));
                pump.pipe.fail(StreamError::ServerEnded);
                return Close::Server;
            }
            Happened::Drained => {
                pump.trace.tell(|| Event::Draining {});
                pump.pipe.drain();
            }
        }
    }
}

fn no_thread(connection: &crate::connection::Connection) -> Report {
    let (info, config) = (&connection.info, &connection.service.config);
    Report {
        stage: Stage::Admission,
        reason: "stream_threads",
        message: format!(
            "connection from {} to {} closed: none of the {} threads of its callback was free for {} s \
             (stream_threads, stream_timeout)",
            info.peer,
            info.local,
            config.stream_threads,
            config.stream_timeout.unwrap_or_default().as_secs_f64(),
        ),
        status: None,
        connection: Some(connection.info.clone()),
    }
}

/// Moves bytes.
struct Pump {
    stream: Stream,
    pipe: Arc<Pipe>,
    /// Taken from the pipe and not sent yet.
    sending: Bytes,
    /// Sent as far as TLS goes, which may hold some of it.
    unflushed: bool,
    /// Nothing more comes.
    ended: bool,
    /// The client was told that nothing more comes from here.
    shut: bool,
    /// Waiting for the client to take something.
    blocked: bool,
    /// When the last byte went either way.
    active: Instant,
    trace: Trace,
    /// When the callback was called for.
    began: Instant,
    /// It has begun.
    begun: bool,
    /// Bytes that came, and that were sent.
    received: u64,
    sent: u64,
}

enum Happened {
    /// What is waited for is not what it was.
    Changed,
    /// Nothing is left to do.
    Done,
    /// The client took nothing for too long.
    Late,
    /// The callback did not get to its turn.
    NoThread,
    /// The server ends, and nothing goes either way.
    Drained,
}

impl Pump {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        if self.pipe.has_failed() {
            return self.poll_abandoned(cx);
        }
        let orders = loop {
            let Plan { piece, may_read, orders } = self.pipe.plan(self.sending.is_empty(), cx.waker());
            if let Some(piece) = piece {
                self.sending = piece;
            }
            if let Some(place) = orders.begun.filter(|_| !std::mem::replace(&mut self.begun, true)) {
                let waited = self.began.elapsed().as_secs_f64();
                self.trace.tell(|| Event::HandlerBegun { place, waited });
            }
            // Reading first: a client that has sent its last and left is heard before a write finds out.
            let moved = self.poll_receive(cx, may_read).and_then(|received| {
                let sent = self.poll_send(cx, orders.eof)?;
                Ok(received || sent)
            });
            match moved {
                Ok(true) => {}
                Ok(false) => break orders,
                Err(failure) => {
                    self.pipe.fail(failure);
                    return self.poll_abandoned(cx);
                }
            }
        };
        let blocked = !self.sending.is_empty() || self.unflushed || (orders.eof && !self.shut);
        if orders.closed && self.shut {
            Poll::Ready(Happened::Done)
        } else if blocked != self.blocked {
            // Its time begins now.
            (self.blocked, self.active) = (blocked, Instant::now());
            Poll::Ready(Happened::Changed)
        } else {
            Poll::Pending
        }
    }

    /// After the connection failed there is only the callback to wait for.
    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        self.sending = Bytes::new();
        self.blocked = false;
        if self.pipe.plan(false, cx.waker()).orders.closed { Poll::Ready(Happened::Done) } else { Poll::Pending }
    }

    /// Whether something came.
    fn poll_receive(&mut self, cx: &mut Context<'_>, may_read: bool) -> Result<bool, StreamError> {
        if self.ended || !may_read {
            return Ok(false);
        }
        let pipe = &self.pipe;
        match self.stream.poll_read_some(cx, &mut |bytes| pipe.receive(bytes)) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => self.end(End::Orderly),
            Poll::Ready(Ok(read)) => {
                self.received += read as u64;
                self.active = Instant::now();
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => self.end(End::Truncated),
            Poll::Ready(Err(error)) => return Err(lost(&error, false)),
        }
        Ok(true)
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        self.pipe.receive_end(end);
    }

    /// Whether something was sent, or may be next.
    fn poll_send(&mut self, cx: &mut Context<'_>, eof: bool) -> Result<bool, StreamError> {
        let stream = Pin::new(&mut self.stream);
        if !self.sending.is_empty() {
            return match stream.poll_write(cx, &self.sending) {
                Poll::Pending => Ok(false),
                Poll::Ready(Ok(0)) => Err(lost(&io::ErrorKind::WriteZero.into(), true)),
                Poll::Ready(Ok(sent)) => {
                    self.sending.advance(sent);
                    self.pipe.sent(sent);
                    self.sent += sent as u64;
                    (self.unflushed, self.active) = (true, Instant::now());
                    Ok(true)
                }
                Poll::Ready(Err(error)) => Err(lost(&error, true)),
            };
        }
        if self.unflushed {
            if let Poll::Ready(flushed) = stream.poll_flush(cx) {
                flushed.map_err(|error| lost(&error, true))?;
                self.unflushed = false;
                return Ok(true);
            }
        } else if eof && !self.shut && stream.poll_shutdown(cx).is_ready() {
            // Whatever came of it: there is no more to be told. TLS says close_notify once.
            self.shut = true;
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether the client may still be reading what was sent last.
    fn may_linger(&self) -> bool {
        !self.ended && !self.pipe.has_failed()
    }

    fn reason(&self) -> Close {
        let orders = self.pipe.orders();
        match self.pipe.failure() {
            Some(StreamError::WriteTimeout(_)) => Close::WriteTimeout,
            Some(_) => Close::Aborted,
            None if orders.refused => Close::Refused,
            None if orders.idle => Close::Idle,
            None => match self.pipe.end() {
                Some(End::Truncated) => Close::Aborted,
                Some(End::Orderly) => Close::Client,
                None if self.pipe.is_drained() => Close::Shutdown,
                None => Close::Server,
            },
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.trace.carried(self.received, self.sent);
        // At the server's end, or within a panic; else the callback is done and nobody hears it.
        self.pipe.fail(StreamError::ServerEnded);
    }
}

fn lost(error: &io::Error, writing: bool) -> StreamError {
    StreamError::Lost { why: error.to_string(), writing }
}

/// What a pump is held up by besides its two ends.
struct Waits {
    phase: watch::Receiver<Phase>,
    timer: Timer,
    write_timeout: Duration,
    /// Until when the callback has to begin.
    turn: Option<Instant>,
    drain: Drain,
}

/// How far the end of the server has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// Nobody is heard any more who is quiet until then, or for that long.
    At(Instant, Duration),
    Done,
}

impl Waits {
    async fn next(&mut self, pump: &mut Pump) -> Happened {
        let (blocked, active) = (pump.blocked, pump.active);
        // What was written has its time; the goodbye needs no more than a moment.
        let saying_goodbye = blocked && pump.sending.is_empty() && !pump.unflushed;
        let patience = if saying_goodbye { self.write_timeout.min(farewell::LINGER_IDLE) } else { self.write_timeout };
        let Waits { phase, timer, turn, drain, .. } = self;
        let turn_ends = turn.filter(|_| pump.pipe.orders().begun.is_none());
        tokio::select! {
            biased;
            happened = poll_fn(|cx| pump.poll(cx)) => happened,
            () = timer.until(active + patience), if blocked => {
                if pump.active > active { Happened::Changed } else { Happened::Late }
            }
            () = until(turn_ends), if turn_ends.is_some() => {
                *turn = None;
                if pump.pipe.orders().begun.is_some() { Happened::Changed } else { Happened::NoThread }
            }
            began = draining(phase), if *drain == Drain::No => {
                let patience = began.map_or(Duration::ZERO, |began| began.patience);
                *drain = Drain::At(Instant::now() + patience, patience);
                Happened::Changed
            }
            () = until(drain.at()), if drain.at().is_some() => {
                if let Drain::At(_, patience) = *drain && pump.active + patience > Instant::now() {
                    *drain = Drain::At(pump.active + patience, patience);
                    return Happened::Changed;
                }
                *drain = Drain::Done;
                Happened::Drained
            }
        }
    }
}

impl Drain {
    fn at(self) -> Option<Instant> {
        if let Drain::At(at, _) = self { Some(at) } else { None }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
