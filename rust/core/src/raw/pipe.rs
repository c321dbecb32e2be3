//! What stands between a connection's task and its callback: bytes in both directions, bounded, and who waits for them.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::error::StreamError;
use crate::locks::Mutex;

/// A write waits while more than this has not left yet.
const HIGH_WATER: usize = 64 * 1024;
/// Writes up to this size are gathered, so that they leave together.
const SMALL: usize = 16 * 1024;
/// What stands before a WebSocket message: its length and its kind.
pub(crate) const MESSAGE_HEAD: usize = 9;

/// How the client's side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should: by `close_notify`, or in the clear by FIN.
    Orderly,
    /// TLS without `close_notify`.
    Truncated,
}

/// The two ends share this; it is locked for moments only, and never while anybody is woken.
pub(crate) struct Pipe {
    state: Mutex<State>,
    /// The most that is read ahead of the callback.
    read_ahead: usize,
}

#[derive(Default)]
struct State {
    /// Come and not read yet. Without room while there is nothing.
    inbound: BytesMut,
    /// How much the reader needs at once, where that is more than is read ahead otherwise.
    wanted: usize,
    end: Option<End>,
    /// The server ends, and the client was quiet: nothing more is waited for.
    drained: bool,
    readers: Wakers,
    /// The task wants to know when a reader begins to wait.
    leaving: bool,
    /// Written and not yet taken by the task.
    outbound: VecDeque<Bytes>,
    /// Small writes behind those.
    tail: BytesMut,
    /// Written and not sent yet, with what the task has in hand.
    unsent: usize,
    writers: Wakers,
    /// The task, while it waits.
    task: Option<Waker>,
    orders: Orders,
    failure: Option<StreamError>,
}

/// What the callback has asked for or done, as the task needs to know.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Where the callback runs, once it has begun.
    pub(crate) begun: Option<&'static str>,
    /// Nothing more will be written.
    pub(crate) eof: bool,
    /// Nothing more will be read either: the callback is done.
    pub(crate) closed: bool,
    /// It was closed for a request that was refused.
    pub(crate) refused: bool,
    /// A WebSocket's callback has read to its end.
    pub(crate) heard: bool,
    /// It was closed because nothing came in time.
    pub(crate) idle: bool,
}

/// What the task is to do next.
pub(crate) struct Plan {
    pub(crate) piece: Option<Bytes>,
    pub(crate) may_read: bool,
    pub(crate) orders: Orders,
}

/// Who waits for the same thing; usually one.
#[derive(Default)]
struct Wakers(Vec<Waker>);

impl Wakers {
    fn add(&mut self, waker: &Waker) {
        if !self.0.iter().any(|known| known.will_wake(waker)) {
            self.0.push(waker.clone());
        }
    }

    fn take(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.0)
    }
}

impl Pipe {
    pub(crate) fn new(read_ahead: usize) -> Self {
        Pipe { state: Mutex::default(), read_ahead }
    }

    // ---- the task's end

