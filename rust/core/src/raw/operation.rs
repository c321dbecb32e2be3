//! One call on a connection: polled by whoever has a waker, or waited for on a thread of its own.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use super::connection::{Connection, Timeout, Want, deadline};
use super::error::StreamError;
use crate::http::Request;

/// A read or a write that is under way. Dropped, it loses nothing: what has come stays to be read.
pub struct Operation {
    connection: Arc<Connection>,
    what: What,
    timeout: Option<Duration>,
    /// Whether that is the setting's.
    by_setting: bool,
    deadline: Option<Instant>,
    /// Who was left with the pipe to be woken.
    waker: Option<Waker>,
}

pub(crate) enum What {
    Read(Want),
    Message,
    Request,
    Written,
}

/// What became of it.
#[derive(Debug)]
pub enum Done {
    /// What was read; nothing at the end.
    Bytes(Bytes),
    /// A WebSocket message and its kind; none at the end.
    Message(Option<(u8, Bytes)>),
    /// A request; none at the end.
    Request(Option<Box<Request>>),
    /// It was written.
    Written,
}

impl Operation {
    pub(crate) fn new(connection: Arc<Connection>, what: What, timeout: Timeout) -> Self {
        let by_setting = timeout == Timeout::Default;
        let timeout = connection.time(timeout);
        Operation { connection, what, timeout, by_setting, deadline: deadline(timeout), waker: None }
    }

    /// Looks whether it is done; if not, the waker of `cx` is told when to look again. To be polled at its
    /// [`Operation::deadline`] too.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Done, StreamError>> {
        let done = match &mut self.what {
            What::Read(want) => self.connection.poll_read(cx, want).map_ok(Done::Bytes),
            What::Message => {
                let read = self.connection.poll_read(cx, &mut Want::Message);
                // One byte more than a message has, so that none is empty.
                if matches!(&read, Poll::Ready(read) if read.as_ref().map_or(true, Bytes::is_empty)) {
                    self.connection.pipe.order(|orders| orders.heard = true);
                }
                read.map_ok(|mut message| Done::Message((!message.is_empty()).then(|| (message.get_u8(), message))))
            }
            What::Written => self.connection.pipe.poll_written(cx).map_ok(|()| Done::Written),
            What::Request => self.connection.poll_request(cx).map_ok(Done::Request),
        };
        if done.is_pending() && !self.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.forget();
            self.waker = Some(cx.waker().clone());
        }
        if done.is_pending() && self.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            return Poll::Ready(Err(self.late()));
        }
        done
    }

    /// When its time is over; none where the server looks after that.
    pub fn deadline(&self) -> Option<Instant> {
        match self.what {
            // From a request's first byte on its own time-outs hold.
            What::Request => self.connection.deadline_of_request().or(self.deadline),
            _ => self.deadline,
        }
    }

    /// Takes back the waker that may be left, so that none pile up where many operations time out.
    fn forget(&mut self) {
        if let Some(waker) = self.waker.take() {
            self.connection.pipe.forget(&waker);
        }
    }

    fn late(&mut self) -> StreamError {
        match self.what {
            What::Request => self.connection.late_request(),
            _ => None,
        }
        .unwrap_or(StreamError::TimedOut { after: self.timeout.unwrap_or_default(), by_setting: self.by_setting })
    }

    /// Waits for it on this thread, which runs no event loop.
    ///
    /// # Errors
    /// What it failed with.
    pub fn wait(mut self) -> Result<Done, StreamError> {
        let waker = Waker::from(Arc::new(Parked(std::thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(done) = self.poll(&mut cx) {
                return done;
            }
            match self.deadline() {
                Some(deadline) => std::thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
                None => std::thread::park(),
            }
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.forget();
    }
}

/// A thread that waits. Woken when it does not, it only looks once more.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
