//! The stream under HTTP/2, which knows since when its client takes nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::stream::Prefixed;

/// Since when a write waits for the client, where one does.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocked(Arc<Mutex<Option<Instant>>>);

impl Blocked {
    pub(super) fn since(&self) -> Option<Instant> {
        *self.0.lock()
    }

    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        let mut since = self.0.lock();
        match polled {
            Poll::Pending => drop(since.get_or_insert_with(Instant::now)),
            Poll::Ready(_) => *since = None,
        }
        polled
    }
}

/// A stream whose writes are watched: h2 takes small answers whole, so what became of them is only seen here.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Prefixed,
    blocked: Blocked,
}

impl Watched {
    pub(super) fn new(stream: Prefixed) -> (Self, Blocked) {
        let blocked = Blocked::default();
        (Watched { stream, blocked: blocked.clone() }, blocked)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.blocked.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.blocked.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.blocked.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