    /// The next piece to send, where `idle` says that none is in hand, and what else there is to do. The task is woken
    /// when any of it changes.
    pub(crate) fn plan(&self, idle: bool, waker: &Waker) -> Plan {
        let mut state = self.state.lock();
        if !state.task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.task = Some(waker.clone());
        }
        let piece = if idle { state.next_piece() } else { None };
        let room = self.read_ahead.max(state.wanted);
        // What comes after the callback is done is thrown away.
        let may_read = state.end.is_none() && (state.orders.closed || state.inbound.len() < room);
        Plan { piece, may_read, orders: state.orders }
    }

    pub(crate) fn receive(&self, bytes: &[u8]) {
        self.wake_readers(|state| {
            if !state.orders.closed {
                state.inbound.extend_from_slice(bytes);
            }
        });
    }

    /// Takes a WebSocket message, for [`super::connection::Want::Message`]: its length, its kind, itself.
    pub(crate) fn receive_message(&self, kind: u8, payload: &[u8]) {
        self.wake_readers(|state| {
            if !state.orders.closed {
                state.inbound.reserve(MESSAGE_HEAD + payload.len());
                state.inbound.extend_from_slice(&(payload.len() as u64).to_be_bytes());
                state.inbound.extend_from_slice(&[kind]);
                state.inbound.extend_from_slice(payload);
            }
        });
    }

    /// How it ended; what was first counts.
    pub(crate) fn receive_end(&self, end: End) {
        self.wake_readers(|state| {
            state.end.get_or_insert(end);
        });
    }

    /// Reads that find nothing end from now on.
    pub(crate) fn drain(&self) {
        self.wake_readers(|state| state.drained = true);
    }

    /// From now on the task is woken when a reader begins to wait.
    pub(crate) fn leave(&self) {
        self.state.lock().leaving = true;
    }

    /// Whether somebody waits to read, and has read all that has come.
    pub(crate) fn is_awaited(&self) -> bool {
        let state = self.state.lock();
        state.inbound.is_empty() && !state.readers.0.is_empty()
    }

    /// Whether something is written that the task has not taken, and not too much.
    pub(crate) fn has_little(&self) -> bool {
        let state = self.state.lock();
        (1..=HIGH_WATER).contains(&state.unsent) && !(state.outbound.is_empty() && state.tail.is_empty())
    }

    fn wake_readers(&self, change: impl FnOnce(&mut State)) {
        let readers = {
            let mut state = self.state.lock();
            change(&mut state);
            state.readers.take()
        };
        readers.into_iter().for_each(Waker::wake);
    }

    /// Notes that so much was sent.
    pub(crate) fn sent(&self, length: usize) {
        let writers = {
            let mut state = self.state.lock();
            state.unsent = state.unsent.saturating_sub(length);
            if state.unsent > HIGH_WATER {
                return;
            }
            state.writers.take()
        };
        writers.into_iter().for_each(Waker::wake);
    }

    /// Nothing can be read or written any more, for the first reason that is given.
    pub(crate) fn fail(&self, failure: StreamError) {
        let (waiting, unsent) = {
            let mut state = self.state.lock();
            state.failure.get_or_insert(failure);
            let unsent = (std::mem::take(&mut state.outbound), std::mem::take(&mut state.tail));
            state.unsent = 0;
            let mut waiting = state.readers.take();
            waiting.append(&mut state.writers.0);
            (waiting, unsent)
        };
        drop(unsent);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether little enough has not been sent.
    pub(crate) fn has_room(&self) -> bool {
        self.state.lock().unsent <= HIGH_WATER
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.state.lock().end
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.state.lock().drained
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.state.lock().failure.is_some()
    }

    pub(crate) fn failure(&self) -> Option<StreamError> {
        self.state.lock().failure.clone()
    }

    pub(crate) fn orders(&self) -> Orders {
        self.state.lock().orders
    }

    // ---- the callback's end

    /// Changes what the task is to do.
    pub(crate) fn order(&self, order: impl FnOnce(&mut Orders)) {
        let (task, waiting) = {
            let mut state = self.state.lock();
            let before = state.orders;
            order(&mut state.orders);
            if state.orders == before {
                return;
            }
            let mut waiting = Vec::new();
            if state.orders.closed {
                state.inbound = BytesMut::new();
                waiting = state.readers.take();
                waiting.append(&mut state.writers.0);
            }
            (state.task.take(), waiting)
        };
        waiting.into_iter().chain(task).for_each(Waker::wake);
    }

    /// Calls `take` with what has come and whether nothing more will, until it gives something.
    pub(crate) fn poll_read<T>(
        &self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&mut Inbound<'_>) -> Option<Result<T, StreamError>>,
    ) -> Poll<Result<T, StreamError>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.orders.closed {
            return Poll::Ready(Err(StreamError::Closed("the connection was closed at this end")));
        }
        let over = match (state.end, &state.failure) {
            (Some(End::Orderly), _) => Some(None),
            (Some(End::Truncated), _) => Some(Some(StreamError::Truncated)),
            (None, Some(failure)) => Some(Some(failure.for_reading())),
            (None, None) => state.drained.then_some(None),
        };
        let full = state.inbound.len() >= self.read_ahead.max(state.wanted);
        let drained = state.end.is_none() && state.failure.is_none() && state.drained;
        let mut inbound =
            Inbound { buffer: &mut state.inbound, over: over.as_ref().map(Option::as_ref), drained, wanted: 0 };
        let taken = take(&mut inbound);
        state.wanted = inbound.wanted;
        if state.inbound.is_empty() {
            // A connection that waits keeps no buffer.
            state.inbound = BytesMut::new();
        }
        if taken.is_none() {
            state.readers.add(cx.waker());
        }
        // It stopped reading where it had no room.
        let task = if full || (state.leaving && taken.is_none()) { state.task.take() } else { None };
        drop(guard);
        task.into_iter().for_each(Waker::wake);
        taken.map_or(Poll::Pending, Poll::Ready)
    }

    /// Whoever has that waker waits no longer.
    pub(crate) fn forget(&self, waker: &Waker) {
        let forgotten: Vec<Waker> = {
            let mut state = self.state.lock();
            let State { readers, writers, .. } = &mut *state;
            let of = |all: &mut Vec<Waker>| {
                all.iter().position(|known| known.will_wake(waker)).map(|at| all.swap_remove(at))
            };
            of(&mut readers.0).into_iter().chain(of(&mut writers.0)).collect()
        };
        // Dropped without the lock: there may be anything behind a waker.
        drop(forgotten);
    }

    /// Puts bytes back before those that have not been read yet.
    pub(crate) fn unread(&self, mut bytes: BytesMut) {
        let mut state = self.state.lock();
        bytes.extend_from_slice(&state.inbound);
        state.inbound = bytes;
    }

    /// Adds to what is to be sent, however much waits already; see [`Pipe::poll_written`].
    pub(crate) fn write(&self, pieces: impl IntoIterator<Item = Bytes>) -> Result<(), StreamError> {
        let task = {
            let mut state = self.state.lock();
            state.check_writable()?;
            pieces.into_iter().for_each(|piece| state.push(piece));
            state.task.take()
        };
        task.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Waits until little enough has not been sent.
    pub(crate) fn poll_written(&self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Poll::Ready(Err(failure.for_writing()));
        }
        // What was closed meanwhile is sent all the same.
        if state.unsent <= HIGH_WATER || state.orders.closed {
            return Poll::Ready(Ok(()));
        }
        state.writers.add(cx.waker());
        Poll::Pending
    }
}

