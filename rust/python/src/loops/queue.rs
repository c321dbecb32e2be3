//! What waits for an event loop's thread: requests, connections, futures that are to be woken, clients that left.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Instant;

use portico_core::dispatch::Turns;
use portico_core::locks::Mutex;
use portico_core::{LoopWaker, Reply};
use pyo3::intern;
use pyo3::prelude::*;

use crate::asgi::SharedReply;
use crate::handler::Function;
use crate::streams::Visit;

pub(super) struct Job {
    pub(super) function: Arc<Function>,
    pub(super) request: Box<portico_core::http::Request>,
    pub(super) reply: Reply,
    pub(super) deadline: Option<Instant>,
}

/// What waits for an event loop. The loop is woken by the first and takes all.
#[derive(Default)]
pub(crate) struct Queue(pub(super) Mutex<State>);

#[derive(Default)]
pub(super) struct State {
    pub(super) jobs: Turns<Job>,
    /// Connections that wait for their callbacks.
    pub(super) visits: VecDeque<Visit>,
    /// What is to be told that it may go on.
    pub(super) woken: Vec<Arc<Sleeper>>,
    /// Tasks whose client has left.
    pub(super) left: Vec<Arc<Left>>,
    pub(super) wake: Wakes,
}

/// How the loop is woken.
#[derive(Default)]
pub(super) enum Wakes {
    /// There is none yet.
    #[default]
    Nothing,
    /// By a byte in the first; the loop reads the second.
    Socket(UnixStream, UnixStream),
    /// It is waiting in [`Driver::drive`].
    Driver(LoopWaker),
    /// There is none any more.
    Closed,
}

impl State {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.left.is_empty() && self.visits.is_empty() && self.woken.is_empty()
    }

    fn wake(&mut self) {
        match &mut self.wake {
            // An error would mean that the pipe is full of wakes already.
            Wakes::Socket(wake, _) => drop(wake.write(&[0])),
            Wakes::Driver(waker) => waker.wake(),
            Wakes::Nothing | Wakes::Closed => {}
        }
    }
}

impl Queue {
    /// Adds something, and wakes the loop where it is the first.
    fn add(&self, add: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        if matches!(state.wake, Wakes::Closed) {
            return; // Dropping a job answers it with 500.
        }
        let first = state.is_empty();
        add(&mut state);
        if first {
            state.wake();
        }
    }

    pub(super) fn push(&self, job: Job) {
        self.add(|state| state.jobs.push(job.request.connection_id(), job));
    }

    /// Leaves a connection to its callback.
    pub(crate) fn visit(&self, visit: Visit) {
        self.add(|state| state.visits.push_back(visit));
    }

    pub(super) fn take_visit(&self) -> Option<Visit> {
        self.0.lock().visits.pop_front()
    }

    pub(super) fn take_woken(&self) -> Vec<Arc<Sleeper>> {
        std::mem::take(&mut self.0.lock().woken)
    }

    pub(super) fn take_left(&self) -> Vec<Arc<Left>> {
        std::mem::take(&mut self.0.lock().left)
    }

    pub(super) fn take_job(&self) -> Option<Job> {
        self.0.lock().jobs.pop()
    }

    /// To be called when enough was taken: the loop is woken again exactly while something waits. Under the lock of `add`,
    /// so that no wake falls between looking and clearing.
    pub(super) fn taken(&self) {
        let mut state = self.0.lock();
        if !state.is_empty() {
            return;
        }
        match &mut state.wake {
            Wakes::Socket(_, woken) => drop(woken.read(&mut [0; 64])),
            Wakes::Driver(waker) => waker.clear(),
            Wakes::Nothing | Wakes::Closed => {}
        }
    }

    pub(super) fn wake_by(&self, wake: Wakes) {
        let mut state = self.0.lock();
        state.wake = wake;
        if !state.is_empty() {
            state.wake();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.0.lock().wake, Wakes::Closed)
    }
}

/// What is to be told on an event loop as soon as something can go on.
pub(crate) struct Sleeper {
    queue: Weak<Queue>,
    tell: Tell,
}

enum Tell {
    /// A future of asyncio is done.
    Future(Py<PyAny>),
    /// Something is called.
    Callback(Py<PyAny>),
}

impl Sleeper {
    /// A waker for the loop behind `queue`, on which `future` is.
    pub(crate) fn waker(queue: &Weak<Queue>, future: Py<PyAny>) -> Waker {
        Waker::from(Arc::new(Sleeper { queue: queue.clone(), tell: Tell::Future(future) }))
    }

    /// A waker that has `callback()` called on that loop.
    pub(crate) fn caller(queue: &Weak<Queue>, callback: Py<PyAny>) -> Waker {
        Waker::from(Arc::new(Sleeper { queue: queue.clone(), tell: Tell::Callback(callback) }))
    }

    pub(super) fn wake_up(&self, py: Python<'_>) -> PyResult<()> {
        let future = match &self.tell {
            Tell::Future(future) => future.bind(py),
            Tell::Callback(callback) => return callback.call0(py).map(drop),
        };
        // It may be cancelled, or woken by a time-out.
        if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
            future.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
        Ok(())
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        if let Some(queue) = self.queue.upgrade() {
            queue.add(|state| state.woken.push(self));
        }
    }
}

/// Tells the loop that nobody waits for a task's answer any more.
pub(super) struct Left {
    pub(super) queue: Weak<Queue>,
    pub(super) task: u64,
    /// None for a task that has nothing else to do.
    pub(super) reply: Option<Weak<SharedReply>>,
    /// When `handler_timeout` is over: what has taken that long is cancelled, whoever else could be told.
    pub(super) deadline: Option<Instant>,
}

impl Left {
    /// One that was answered may go on.
    pub(super) fn is_answered(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.upgrade().is_none_or(|reply| reply.lock().is_none()))
    }

    /// Whether there is an ASGI app to tell; it decides what to do.
    pub(super) fn is_told(&self, py: Python<'_>) -> PyResult<bool> {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        match self.reply.as_ref().and_then(Weak::upgrade) {
            Some(reply) if !late => reply.tell_left(py),
            _ => Ok(false),
        }
    }
}

impl Wake for Left {
    fn wake(self: Arc<Self>) {
        if let Some(queue) = self.queue.upgrade() {
            queue.add(|state| state.left.push(self));
        }
    }
}
