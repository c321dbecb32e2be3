//! Responses on their way to a client that takes its time.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Version};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::encode::{self, Persist};
use super::serve::Io;
use crate::http::body::Broken;
use crate::http::pace::Pace;
use crate::http::{Body, Pieces, Response};
use crate::metrics::Close;
use crate::record::Outcome as End;
use crate::trace::Event as Step;

/// Bodies up to this size are copied behind their head, so that both leave in one write.
const SMALL_BODY: usize = 16 * 1024;
/// Answers to pipelined requests gather up to this size before they are written.
const GATHER: usize = 64 * 1024;

impl Io {
    /// Writes a response, or gathers it where another request is waiting already.
    pub(super) async fn write(
        &mut self,
        mut response: Response,
        method: &Method,
        version: Version,
        persist: Persist,
    ) -> Result<(), Close> {
        self.connection.service.metrics.response(response.status);
        if let Some(record) = &mut self.record {
            record.mark(&mut response, &self.connection.service.config);
            record.status = Some(response.status);
        }
        self.trace().tell(|| Step::Response { status: response.status.as_u16(), length: response.body.length() });
        let bodiless = response.is_bodiless(method);
        let in_chunks = response.body.length().is_none() || response.body.has_trailers();
        let chunked = !bodiless && in_chunks && version != Version::HTTP_10;
        encode::head(&mut self.out, &response, method, persist, chunked);
        match response.body {
            _ if bodiless => {}
            Body::Whole(body) => self.add(&body).await?,
            // Boxed, so that a connection has no room for it while it has no use for it.
            Body::Pieces(pieces) => Box::pin(self.write_pieces(pieces, chunked)).await?,
            Body::File(file) => Box::pin(self.write_pieces(file.pieces(), chunked)).await?,
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
            self.record.iter_mut().for_each(|record| record.sent += body.len() as u64);
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
                self.broken_off(End::Handler);
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
            encode::last_chunk(&mut self.out, &pieces.trailers());
        }
        Ok(())
    }

    /// Why the response is not whole.
    pub(super) fn broken_off(&mut self, why: End) {
        self.record.iter_mut().for_each(|record| record.outcome = Some(why));
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

    pub(super) async fn flush(&mut self) -> Result<(), Close> {
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
        // Begun where the client has to be waited for, which it mostly has not: the clock is read after a write, once.
        let mut pace = None;
        while !(head.is_empty() && body.is_empty()) {
            let stream = &mut self.stream;
            let write = poll_fn(|cx| {
                let both = [IoSlice::new(head), IoSlice::new(body)];
                let left = &both[usize::from(head.is_empty())..2 - usize::from(body.is_empty())];
                Pin::new(&mut *stream).poll_write_vectored(cx, left)
            });
            let too_slow = async {
                let since = pace.get_or_insert_with(|| Pace::begin(Instant::now())).since();
                self.timer.until(since + patience).await;
            };
            tokio::select! {
                biased;
                sent = write => match sent {
                    Ok(0) | Err(_) => return Err(Close::Aborted),
                    Ok(n) => {
                        let now = Instant::now();
                        pace.get_or_insert(Pace::begin(now)).moved(n, now);
                        let of_head = n.min(head.len());
                        if let Some(record) = &mut self.record {
                            record.begins_response(now);
                            record.sent += (n - of_head) as u64;
                        }
                        head = &head[of_head..];
                        body = &body[n - of_head..];
                    }
                },
                () = too_slow => return Err(self.takes_nothing()),
            }
        }
        tokio::select! {
            biased;
            flushed = self.stream.flush() => flushed.map_err(|_| Close::Aborted),
            () = async { self.timer.until(Instant::now() + patience).await } => Err(self.takes_nothing()),
        }
    }

    /// The client, for too long.
    fn takes_nothing(&mut self) -> Close {
        self.broken_off(End::WriteTimeout);
        self.connection.trace.tell(|| Step::TimedOut { setting: "write_timeout" });
        Close::WriteTimeout
    }
}
