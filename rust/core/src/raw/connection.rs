//! The callback's end of a connection.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use super::by_hand::ByHand;
use super::error::StreamError;
use super::operation::{Operation, What};
use super::pipe::{Inbound, MESSAGE_HEAD, Pipe};
use crate::config::Config;
use crate::connection::ConnectionInfo;
use crate::http::Response;
use crate::locks::Mutex;

/// A connection whose bytes are read and written by a callback. It ends when this is closed or dropped: what was written
/// is sent, then the client is told that nothing more comes.
///
/// Reads and writes may go on at the same time, on different threads.
pub struct Connection {
    pub(super) pipe: Arc<Pipe>,
    pub(super) connection: Arc<crate::connection::Connection>,
    pub(super) by_hand: Mutex<ByHand>,
}

impl Connection {
    pub(crate) fn new(pipe: Arc<Pipe>, connection: Arc<crate::connection::Connection>) -> Self {
        Connection { pipe, connection, by_hand: Mutex::default() }
    }

    /// Who is connected, and how.
    pub fn info(&self) -> &Arc<ConnectionInfo> {
        &self.connection.info
    }

    pub(super) fn config(&self) -> &Config {
        &self.connection.service.config
    }

    /// Notes that the callback begins, and where it runs, for those who want to know; false where it need not, because the connection is gone.
    pub fn begin(&self, place: &'static str) -> bool {
        self.pipe.order(|orders| orders.begun = Some(place));
        !self.pipe.has_failed() && !self.pipe.orders().closed
    }

    /// Counts that the callback raised.
    pub fn failed(&self) {
        self.connection.service.metrics.handler_failures.add();
    }

    // ---- reading

    /// Reads up to so many bytes, as soon as there are some; none at the end.
    pub fn read(self: &Arc<Self>, most: usize, timeout: Timeout) -> Operation {
        self.reading(Want::UpTo(most), timeout)
    }

    /// Reads to the end of the client's side; more than `max_request_read_bytes` is an error.
    pub fn read_to_end(self: &Arc<Self>, timeout: Timeout) -> Operation {
        self.reading(Want::All, timeout)
    }

    /// Reads so many bytes and no fewer; none at the end. More than `max_request_read_bytes` is an error.
    pub fn read_exactly(self: &Arc<Self>, length: usize, timeout: Timeout) -> Operation {
        self.reading(Want::Exactly(length), timeout)
    }

    /// Reads to the next `separator`, which is given too; none at the end. It has to come within so many bytes.
    pub fn read_until(self: &Arc<Self>, separator: Bytes, most: usize, timeout: Timeout) -> Operation {
        self.reading(Want::Until { separator, most, searched: 0 }, timeout)
    }

    fn reading(self: &Arc<Self>, want: Want, timeout: Timeout) -> Operation {
        Operation::new(self.clone(), What::Read(want), timeout)
    }

    pub(super) fn time(&self, timeout: Timeout) -> Option<Duration> {
        match timeout {
            Timeout::Default => self.config().stream_timeout,
            Timeout::Is(timeout) => timeout,
        }
    }

    pub(super) fn poll_read(&self, cx: &mut Context<'_>, want: &mut Want) -> Poll<Result<Bytes, StreamError>> {
        let unread = {
            let mut hand = self.by_hand.lock();
            if hand.is_within_body() {
                let text =
                    "a request's body is being read: its bytes come with the request, by reading that to its end";
                return Poll::Ready(Err(StreamError::Misuse(text)));
            }
            hand.take_unread()
        };
        if !unread.is_empty() {
            self.pipe.unread(unread);
        }
        let most = self.config().max_request_read_bytes;
        self.pipe.poll_read(cx, &mut |inbound| want.take(inbound, most))
    }

    // ---- writing

    /// Writes all of it. Done when little enough has not been sent, so that whoever writes much is held up.
    ///
    /// # Errors
    /// Nothing can be written any more.
    pub fn write(self: &Arc<Self>, data: Bytes) -> Result<Operation, StreamError> {
        self.by_hand.lock().written();
        self.pipe.write([data])?;
        Ok(Operation::new(self.clone(), What::Written, Timeout::Is(None)))
    }

    /// Answers the request that was read last.
    ///
    /// # Errors
    /// There is none, or nothing can be written any more.
    pub fn respond(self: &Arc<Self>, response: &Response) -> Result<Operation, StreamError> {
        self.answer(response)?;
        Ok(Operation::new(self.clone(), What::Written, Timeout::Is(None)))
    }

