//! What a socket's task needs of a connection, or of a stream of HTTP/2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::record::Record;
use crate::stream::Stream;

/// Bytes in both directions.
pub(crate) trait Wire: Send {
    /// The number of the request on its connection.
    fn request(&self) -> u32;

    /// Hands over what has come, maybe in several pieces; 0 is the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(&[u8])) -> Poll<io::Result<usize>>;

    /// Sends the beginning of `bytes`, and takes it off them.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>>;

    /// Sends what is still held back.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says that nothing more comes.
    fn poll_shut_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A connection that a request has become, in whose record its bytes are counted.
pub(crate) struct Counted<'a> {
    pub(crate) stream: &'a mut Stream,
    pub(crate) record: &'a mut Option<Record>,
}

impl Wire for Counted<'_> {
    fn request(&self) -> u32 {
        self.record.as_ref().map_or(0, |record| record.stream)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, mut take: &mut dyn FnMut(&[u8])) -> Poll<io::Result<usize>> {
        let polled = self.stream.poll_read_some(cx, &mut take);
        if let (Poll::Ready(Ok(received)), Some(record)) = (&polled, &mut *self.record) {
            record.received += *received as u64;
        }
        match polled {
            // TLS that ended without close_notify. A close frame tells whether anything was cut off by it.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            polled => polled,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        let sent = std::task::ready!(Pin::new(&mut *self.stream).poll_write(cx, bytes))?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        bytes.advance(sent);
        self.record.iter_mut().for_each(|record| record.sent += sent as u64);
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut *self.stream), cx)
    }

    fn poll_shut_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut *self.stream), cx)
    }
}
