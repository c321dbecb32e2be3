//! The stream under HTTP/2, which sees what h2 does not tell: since when the client takes nothing, how many frames it sends
//! for nothing, and which it does not finish.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::credit::Credit;
use super::frames::{CONTINUATION, DATA, Frame, HEADERS, Scan};
use crate::connection::PREFACE;
use crate::farewell::LINGER_IDLE;
use crate::locks::Mutex;
use crate::stream::Prefixed;
use crate::trace::{Frames, Trace};

/// How much is read before requests are taken up and other connections have a turn, in bytes of headers. h2 reads as long as
/// there is something, and a kilobyte of headers can become a hundred in memory, for each of 128 streams, and takes as much
/// work: 1 500 cookie crumbs a frame held a neighbour up for 37 ms, where there were many such kilobytes in a turn.
const A_TURN: usize = 2 * 1024;
/// What each frame counts for, whatever is in it: 128 of them are a turn. What a body brings is no work, so that an upload
/// in whole frames reads 2 MiB.
const A_FRAME: usize = 16;
/// The most that is read at once beyond the DATA that is known to come: what h2 has in its buffer it takes up before
/// anybody can stop it, and 8 KiB of crumbs are four turns.
const A_READ: usize = 1024;

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
    /// What is told of both directions, where somebody listens.
    traced: Option<(Box<Frames>, Box<Frames>)>,
    /// Bytes of responses that were written.
    data: u64,
    /// What was read in this turn.
    turn: usize,
}

impl Seen {
    fn new(now: Instant, trace: &Trace) -> Self {
        let traced = Frames::new(trace, "client", PREFACE.len()).zip(Frames::new(trace, "server", 0));
        Seen(Arc::new(Mutex::new(State {
            blocked: None,
            unfinished: None,
            incoming: Scan::new(PREFACE.len()),
            outgoing: Scan::new(0),
            credit: Credit::new(now),
            traced,
            data: 0,
            turn: 0,
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

    /// Begins another turn of reading. Whether the last one was broken off, and nobody will be woken for what is left.
    pub(super) fn next_turn(&self) -> bool {
        std::mem::take(&mut self.0.lock().turn) >= A_TURN
    }

    /// Whether nothing is to be read: for this turn, or any more.
    fn is_enough(&self) -> bool {
        let state = self.0.lock();
        state.turn >= A_TURN || state.credit.is_used_up()
    }

    /// How much may be read at once.
    fn most(&self) -> usize {
        self.0.lock().incoming.data_left() + A_READ
    }

    fn received(&self, bytes: &[u8]) {
        let now = Instant::now();
        let State { incoming, credit, unfinished, turn, traced, .. } = &mut *self.0.lock();
        if let Some((client, _)) = traced {
            client.feed(bytes);
        }
        let whole = incoming.feed(bytes, |frame| {
            credit.received(frame, now);
            *turn += A_FRAME;
            if matches!(frame.kind, HEADERS | CONTINUATION) {
                *turn += frame.length;
            }
        });
        *unfinished = match *unfinished {
            _ if !incoming.is_within() => None,
            Some(since) if !whole => Some(since),
            _ => Some(now),
        };
    }

    fn written<T>(&self, polled: &Poll<io::Result<T>>, bytes: impl FnOnce(&T, &mut dyn FnMut(&[u8]))) {
        let State { blocked, outgoing, credit, data, traced, .. } = &mut *self.0.lock();
        match polled {
            Poll::Pending => drop(blocked.get_or_insert_with(Instant::now)),
            Poll::Ready(done) => {
                *blocked = None;
                if let Ok(done) = done {
                    let mut sent = |frame: Frame| {
                        credit.sent(frame);
                        if frame.kind == DATA {
                            *data += frame.length as u64;
                        }
                    };
                    bytes(done, &mut |bytes| {
                        outgoing.feed(bytes, &mut sent);
                        if let Some((_, server)) = traced {
                            server.feed(bytes);
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
    /// There once this end has said its last word: until when the client's is waited for.
    farewell: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    pub(super) fn new(stream: Prefixed, now: Instant, trace: &Trace) -> (Self, Seen) {
        let seen = Seen::new(now, trace);
        (Watched { stream, seen: seen.clone(), farewell: None }, seen)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_enough() {
            // Nobody is woken: whoever polls looks at `is_flooded` and `next_turn` next.
            return Poll::Pending;
        }
        let most = self.seen.most().min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let bytes = part.filled();
        if !bytes.is_empty() {
            self.seen.received(bytes);
        }
        let read = bytes.len();
        buf.advance(read);
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.seen.written(&polled, |written, sent| sent(&buf[..*written]));
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.seen.written(&polled, |written, sent| {
            let mut left = *written;
            for buf in bufs {
                let taken = left.min(buf.len());
                sent(&buf[..taken]);
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
        self.seen.written(&flushed, |(), _| ());
        flushed
    }

    /// Done when the client has ended too, or after a moment. Closed before that, the connection would be reset by what the
    /// client still sends, as it does for windows, and what it has not read yet of a response would be gone.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Watched { stream, farewell, .. } = &mut *self;
        if farewell.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
        }
        let over = farewell.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_IDLE)));
        while over.as_mut().poll(cx).is_pending() {
            let mut space = [const { MaybeUninit::uninit() }; 4096];
            let mut unwanted = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut unwanted));
            if read.is_err() || unwanted.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::BytesMut;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::stream::{Kind, Socket, Stream};

    /// How much is read of so many frames until the turn is over.
    async fn a_turn(frame: &[u8], times: usize) -> (usize, bool) {
        let (mut client, server) = UnixStream::pair().unwrap();
        let sent = [PREFACE, &frame.repeat(times)].concat();
        let sending = tokio::spawn(async move {
            // An error means that the other end has read enough.
            let _ = client.write_all(&sent).await;
            client
        });
        let socket = Socket::new(Kind::Unix(server), Arc::default());
        let stream = Prefixed { read: BytesMut::new(), stream: Stream::Plain(socket) };
        let (mut watched, seen) = Watched::new(stream, Instant::now(), &Trace::default());
        let (mut space, mut read) = (vec![0; 64 * 1024], 0);
        let mut ended = false;
        while !seen.is_enough() && !ended {
            let mut buf = ReadBuf::new(&mut space);
            poll_fn(|cx| Pin::new(&mut watched).poll_read(cx, &mut buf)).await.unwrap();
            read += buf.filled().len();
            ended = buf.filled().is_empty() || read == PREFACE.len() + frame.len() * times;
        }
        sending.abort();
        (read, seen.next_turn())
    }

    #[tokio::test]
    async fn headers_and_small_frames_are_read_turn_by_turn_and_bodies_are_not() {
        let headers = [&[0, 0x10, 0, HEADERS, 4, 0, 0, 0, 1][..], &[0xa0; 4096]].concat();
        let (read, broken_off) = a_turn(&headers, 100).await;
        assert!(read <= A_TURN + A_READ && broken_off, "{read}");
        let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
        let (read, broken_off) = a_turn(&ping, 700).await;
        assert!(read <= A_TURN / A_FRAME * ping.len() + A_READ && broken_off, "{read}");
        let body = [&[0, 0x40, 0, DATA, 0, 0, 0, 0, 1][..], &[0; 16_384]].concat();
        let (read, broken_off) = a_turn(&body, 100).await;
        assert!(read > 1_600_000 && !broken_off, "{read}");
    }
}
