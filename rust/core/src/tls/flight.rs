//! The socket beneath TLS: what a handshake writes leaves in flights, its tickets with the first answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Socket;

/// A socket whose writes may be held back. rustls hands over the ticket as soon as the client's Finished is there; sent at
/// once it costs a packet and wakes the client twice: 5 to 7 µs of the 100 to 130 that a new connection takes.
#[derive(Debug)]
pub(crate) struct Flight {
    socket: Socket,
    /// Written and not sent yet. Without room once it is sent.
    held: Vec<u8>,
    until: Until,
}

/// How long writes are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Not at all.
    Now,
    /// Until reading has to wait for the other end, which may be waiting for them.
    Waiting,
    /// Until something else is written, that carries them.
    Carried,
}

/// How much of a write is copied behind what is held: a head and a small body.
const CARRY: usize = 18 * 1024;

impl Flight {
    pub(super) fn new(socket: Socket) -> Self {
        Flight { socket, held: Vec::new(), until: Until::Now }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// From here on each flight leaves as one.
    pub(super) fn gather(&mut self) {
        self.until = Until::Waiting;
    }

    /// The end of [`Flight::gather`]. What is held leaves with the next write where one is `expected`, as soon as it is
    /// flushed where none is.
    pub(super) fn settle(&mut self, expected: bool) {
        self.until = if expected && !self.held.is_empty() { Until::Carried } else { Until::Now };
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        let end = loop {
            if sent == self.held.len() {
                self.held = Vec::new();
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.socket).poll_write(cx, &self.held[sent..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.held.drain(..sent);
        end
    }
}

impl AsyncRead for Flight {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_pending() && self.until == Until::Waiting && !self.held.is_empty() {
            // Where it cannot be sent at once, the task is woken when it can.
            if let Poll::Ready(sent) = self.poll_send(cx) {
                sent?;
            }
        }
        read
    }
}

impl AsyncWrite for Flight {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let room = match self.until {
            Until::Now => {
                if !self.held.is_empty() {
                    ready!(self.poll_send(cx))?;
                }
                return Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
            }
            Until::Waiting => usize::MAX,
            Until::Carried => CARRY,
        };
        let before = self.held.len();
        for buf in bufs {
            let left = room - (self.held.len() - before);
            self.held.extend_from_slice(&buf[..buf.len().min(left)]);
        }
        let taken = self.held.len() - before;
        if self.until == Until::Carried {
            self.until = Until::Now;
            // Taken is taken: what the socket has no room for leaves before the next write, or when flushed.
            if let Poll::Ready(sent) = self.poll_send(cx) {
                sent?;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.until != Until::Now {
            return Poll::Ready(Ok(()));
        }
        if !self.held.is_empty() {
            ready!(self.poll_send(cx))?;
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            ready!(self.poll_send(cx))?;
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
