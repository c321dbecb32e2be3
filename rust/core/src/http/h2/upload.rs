//! A request's body that its handler takes while it comes.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use tokio::sync::oneshot;

use super::read::{self, Unread};
use super::respond::Continue;
use crate::config::Config;
use crate::connection::Connection;
use crate::error::RequestError;
use crate::http::body::{Collected, Cut, Feeder};
use crate::http::pace::Pace;

/// No more than this, and one frame, is taken before the handler is called.
const ENOUGH: usize = 64 * 1024;

/// The rest of a body. The client's window opens as the handler takes what came.
pub(super) struct Upload {
    stream: RecvStream,
    /// What came of it.
    came: usize,
    /// A client that sends nothing before it is told to, which the handler's first question brings about.
    waiting: Option<Continue>,
}

impl Upload {
    /// Takes what is here already of a body; with the rest of it, where that is not all.
    pub(super) fn begin(
        mut stream: RecvStream,
        declared: Option<u64>,
        config: &Config,
    ) -> Result<(Bytes, Option<Self>), Unread> {
        let limit = config.max_request_read_bytes;
        if declared.is_some_and(|length| length > limit as u64) {
            tokio::spawn(read::discard(stream));
            return Err(read::too_large(limit).into());
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
        let rest = (!stream.is_end_stream()).then_some(here.len()).map(|came| Upload { stream, came, waiting: None });
        Ok((here.finish(), rest))
    }

    /// Leaves it to the handler when the client is told to send the body.
    pub(super) fn wait_to_be_asked(&mut self, waiting: Continue) {
        self.waiting = Some(waiting);
    }

    /// Hands it over as it comes, until it is whole, refused or broken off, or the exchange is `over`: then nobody wants the
    /// rest, and when the stream is dropped here h2 says so by RST_STREAM with NO_ERROR (RFC 9113 section 8.1).
    pub(super) async fn feed(mut self, feeder: Feeder, mut over: oneshot::Receiver<()>, connection: Arc<Connection>) {
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
            if !feeder.has_room() {
                tokio::select! {
                    biased;
                    _ = &mut over => return,
                    () = poll_fn(|cx| feeder.poll_wanted(false, cx)) => {}
                }
                // It was not the client that was waited for.
                pace = Pace::begin(Instant::now());
            }
            let data = tokio::select! {
                biased;
                _ = &mut over => return,
                data = self.stream.data() => data,
                () = tokio::time::sleep_until((pace.since() + config.body_timeout).into()) => {
                    return refuse(&feeder, &connection, &read::stalled());
                }
            };
            match data {
                Some(Ok(data)) => {
                    read::release(&mut self.stream, data.len());
                    pace.moved(data.len(), Instant::now());
                    self.came += data.len();
                    if self.came > config.max_request_read_bytes {
                        refuse(&feeder, &connection, &read::too_large(config.max_request_read_bytes));
                        return read::discard(self.stream).await;
                    }
                    feeder.push(data);
                }
                Some(Err(_)) => {
                    connection.service.metrics.requests_aborted.add();
                    return feeder.end(Err(Cut::Left));
                }
                // Trailers come after the last of it, and are dropped.
                None => break,
            }
        }
        feeder.end(Ok(()));
    }
}

/// Tells the handler that no more of it is read, and why.
fn refuse(feeder: &Feeder, connection: &Connection, error: &RequestError) {
    connection.refused(error);
    feeder.end(Err(Cut::Refused(error.clone())));
}
