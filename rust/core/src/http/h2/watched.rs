//! The stream under HTTP/2, which sees what h2 does not tell: since when the client takes nothing, how many frames it sends
//! for nothing, and which it does not finish.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::credit::Credit;
use super::frames::{CONTINUATION, DATA, Frame, HEADERS, Scan};
use crate::connection::PREFACE;
use crate::locks::Mutex;
use crate::stream::Prefixed;

/// How much of headers is read before requests are taken up. h2 reads as long as there is something, and a kilobyte of
/// headers can become a hundred in memory, for each of 128 streams.
const BLOCKS_AT_ONCE: usize = 4 * 1024;

/// What was seen.
#[derive(Debug, Clone)]
pub(super) struct Seen(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Since when a write waits for the client, where one does.
    blocked: Option<Instant>,
    /// Since when a frame, or a block of headers, is not whole.
    unfinished: Option<Instant>,
    incoming: Scan,
    outgoing: Scan,
    credit: Credit,
    /// Bytes of responses that were written.
    data: u64,
    /// Bytes of headers that were read in this turn.
    blocks: usize,
}

impl Seen {
    fn new(now: Instant) -> Self {
        Seen(Arc::new(Mutex::new(State {
            blocked: None,
            unfinished: None,
            incoming: Scan::new(PREFACE.len()),
            outgoing: Scan::new(0),
            credit: Credit::new(now),
            data: 0,
            blocks: 0,
        })))
    }

    /// Since when the client takes nothing of what was written.
    pub(super) fn blocked(&self) -> Option<Instant> {
        self.0.lock().blocked
    }

    /// Since when the client owes the rest of a frame that is no DATA, or of a block of headers.
    pub(super) fn unfinished(&self) -> Option<Instant> {
        self.0.lock().unfinished
    }

    /// How many bytes of responses have been written.
    pub(super) fn data(&self) -> u64 {
        self.0.lock().data
    }

    /// A request was in order.
    pub(super) fn asked(&self) {
        self.0.lock().credit.asked();
    }

    /// A frame of a WebSocket was sent.
    pub(super) fn spoke(&self) {
        self.0.lock().credit.spoke();
    }

    /// Whether the client has sent more for nothing than it may.
    pub(super) fn is_flooded(&self) -> bool {
        self.0.lock().credit.is_used_up()
    }

    /// Begins another turn of reading. Whether the last one was broken off.
    pub(super) fn next_turn(&self) -> bool {
        std::mem::take(&mut self.0.lock().blocks) >= BLOCKS_AT_ONCE
    }

    /// Whether nothing is to be read: for this turn, or any more.
    fn is_enough(&self) -> bool {
        let state = self.0.lock();
        state.blocks >= BLOCKS_AT_ONCE || state.credit.is_used_up()
    }

    fn received(&self, bytes: &[u8]) {
        let now = Instant::now();
        let State { incoming, credit, unfinished, blocks, .. } = &mut *self.0.lock();
        let whole = incoming.feed(bytes, |frame| {
            credit.received(frame, now);
            if matches!(frame.kind, HEADERS | CONTINUATION) {
                *blocks += frame.length;
            }
        });
        *unfinished = match *unfinished {
            _ if !incoming.is_within() => None,
            Some(since) if !whole => Some(since),
            _ => Some(now),
        };
    }

    fn written<T>(&self, polled: &Poll<io::Result<T>>, bytes: impl FnOnce(&mut Scan, &T, &mut dyn FnMut(Frame))) {
        let State { blocked, outgoing, credit, data, .. } = &mut *self.0.lock();
        match polled {
            Poll::Pending => drop(blocked.get_or_insert_with(Instant::now)),
            Poll::Ready(done) => {
                *blocked = None;
                if let Ok(done) = done {
                    bytes(outgoing, done, &mut |frame| {
                        credit.sent(frame);
                        if frame.kind == DATA {
                            *data += frame.length as u64;
                        }
                    });
                }
            }
        }
    }
}

/// A stream that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Prefixed,
    seen: Seen,
}

impl Watched {
    pub(super) fn new(stream: Prefixed, now: Instant) -> (Self, Seen) {
        let seen = Seen::new(now);
        (Watched { stream, seen: seen.clone() }, seen)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_enough() {
            // Nobody is woken: whoever polls looks at `is_flooded` and `next_turn` next.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = &buf.filled()[before..];
        if !bytes.is_empty() {
            self.seen.received(bytes);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.seen.written(&polled, |scan, written, found| {
            scan.feed(&buf[..*written], found);
        });
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.seen.written(&polled, |scan, written, found| {
            let mut left = *written;
            for buf in bufs {
                let taken = left.min(buf.len());
                scan.feed(&buf[..taken], &mut *found);
                left -= taken;
            }
        });
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.seen.written(&flushed, |_, (), _| ());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