/// What a reader sees.
pub(crate) struct Inbound<'a> {
    pub(crate) buffer: &'a mut BytesMut,
    /// Whether nothing more will come, and why where that is an error.
    pub(crate) over: Option<Option<&'a StreamError>>,
    /// Whether that is only because the server ends.
    pub(crate) drained: bool,
    /// To be set to how much has to come at once.
    pub(crate) wanted: usize,
}

impl State {
    fn next_piece(&mut self) -> Option<Bytes> {
        self.outbound.pop_front().or_else(|| (!self.tail.is_empty()).then(|| std::mem::take(&mut self.tail).freeze()))
    }

    fn push(&mut self, piece: Bytes) {
        self.unsent += piece.len();
        if piece.len() <= SMALL {
            self.tail.extend_from_slice(&piece);
            return;
        }
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail).freeze();
            self.outbound.push_back(tail);
        }
        self.outbound.push_back(piece);
    }

    fn check_writable(&self) -> Result<(), StreamError> {
        match &self.failure {
            // First: a connection that this end has closed fails once its task is over.
            _ if self.orders.closed => Err(StreamError::Closed("the connection was closed at this end")),
            Some(failure) => Err(failure.for_writing()),
            None if self.orders.eof => Err(StreamError::Closed("this end has said that it writes nothing more")),
            None => Ok(()),
        }
    }
}

impl StreamError {
    fn for_reading(&self) -> Self {
        self.noticed_by(false)
    }

    fn for_writing(&self) -> Self {
        self.noticed_by(true)
    }

    fn noticed_by(&self, writing: bool) -> Self {
        match self {
            StreamError::Lost { why, .. } => StreamError::Lost { why: why.clone(), writing },
            other => other.clone(),
        }
    }
}