    /// Reads a request whole; none at the end.
    pub fn read_request(self: &Arc<Self>, timeout: Timeout) -> Operation {
        Operation::new(self.clone(), What::Request, timeout)
    }

    /// Says that nothing more will be written: `close_notify`, FIN. Reading goes on.
    pub fn write_eof(&self) {
        self.pipe.order(|orders| orders.eof = true);
    }

    /// Ends it: what was written is sent, nothing more is read. Returns at once.
    pub fn close(&self) {
        self.answer_failed();
        self.pipe.order(|orders| (orders.eof, orders.closed) = (true, true));
    }

    /// The same where the callback let a time-out pass, so that it is counted as that.
    pub fn close_idle(&self) {
        self.pipe.order(|orders| orders.idle |= !orders.closed);
        self.close();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// How long a read may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// As long as the setting `stream_timeout` says.
    Default,
    /// So long; without an end where it is none.
    Is(Option<Duration>),
}

/// What a read waits for.
#[derive(Debug)]
pub(crate) enum Want {
    UpTo(usize),
    All,
    Exactly(usize),
    Until {
        separator: Bytes,
        most: usize,
        searched: usize,
    },
    /// A WebSocket message as [`Pipe::receive_message`] has put it there; with its kind before it.
    Message,
}

impl Want {
    fn take(&mut self, inbound: &mut Inbound<'_>, most_of_all: usize) -> Option<Result<Bytes, StreamError>> {
        let there = inbound.buffer.len();
        match self {
            Want::UpTo(0) => return Some(Ok(Bytes::new())),
            Want::UpTo(_) if there == 0 => {}
            Want::UpTo(most) => return Some(Ok(split(inbound.buffer, there.min(*most)))),
            Want::All if there > most_of_all => {
                let text = format!("more than {most_of_all} bytes to the end (max_request_read_bytes)");
                return Some(Err(StreamError::Limit(text)));
            }
            Want::All => {
                // The end is an answer, other than in the two below.
                if let Some(None) = inbound.over {
                    // The client has not ended its side: to call that complete would be wrong.
                    if inbound.drained && there > 0 {
                        return Some(Err(StreamError::ServerEnded));
                    }
                    return Some(Ok(split(inbound.buffer, there)));
                }
                inbound.wanted = most_of_all + 1;
            }
            // A length is often what the client has sent.
            Want::Exactly(length) if *length > most_of_all => {
                let text = format!("{length} bytes at once are more than {most_of_all} (max_request_read_bytes)");
                return Some(Err(StreamError::Limit(text)));
            }
            // It was put there whole.
            Want::Message if there >= MESSAGE_HEAD => {
                let length = inbound.buffer.get_u64() as usize;
                return Some(Ok(split(inbound.buffer, 1 + length)));
            }
            Want::Message => {}
            Want::Exactly(length) if there >= *length => return Some(Ok(split(inbound.buffer, *length))),
            Want::Exactly(length) => inbound.wanted = *length,
            Want::Until { separator, most, searched } => {
                // The end of what was searched may be the beginning of a separator.
                let from = searched.saturating_sub(separator.len() - 1).min(there);
                if let Some(found) = memchr::memmem::find(&inbound.buffer[from..], separator) {
                    let length = from + found + separator.len();
                    if length <= *most {
                        return Some(Ok(split(inbound.buffer, length)));
                    }
                }
                if there >= *most {
                    return Some(Err(StreamError::Limit(format!("no {separator:?} within {most} bytes"))));
                }
                (*searched, inbound.wanted) = (there, *most);
            }
        }
        match inbound.over? {
            Some(error) => Some(Err(error.clone())),
            None if there == 0 => Some(Ok(Bytes::new())),
            None => {
                let expected = if let Want::Exactly(length) = self { Some(*length) } else { None };
                Some(Err(StreamError::Incomplete { partial: split(inbound.buffer, there), expected }))
            }
        }
    }
}

fn split(buffer: &mut BytesMut, length: usize) -> Bytes {
    let all = length == buffer.len();
    if all { std::mem::take(buffer).freeze() } else { buffer.split_to(length).freeze() }
}

/// Until when something that begins now may take; none for as long as it likes.
pub(super) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}
