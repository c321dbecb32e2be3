//! Connections in the hands of callbacks: on threads of a pool of their own, or on an event loop. What users see is in
//! `python/portico/_connection.py`.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use portico_core::locks::Mutex;
use portico_core::raw::{self, Connection, Done, StreamError, Timeout};
use portico_core::{Pool, Spawn, StreamHandler, Streams};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{
    PyBrokenPipeError, PyConnectionAbortedError, PyConnectionError, PyConnectionResetError, PyRuntimeError,
    PyTimeoutError, PyTypeError, PyValueError,
};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyString};

use crate::bodies::Long;
use crate::connection::ConnectionInfo;
use crate::errors::{self, ClosedError, LimitError};
use crate::handler::Site;
use crate::loops::{Bridge, Queue, Sleeper};
use crate::response;
use crate::slot::Slot;
use crate::threads::{detach, try_attach_for_long};
use crate::websocket::Socket;

/// Larger writes are sent from the Python object's own memory: a copy costs less than keeping a reference below this.
const SHARE: usize = 32 * 1024;

pyo3::import_exception!(asyncio, IncompleteReadError);

/// The callbacks of a server's listeners, and the threads for those that are no coroutines.
pub(crate) struct Visits {
    pub(crate) pool: Arc<Pool<Long>>,
    /// For the garbage collector.
    targets: Mutex<Vec<Weak<Slot>>>,
}

impl Visits {
    pub(crate) fn new(threads: usize, spawn: Arc<dyn Spawn>) -> Self {
        Visits { pool: Pool::named("portico-stream", 1, threads, spawn), targets: Mutex::default() }
    }

    /// What a listener needs to have its connections taken.
    pub(crate) fn streams(&self, (target, alpn, bridge): Given<'_>, site: &Arc<Site>) -> Streams {
        let target = Slot::new(target);
        let mut targets = self.targets.lock();
        targets.retain(|target| target.strong_count() > 0);
        targets.push(Arc::downgrade(&target));
        let way = match bridge {
            Some(bridge) => Way::Loop(bridge.get().queue.clone()),
            None => Way::Threads(self.pool.clone()),
        };
        let handler = Arc::new(Callback { target, site: site.clone(), way });
        Streams { handler, alpn: alpn.into_iter().map(String::into_bytes).collect() }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(targets) = self.targets.try_lock() else { return Ok(()) };
        targets.iter().filter_map(Weak::upgrade).try_for_each(|target| target.traverse(visit))
    }

    pub(crate) fn clear(&self) {
        let targets = std::mem::take(&mut *self.targets.lock());
        targets.iter().filter_map(Weak::upgrade).for_each(|target| target.clear());
    }
}

/// What is called as `target(stream)` for each connection, the protocols to offer by ALPN, and the way to an event loop
/// where the target returns a coroutine.
pub(crate) type Given<'py> = (Py<PyAny>, Vec<String>, Option<Bound<'py, Bridge>>);

/// A callback of Python.
struct Callback {
    target: Arc<Slot>,
    site: Arc<Site>,
    way: Way,
}

enum Way {
    Threads(Arc<Pool<Long>>),
    Loop(Arc<Queue>),
}

impl StreamHandler for Callback {
    fn call(&self, connection: Connection) {
        let connection = Arc::new(connection);
        let visit = Visit { target: self.target.clone(), site: self.site.clone(), connection, socket: None };
        match &self.way {
            Way::Threads(pool) => pool.submit(Long::Visit(visit)),
            Way::Loop(queue) => queue.visit(visit),
        }
    }
}

/// One connection on its way to its callback.
pub(crate) struct Visit {
    target: Arc<Slot>,
    site: Arc<Site>,
    connection: Arc<Connection>,
    /// What the target is called with, where that is a WebSocket.
    socket: Option<Py<Socket>>,
}

impl Visit {
    /// Calls the target; none where the connection is gone already.
    pub(crate) fn call<'py>(self, py: Python<'py>, queue: Option<Weak<Queue>>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.connection.begin(if queue.is_some() { "asyncio" } else { "stream_threads" }) {
            return Ok(None);
        }
        let target = self.target.get(py)?;
        match self.socket {
            Some(socket) => target.call1((socket,)),
            None => target.call1((Stream { connection: self.connection, site: self.site, queue },)),
        }
        .map(Some)
    }
}

