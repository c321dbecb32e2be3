//! A request's body that its handler takes while it comes.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderValue;
use tokio::sync::oneshot;

use super::read::{self, Coming, Unread};
use super::respond::Continue;
use crate::config::Config;
use crate::connection::Connection;
use crate::error::RequestError;
use crate::http::body::{Collected, Cut, Feeder};
use crate::http::coding::{Decoding, Step, TURN};
use crate::http::pace::Pace;
use crate::trace::Event;

/// No more than this, and one frame, is taken before the handler is called.
const ENOUGH: usize = 64 * 1024;

/// The rest of a body. The client's window opens as the handler takes what came.
pub(super) struct Upload {
    stream: RecvStream,
    /// What came of it.
    came: usize,
    /// It has content codings that are to be undone.
    decoding: Option<Box<Decoding>>,
    /// A client that sends nothing before it is told to, which the handler's first question brings about.
    waiting: Option<Continue>,
    /// What its request is called.
    id: Option<HeaderValue>,
}

impl Upload {
    /// Takes what is here already of a body; with the rest of it, where that is not all. What is to be decoded is all rest: it
    /// can be much, and is for the handler to take.
    pub(super) fn begin(body: Coming, config: &Config) -> Result<(Bytes, Option<Self>), Unread> {
        let Coming { mut stream, declared, decoding } = body;
        let limit = config.max_request_read_bytes;
        if declared.is_some_and(|length| length > limit as u64) {
            tokio::spawn(read::discard(stream));
            return Err(read::too_large(limit).into());
        }
        if decoding.is_some() {
            return Ok((Bytes::new(), Some(Upload { stream, came: 0, decoding, waiting: None, id: None })));
        }
        let mut here = Collected::default();
        let mut cx = Context::from_waker(Waker::noop());
        while !stream.is_end_stream() && here.len() <= ENOUGH {
            match stream.poll_data(&mut cx) {
                Poll::Ready(Some(Ok(data))) => {
                    read::release(&mut stream, data.len());
                    if here.len() + data.len() > limit {
                        tokio::spawn(read::discard(stream));
                        return Err(read::too_large(limit).into());
                    }
                    here.push(data);
                }
                Poll::Ready(Some(Err(_))) => return Err(Unread::BrokenOff),
                Poll::Ready(None) => return Ok((here.finish(), None)),
                Poll::Pending => break,
            }
        }
        let rest = (!stream.is_end_stream()).then_some(here.len()).map(|came| Upload {
            stream,
            came,
            decoding: None,
            waiting: None,
            id: None,
        });
        Ok((here.finish(), rest))
    }

    /// Leaves it to the handler when the client is told to send the body.
    pub(super) fn wait_to_be_asked(&mut self, waiting: Continue) {
        self.waiting = Some(waiting);
    }

    /// By what name its request is told of, where more of it is refused.
    pub(super) fn belong_to(&mut self, id: Option<HeaderValue>) {
        self.id = id;
    }

    /// Hands it over as it comes, until it is whole, refused or broken off, or the exchange is `over`: then nobody wants the
    /// rest, and when the stream is dropped here h2 says so by RST_STREAM with NO_ERROR (RFC 9113 section 8.1).
    pub(super) async fn feed(
        mut self,
        feeder: Feeder,
        mut over: oneshot::Receiver<()>,
        came: Arc<AtomicU64>,
        connection: Arc<Connection>,
    ) {
        came.store(self.came as u64, Relaxed);
        let config = &connection.service.config;
        if let Some(waiting) = self.waiting.take() {
            tokio::select! {
                biased;
                _ = &mut over => return,
                () = poll_fn(|cx| feeder.poll_wanted(true, cx)) => waiting.say(),
            }
        }
        let mut pace = Pace::begin(Instant::now());
        while !self.stream.is_end_stream() {
            match self.make_room(&feeder, &mut over).await {
                Ok(false) => {}
                // It was not the client that was waited for.
                Ok(true) => pace = Pace::begin(Instant::now()),
                Err(Unwanted::Over) => return,
                Err(Unwanted::Refused(error)) => {
                    self.refuse(&feeder, &connection, &error);
                    return read::discard(self.stream).await;
                }
            }
            let data = tokio::select! {
                biased;
                _ = &mut over => return,
                data = self.stream.data() => data,
                () = tokio::time::sleep_until((pace.since() + config.body_timeout).into()) => {
                    return self.refuse(&feeder, &connection, &read::stalled());
                }
            };
            match data {
                Some(Ok(data)) => {
                    read::release(&mut self.stream, data.len());
                    pace.moved(data.len(), Instant::now());
                    self.came += data.len();
                    came.store(self.came as u64, Relaxed);
                    if self.came > config.max_request_read_bytes {
                        self.refuse(&feeder, &connection, &read::too_large(config.max_request_read_bytes));
                        return read::discard(self.stream).await;
                    }
                    match &mut self.decoding {
                        None => feeder.push(data),
                        Some(decoding) => decoding.push(data),
                    }
                }
                Some(Err(_)) => {
                    connection.service.metrics.requests_aborted.add();
                    return feeder.end(Err(Cut::Left));
                }
                // Trailers come after the last of it, and are dropped.
                None => break,
            }
        }
        if let Some(decoding) = &mut self.decoding {
            decoding.end();
            match self.make_room(&feeder, &mut over).await {
                Ok(_) => {}
                Err(Unwanted::Over) => return,
                Err(Unwanted::Refused(error)) => return self.refuse(&feeder, &connection, &error),
            }
        }
        let bytes = self.came as u64;
        connection.trace.of(self.stream.stream_id().into()).tell(|| Event::BodyEnded { bytes });
        feeder.end(Ok(()));
    }

    /// Tells the handler that no more of it is read, and why.
    fn refuse(&self, feeder: &Feeder, connection: &Connection, error: &RequestError) {
        connection.refused(error, self.id.as_ref());
        connection.trace.of(self.stream.stream_id().into()).refused(error);
        feeder.end(Err(Cut::Refused(error.clone())));
    }

    /// Waits until the handler has taken what came, as far as more can follow, and decodes that meanwhile. Whether there was
    /// anything to wait for.
    async fn make_room(&mut self, feeder: &Feeder, over: &mut oneshot::Receiver<()>) -> Result<bool, Unwanted> {
        let (mut waited, mut steps) = (false, 0);
        loop {
            if !feeder.has_room() {
                waited = true;
                tokio::select! {
                    biased;
                    _ = &mut *over => return Err(Unwanted::Over),
                    () = poll_fn(|cx| feeder.poll_wanted(false, cx)) => {}
                }
            }
            let Some(decoding) = &mut self.decoding else { return Ok(waited) };
            match decoding.step().map_err(Unwanted::Refused)? {
                Step::Data(data) => feeder.push(data),
                Step::More => {}
                Step::Hungry | Step::Whole => return Ok(waited),
            }
            steps += 1;
            if steps % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Why nothing more is handed over.
enum Unwanted {
    /// The exchange is.
    Over,
    Refused(RequestError),
}
