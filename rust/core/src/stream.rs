//! One type for every byte stream that is served: TCP or Unix, plain or TLS.

use std::io::{self, BufRead};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::metrics::Metrics;
use crate::tls::Flight;

/// A connected socket, which counts what goes through it.
#[derive(Debug)]
pub(crate) struct Socket {
    kind: Kind,
    metrics: Arc<Metrics>,
}

/// What it is made of.
#[derive(Debug)]
pub(crate) enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What HTTP is spoken over.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Flight>>),
}

/// What rustls encrypts before it is written, at most: three whole records, which fit into one segment of 64 KiB, the
/// most that the kernel and a network card take at once. rustls' own limit, four records, does not fit by 88 bytes that
/// then go alone: over loopback a response of 1 MiB takes 485 µs with it, 350 with two records, 310 with three and
/// 320 to 420 with more.
const WRITE_AT_ONCE: usize = 3 * 16 * 1024;

impl Stream {
    /// TLS after its handshake.
    pub(crate) fn tls(mut stream: TlsStream<Flight>) -> Self {
        stream.get_mut().1.set_buffer_limit(Some(WRITE_AT_ONCE));
        Stream::Tls(Box::new(stream))
    }

    /// Waits until something can be read and hands it over, maybe in several pieces; an empty one is the end.
    pub(crate) async fn read_some(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            let read = match std::task::ready!(self.poll_read_some(cx, &mut take)) {
                // TLS that ended without close_notify. HTTP's own framing tells whether anything was cut off by it.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                read => read?,
            };
            if read == 0 {
                take(&[]);
            }
            Poll::Ready(Ok(read))
        })
        .await
    }

    /// The same, polled; the end is 0, and for TLS that ended without close_notify the error `UnexpectedEof`.
    pub(crate) fn poll_read_some(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(socket) => poll_socket(socket, cx, take),
            Stream::Tls(tls) => poll_tls(tls, cx, take),
        }
    }

    /// Whether the kernel has something of the client's, or its end, that this end has not read.
    pub(crate) fn has_unread(&self) -> bool {
        let socket = match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => tls.get_ref().0.socket(),
        };
        let mut byte = [MaybeUninit::uninit()];
        // Not blocking: where there is nothing it is an error.
        match &socket.kind {
            Kind::Tcp(socket) => SockRef::from(socket).peek(&mut byte),
            Kind::Unix(socket) => SockRef::from(socket).peek(&mut byte),
        }
        .is_ok()
    }
}

fn poll_socket(socket: &mut Socket, cx: &mut Context<'_>, take: &mut impl FnMut(&[u8])) -> Poll<io::Result<usize>> {
    // On the stack while polled and nowhere while waiting: an idle connection holds no read buffer.
    let mut space = [const { std::mem::MaybeUninit::uninit() }; 16 * 1024];
    let mut buffer = ReadBuf::uninit(&mut space);
    std::task::ready!(Pin::new(socket).poll_read(cx, &mut buffer))?;
    let filled = buffer.filled();
    if !filled.is_empty() {
        take(filled);
    }
    Poll::Ready(Ok(filled.len()))
}

/// What rustls has decrypted is taken from where it stands, and then there is no asking for more: a read into a buffer
/// copies it, and asks as long as there is room.
fn poll_tls(
    tls: &mut TlsStream<Flight>,
    cx: &mut Context<'_>,
    take: &mut impl FnMut(&[u8]),
) -> Poll<io::Result<usize>> {
    std::task::ready!(Pin::new(&mut *tls).poll_fill_buf(cx))?;
    let mut reader = tls.get_mut().1.reader();
    let mut read = 0;
    // An error is either that there is no more, or what the next call will tell.
    while let Ok(piece) = reader.fill_buf()
        && !piece.is_empty()
    {
        take(piece);
        let length = piece.len();
        reader.consume(length);
        read += length;
    }
    Poll::Ready(Ok(read))
}

macro_rules! delegate {
    ($self:expr, $inner:ident => $call:expr, $($variant:path),+) => {
        match $self { $($variant($inner) => $call,)+ }
    };
}

impl Socket {
    pub(crate) fn new(kind: Kind, metrics: Arc<Metrics>) -> Self {
        Socket { kind, metrics }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(length)) = written {
            self.metrics.network_sent.add_many(length as u64);
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = delegate!(&mut self.kind, io => Pin::new(io).poll_read(cx, buf), Kind::Tcp, Kind::Unix);
        self.metrics.network_received.add_many((buf.filled().len() - before) as u64);
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = delegate!(&mut self.kind, io => Pin::new(io).poll_write(cx, buf), Kind::Tcp, Kind::Unix);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written =
            delegate!(&mut self.kind, io => Pin::new(io).poll_write_vectored(cx, bufs), Kind::Tcp, Kind::Unix);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(&mut self.kind, io => Pin::new(io).poll_flush(cx), Kind::Tcp, Kind::Unix)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(&mut self.kind, io => Pin::new(io).poll_shutdown(cx), Kind::Tcp, Kind::Unix)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf), Stream::Plain, Stream::Tls)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf), Stream::Plain, Stream::Tls)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs), Stream::Plain, Stream::Tls)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), io => Pin::new(io).poll_flush(cx), Stream::Plain, Stream::Tls)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx), Stream::Plain, Stream::Tls)
    }
}

/// A stream of which some bytes were read already, to tell the protocol by them.
#[derive(Debug)]
pub(crate) struct Prefixed {
    pub(crate) read: BytesMut,
    pub(crate) stream: Stream,
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let take = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..take]);
        self.read.advance(take);
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