impl Visit {
    pub(crate) fn of_socket(
        target: Arc<Slot>,
        site: Arc<Site>,
        connection: Arc<Connection>,
        socket: Py<Socket>,
    ) -> Self {
        Visit { target, site, connection, socket: Some(socket) }
    }

    pub(crate) fn connection(&self) -> u64 {
        self.connection.info().id
    }

    pub(crate) fn run(self) {
        // An interpreter that is being taken down calls nothing any more: the connection is dropped.
        try_attach_for_long(|py| {
            if let Err(error) = self.call(py, None) {
                error.write_unraisable(py, None);
            }
        });
    }
}

/// A connection of the core: each call gives an [`Operation`], to be waited for on a thread or polled on a loop.
#[pyclass(frozen, weakref)]
pub(crate) struct Stream {
    connection: Arc<Connection>,
    site: Arc<Site>,
    /// The way back to the event loop on which the callback runs.
    queue: Option<Weak<Queue>>,
}

/// None where the setting holds, else seconds; infinite for no limit.
pub(crate) fn timeout(given: Option<f64>) -> PyResult<Timeout> {
    match given {
        None => Ok(Timeout::Default),
        Some(seconds) if seconds.is_nan() || seconds < 0.0 => {
            Err(PyValueError::new_err(format!("timeout: a number of seconds from 0 on, or None, not {seconds}")))
        }
        // What is too long for a Duration is for ever.
        Some(seconds) => Ok(Timeout::Is(Duration::try_from_secs_f64(seconds).ok())),
    }
}

impl Stream {
    fn begin(&self, operation: raw::Operation) -> Operation {
        Operation::new(self.connection.clone(), self.site.clone(), self.queue.clone(), operation)
    }

    fn writing(&self, py: Python<'_>, begun: Result<raw::Operation, StreamError>) -> PyResult<Operation> {
        begun.map(|operation| self.begin(operation)).map_err(|error| to_python(py, &self.connection, error))
    }
}

#[pymethods]
impl Stream {
    #[getter]
    fn info(&self) -> ConnectionInfo {
        ConnectionInfo(self.connection.info().clone())
    }

    /// Up to `n` bytes; all there are to the end where it is negative.
    #[pyo3(signature = (n, seconds))]
    fn read(&self, n: i64, seconds: Option<f64>) -> PyResult<Operation> {
        let timeout = timeout(seconds)?;
        Ok(self.begin(match usize::try_from(n) {
            Ok(most) => self.connection.read(most, timeout),
            Err(_) => self.connection.read_to_end(timeout),
        }))
    }

    #[pyo3(signature = (n, seconds))]
    fn read_exactly(&self, n: usize, seconds: Option<f64>) -> PyResult<Operation> {
        Ok(self.begin(self.connection.read_exactly(n, timeout(seconds)?)))
    }

    #[pyo3(signature = (separator, most, seconds))]
    fn read_until(&self, separator: &[u8], most: usize, seconds: Option<f64>) -> PyResult<Operation> {
        let separator = Bytes::copy_from_slice(separator);
        Ok(self.begin(self.connection.read_until(separator, most, timeout(seconds)?)))
    }

    #[pyo3(signature = (seconds))]
    fn read_request(&self, seconds: Option<f64>) -> PyResult<Operation> {
        Ok(self.begin(self.connection.read_request(timeout(seconds)?)))
    }

    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let data = to_bytes(data)?;
        self.writing(py, self.connection.write(data))
    }

    fn respond(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let response = match response::from_python(value, false) {
            Ok((response, _)) => response,
            Err(error) => {
                self.connection.respond_failed();
                return Err(error);
            }
        };
        self.writing(py, self.connection.respond(&response))
    }

    fn write_eof(&self) {
        self.connection.write_eof();
    }

    /// Counts that the callback raised.
    fn failed(&self) {
        self.connection.failed();
    }

    /// Ends the connection, and returns; `idle` where the callback let a time-out pass.
    fn close(&self, idle: bool) {
        if idle { self.connection.close_idle() } else { self.connection.close() }
    }
}

pub(crate) fn to_bytes(data: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return Ok(match bytes.as_bytes() {
            small if small.len() < SHARE => Bytes::copy_from_slice(small),
            _ => Bytes::from_owner(PyBackedBytes::from(bytes.clone())),
        });
    }
    match PyBuffer::<u8>::get(data) {
        // It may be changed later.
        Ok(buffer) => buffer.to_vec(data.py()).map(Bytes::from),
        Err(_) => Err(PyTypeError::new_err(format!("data: bytes, not {}", response::kind(data)))),
    }
}

