//! A stream that has become a WebSocket (RFC 8441).

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};

use super::exchange::{Open, PIECE};
use crate::metrics::Close;
use crate::record::Outcome;
use crate::websocket::{self, Upgrade, Wire};

/// Its bytes in both directions. While it is there the stream counts as one whose answer is being made: nobody is waited
/// for, but by the WebSocket itself.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) sending: SendStream<Bytes>,
    pub(super) receiving: Box<RecvStream>,
    pub(super) open: Open,
    /// Everything was said. A reset would take back what h2 has not sent yet.
    pub(super) ended: bool,
}

impl Tunnel {
    pub(super) async fn run(mut self: Box<Self>, upgrade: Upgrade) {
        let connection = self.open.shared.connection.clone();
        let why = websocket::serve(&mut *self, &connection, upgrade, BytesMut::new()).await;
        match why {
            Close::Aborted => {}
            Close::WriteTimeout => self.open.record.outcome = Some(Outcome::WriteTimeout),
            _ => self.open.record.is_whole(),
        }
        if !self.ended {
            self.sending.send_reset(Reason::CANCEL);
        }
    }
}

impl Wire for Tunnel {
    fn request(&self) -> u32 {
        self.open.record.stream
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(&[u8])) -> Poll<io::Result<usize>> {
        loop {
            return Poll::Ready(match ready!(self.receiving.poll_data(cx)) {
                // The client pays for these by `credit`.
                Some(Ok(data)) if data.is_empty() => continue,
                Some(Ok(data)) => {
                    take(&data);
                    self.open.record.received += data.len() as u64;
                    // An error would mean that more is given back than was taken.
                    let _ = self.receiving.flow_control().release_capacity(data.len());
                    Ok(data.len())
                }
                Some(Err(error)) => Err(io::Error::other(error)),
                None => Ok(0),
            });
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        // One byte, though more is ready: a window that is reserved for a stream which waits is lost to the others.
        self.sending.reserve_capacity(1);
        while self.sending.capacity() == 0 {
            match ready!(self.sending.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let length = bytes.len().min(PIECE);
        self.sending.send_data(bytes.split_to(length), false).map_err(io::Error::other)?;
        self.open.record.sent += length as u64;
        self.open.shared.activity.spoke();
        Poll::Ready(Ok(length))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shut_down(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        Poll::Ready(self.sending.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
