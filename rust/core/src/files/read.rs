//! A file as a body. What the machine has in memory is read at once; what it has to fetch is read on a thread that may wait.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::OpenFile;
use super::buffers::{Buffer, SIZE};
use crate::http::body::{Broken, Source};
use crate::http::{Body, Pieces};

/// Files up to this length are sent with their head where the machine has them in memory.
const SMALL: u64 = SIZE as u64;

/// The body that a part of a file is.
pub(super) fn body(file: &OpenFile, range: Range<u64>) -> Body {
    let length = range.end - range.start;
    if length == 0 {
        return Body::default();
    }
    if length <= SMALL
        && let Ok(Some(piece)) = read_at_once(&file.file, &range)
        && piece.len() as u64 == length
    {
        return Body::Whole(piece);
    }
    Body::Pieces(pieces(file, range))
}

/// The same piece by piece, however short.
pub(super) fn pieces(file: &OpenFile, range: Range<u64>) -> Pieces {
    Pieces::new(Some(range.end - range.start), Reading::new(file, range))
}

/// The body that several parts of a file are, each behind some bytes of its own, and `end` behind the last.
pub(super) fn body_of_parts(file: &OpenFile, parts: Vec<(Bytes, Range<u64>)>, end: Bytes) -> Body {
    let part = |(head, range): &(Bytes, Range<u64>)| head.len() as u64 + (range.end - range.start);
    let length = parts.iter().map(part).sum::<u64>() + end.len() as u64;
    let parts = Parts { reading: Reading::new(file, 0..0), parts: parts.into_iter(), end: Some(end) };
    Body::Pieces(Pieces::new(Some(length), parts))
}

/// Part of a file that is being sent.
struct Reading {
    file: Arc<std::fs::File>,
    left: Range<u64>,
    waiting: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reading {
    fn new(file: &OpenFile, left: Range<u64>) -> Self {
        Reading { file: file.file.clone(), left, waiting: None }
    }

    /// What was read. A file that ends before it did when its length was sent is broken off, as one that cannot be read.
    fn take(&mut self, read: io::Result<Bytes>) -> Option<Result<Bytes, Broken>> {
        match read {
            Ok(piece) if !piece.is_empty() => {
                self.left.start += piece.len() as u64;
                Some(Ok(piece))
            }
            Ok(_) | Err(_) => {
                self.left.start = self.left.end;
                Some(Err(Broken))
            }
        }
    }
}

impl Source for Reading {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(waiting) = &mut self.waiting {
            let read = std::task::ready!(Pin::new(waiting).poll(cx));
            self.waiting = None;
            return Poll::Ready(self.take(read.unwrap_or_else(|error| Err(io::Error::other(error)))));
        }
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        match read_at_once(&self.file, &self.left).transpose() {
            Some(read) => Poll::Ready(self.take(read)),
            None => {
                let (file, left) = (self.file.clone(), self.left.clone());
                // Without an event loop there is nobody to be kept waiting.
                let Ok(handle) = Handle::try_current() else {
                    return Poll::Ready(self.take(read_waiting(&file, &left)));
                };
                self.waiting = Some(handle.spawn_blocking(move || read_waiting(&file, &left)));
                self.poll_piece(cx)
            }
        }
    }

    fn is_settled(&self) -> bool {
        true
    }
}

/// Several parts of a file, with something before each.
struct Parts {
    reading: Reading,
    parts: std::vec::IntoIter<(Bytes, Range<u64>)>,
    end: Option<Bytes>,
}

impl Source for Parts {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let piece = std::task::ready!(self.reading.poll_piece(cx));
        if piece.is_some() {
            return Poll::Ready(piece);
        }
        Poll::Ready(match self.parts.next() {
            Some((head, range)) => {
                self.reading.left = range;
                Some(Ok(head))
            }
            None => self.end.take().map(Ok),
        })
    }

    fn is_settled(&self) -> bool {
        true
    }
}

fn wanted(left: &Range<u64>) -> usize {
    usize::try_from(left.end - left.start).map_or(SIZE, |left| left.min(SIZE))
}

/// What the machine has in memory; none where it would have to wait, or cannot say.
#[cfg(target_os = "linux")]
fn read_at_once(file: &std::fs::File, left: &Range<u64>) -> io::Result<Option<Bytes>> {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut buffer = Buffer::take();
    let space = &mut buffer.space()[..wanted(left)];
    loop {
        let read = preadv2(file, &mut [io::IoSliceMut::new(space)], left.start, ReadWriteFlags::NOWAIT);
        return match read {
            Ok(length) => Ok(Some(buffer.filled(length))),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
}

#[cfg(not(target_os = "linux"))]
fn read_at_once(_: &std::fs::File, _: &Range<u64>) -> io::Result<Option<Bytes>> {
    Ok(None)
}

/// On a thread that may wait.
fn read_waiting(file: &std::fs::File, left: &Range<u64>) -> io::Result<Bytes> {
    let mut buffer = Buffer::take();
    loop {
        let space = &mut buffer.space()[..wanted(left)];
        return match rustix::io::pread(file, space, left.start) {
            Ok(length) => Ok(buffer.filled(length)),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}