/// A read or a write that is under way.
#[pyclass(frozen)]
pub(crate) struct Operation {
    connection: Arc<Connection>,
    site: Arc<Site>,
    queue: Option<Weak<Queue>>,
    state: Mutex<State>,
}

enum State {
    Pending(raw::Operation),
    Done(Result<Done, StreamError>),
    Taken,
}

#[pymethods]
impl Operation {
    /// Waits for it on this thread, and gives what was read.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let state = std::mem::replace(&mut *self.state.lock(), State::Taken);
        match state {
            State::Pending(operation) => {
                let done = detach(py, || operation.wait());
                self.give(py, done)
            }
            State::Done(done) => self.give(py, done),
            State::Taken => Err(PyRuntimeError::new_err("this operation is over")),
        }
    }

    /// Whether it is done; if not, `future` is done when to ask again.
    fn is_done(&self, future: Py<PyAny>) -> bool {
        let waker = match &self.queue {
            Some(queue) => Sleeper::waker(queue, future),
            None => return true, // There is no loop: `wait` does.
        };
        let mut state = self.state.lock();
        let State::Pending(operation) = &mut *state else { return true };
        match operation.poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => {
                *state = State::Done(done);
                true
            }
            Poll::Pending => false,
        }
    }

    /// In how many seconds to ask again in any case; None for never.
    fn seconds_left(&self) -> Option<f64> {
        let State::Pending(operation) = &*self.state.lock() else { return Some(0.0) };
        let deadline = operation.deadline()?;
        // Not a moment too early.
        Some(deadline.saturating_duration_since(Instant::now()).as_secs_f64() + 0.001)
    }
}

impl Operation {
    /// One whose waits end on the event loop behind `queue`, where there is one.
    pub(crate) fn new(
        connection: Arc<Connection>,
        site: Arc<Site>,
        queue: Option<Weak<Queue>>,
        operation: raw::Operation,
    ) -> Self {
        Operation { connection, site, queue, state: Mutex::new(State::Pending(operation)) }
    }

    fn give<'py>(&self, py: Python<'py>, done: Result<Done, StreamError>) -> PyResult<Bound<'py, PyAny>> {
        match done {
            Ok(Done::Bytes(bytes)) => Ok(PyBytes::new(py, &bytes).into_any()),
            Ok(Done::Message(Some((0, text)))) => Ok(PyString::from_bytes(py, &text)?.into_any()),
            Ok(Done::Message(Some((_, bytes)))) => Ok(PyBytes::new(py, &bytes).into_any()),
            Ok(Done::Request(Some(request))) => {
                let request = self.site.wrap(py, request, None)?;
                // Its response is written by hand, past what keeps sessions.
                let _no_session = request.get().settle(py);
                Ok(request.into_any())
            }
            Ok(Done::Message(None) | Done::Request(None) | Done::Written) => Ok(py.None().into_bound(py)),
            Err(error) => Err(to_python(py, &self.connection, error)),
        }
    }
}

/// The exception for what a call on a connection failed with.
pub(crate) fn to_python(py: Python<'_>, connection: &Connection, error: StreamError) -> PyErr {
    let business = error.is_daily_business();
    let text = format!("connection from {}: {error}", connection.info().peer);
    let error = match error {
        StreamError::Closed(_) => ClosedError::new_err(text),
        StreamError::TimedOut { .. } | StreamError::WriteTimeout(_) => PyTimeoutError::new_err(text),
        StreamError::Lost { writing: true, .. } => PyBrokenPipeError::new_err(text),
        StreamError::Lost { writing: false, .. } => PyConnectionResetError::new_err(text),
        StreamError::Truncated => PyConnectionError::new_err(text),
        StreamError::ServerEnded => PyConnectionAbortedError::new_err(text),
        StreamError::Limit(_) => LimitError::new_err(text),
        StreamError::Incomplete { partial, expected } => {
            IncompleteReadError::new_err((PyBytes::new(py, &partial).unbind(), expected))
        }
        StreamError::Request(refused) => errors::refused_to_python(&refused),
        StreamError::Misuse(_) => PyRuntimeError::new_err(text),
    };
    if business {
        // By which `portico._connection` knows that it is no mistake of the callback.
        let _ = error.value(py).setattr(intern!(py, "_portico_peer"), connection.info().id);
    }
    error
}
