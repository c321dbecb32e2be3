//! The core's [`Handler`] over a Python callable: called where the request is, on a pool, or on an event loop.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use http::StatusCode;
use parking_lot::Mutex;
use portico_core::http::Response;
use portico_core::{Handler, Observer, Reply, Report};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;

use crate::errors::{self, RequestError};
use crate::request::Request;
use crate::response;
use crate::threads::try_attach;

/// A reference to a Python object that the server's garbage collection sees, and can cut: a handler often refers to what
/// refers to its server.
pub(crate) struct Slot(Mutex<Option<Py<PyAny>>>);

impl Slot {
    pub(crate) fn new(object: Py<PyAny>) -> Arc<Self> {
        Arc::new(Slot(Mutex::new(Some(object))))
    }

    fn get<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let object = self.0.lock().as_ref().map(|object| object.bind(py).clone());
        object.ok_or_else(|| errors::ClosedError::new_err("the server is closed"))
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever holds the lock is attached, as the collector is, and holds it for no call: try_lock never fails.
        self.0.try_lock().map_or(Ok(()), |object| visit.call(&*object))
    }

    pub(crate) fn clear(&self) {
        // Dropped outside the lock, because dropping it may run anything.
        let _object = self.0.lock().take();
    }
}

/// What the handlers of one server share.
pub(crate) struct Site {
    /// A weak reference to the `portico.Server`.
    pub(crate) server: Py<PyAny>,
    /// `portico._reports.Reports`: told of what goes wrong.
    pub(crate) reports: Arc<Slot>,
}

impl Site {
    fn wrap<'py>(&self, py: Python<'py>, request: portico_core::http::Request) -> PyResult<Bound<'py, Request>> {
        Bound::new(py, Request::new(request, self.server.clone_ref(py)))
    }

    /// Answers with what the handler returned or raised.
    fn answer(&self, reply: Reply, request: &Bound<'_, Request>, result: PyResult<Bound<'_, PyAny>>) {
        match result.and_then(|value| response::from_python(&value)) {
            Ok(response) => reply.send(response),
            Err(error) => self.fail(reply, request, &error),
        }
    }

    fn fail(&self, reply: Reply, request: &Bound<'_, Request>, error: &PyErr) {
        let py = request.py();
        let value = error.value(py);
        // A request that the handler could not read is its client's fault: that is what the status says.
        let status = value
            .is_instance_of::<RequestError>()
            .then(|| value.getattr(intern!(py, "status")).ok()?.extract().ok())
            .flatten()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .filter(StatusCode::is_client_error);
        let reports = self.reports.get(py);
        if let Err(error) = reports.and_then(|it| it.call_method1(intern!(py, "handler_failed"), (value, request))) {
            error.write_unraisable(py, Some(request));
        }
        match status {
            Some(status) => reply.send(Response::plain(status)),
            None => reply.fail(),
        }
    }
}

/// A `def` handler.
pub(crate) struct Function {
    pub(crate) callable: Arc<Slot>,
    pub(crate) site: Arc<Site>,
}

impl Handler for Function {
    fn call(&self, request: portico_core::http::Request, reply: Reply) {
        // An interpreter that is being taken down answers nothing any more: the reply is dropped.
        try_attach(|py| {
            let request = match self.site.wrap(py, request) {
                Ok(request) => request,
                Err(error) => return error.write_unraisable(py, None), // no memory; the reply answers 500
            };
            let result = self.callable.get(py).and_then(|callable| callable.call1((&request,)));
            self.site.answer(reply, &request, result);
        });
    }
}

/// A handler that is called on an event loop.
pub(crate) struct OnLoop {
    pub(crate) function: Arc<Function>,
    pub(crate) queue: Arc<Queue>,
}

impl Handler for OnLoop {
    fn call(&self, request: portico_core::http::Request, reply: Reply) {
        // No attaching here: the loop's thread does that, once for all that came meanwhile.
        self.queue.push(Job { function: self.function.clone(), request, reply });
    }
}

struct Job {
    function: Arc<Function>,
    request: portico_core::http::Request,
    reply: Reply,
}

/// Requests on their way to an event loop, with a socket pair to wake it: at most one wake for all that are waiting.
pub(crate) struct Queue {
    jobs: Mutex<Vec<Job>>,
    wake: UnixStream,
    woken: UnixStream,
}

impl Queue {
    fn push(&self, job: Job) {
        let mut jobs = self.jobs.lock();
        jobs.push(job);
        if jobs.len() == 1 {
            // Full means that a wake is under way already.
            let _ = (&self.wake).write(&[0]);
        }
    }

    fn take(&self) -> Vec<Job> {
        let mut jobs = self.jobs.lock();
        // Under the lock, so that a wake is pending exactly while jobs are.
        let _ = (&self.woken).read(&mut [0; 64]);
        std::mem::take(&mut jobs)
    }
}

/// Brings requests to an event loop: `loop.add_reader(bridge.fileno(), ...)`, then `take()`.
#[pyclass(frozen)]
pub(crate) struct Bridge(pub(crate) Arc<Queue>);

#[pymethods]
impl Bridge {
    #[new]
    fn new() -> PyResult<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok(Bridge(Arc::new(Queue { jobs: Mutex::default(), wake, woken })))
    }

    /// The descriptor that becomes readable when requests are waiting.
    fn fileno(&self) -> i32 {
        self.0.woken.as_raw_fd()
    }

    /// Every request that is waiting.
    fn take(&self) -> Vec<Answer> {
        self.0.take().into_iter().map(Answer::new).collect()
    }
}

/// One request on an event loop, and where its answer goes. Dropped without one, it answers 500.
#[pyclass(frozen)]
pub(crate) struct Answer {
    function: Arc<Function>,
    parts: Mutex<Option<(portico_core::http::Request, Reply)>>,
    reply: Mutex<Option<Reply>>,
}

impl Answer {
    fn new(job: Job) -> Self {
        let Job { function, request, reply } = job;
        Answer { function, parts: Mutex::new(Some((request, reply))), reply: Mutex::new(None) }
    }
}

#[pymethods]
impl Answer {
    /// Takes the request out and calls the handler with it: the request, and what the handler returned, as a rule a
    /// coroutine.
    fn call<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, Request>, Bound<'py, PyAny>)> {
        let Some((request, reply)) = self.parts.lock().take() else {
            return Err(errors::ResponseError::new_err("this request was taken already"));
        };
        *self.reply.lock() = Some(reply);
        let request = self.function.site.wrap(py, request)?;
        match self.function.callable.get(py).and_then(|callable| callable.call1((&request,))) {
            Ok(value) => Ok((request, value)),
            Err(error) => {
                self.fail(&request, error.value(py).as_any());
                Ok((request, py.None().into_bound(py)))
            }
        }
    }

    /// Answers with a response dict.
    fn send(&self, request: &Bound<'_, Request>, value: Bound<'_, PyAny>) {
        let reply = self.reply.lock().take();
        if let Some(reply) = reply {
            self.function.site.answer(reply, request, Ok(value));
        }
    }

    /// Answers for a handler that raised.
    fn fail(&self, request: &Bound<'_, Request>, error: &Bound<'_, PyAny>) {
        let reply = self.reply.lock().take();
        if let Some(reply) = reply {
            self.function.site.fail(reply, request, &PyErr::from_value(error.clone()));
        }
    }

    /// Whether an answer was sent.
    #[getter]
    fn done(&self) -> bool {
        self.parts.lock().is_none() && self.reply.lock().is_none()
    }
}

/// Carries the errors of connections to a Python thread, so that no I/O thread waits for the interpreter or a log file.
#[derive(Default)]
pub(crate) struct Reporter {
    state: Mutex<Reported>,
    more: parking_lot::Condvar,
}

#[derive(Default)]
struct Reported {
    waiting: VecDeque<Report>,
    dropped: u64,
    closed: bool,
}

/// Reports that may wait; more are only counted.
const MAX_WAITING: usize = 1_000;

impl Observer for Reporter {
    fn report(&self, report: Report) {
        let mut state = self.state.lock();
        if state.waiting.len() >= MAX_WAITING {
            state.dropped += 1;
            return;
        }
        state.waiting.push_back(report);
        drop(state);
        self.more.notify_one();
    }
}

impl Reporter {
    /// Hands reports to `reports.connection_failed` until closed.
    pub(crate) fn run(&self, reports: &Slot) {
        while let Some((batch, dropped)) = self.next() {
            try_attach(|py| {
                let Ok(reports) = reports.get(py) else { return };
                let tell = |method, argument: Bound<'_, PyAny>| {
                    if let Err(error) = reports.call_method1(method, (argument,)) {
                        error.write_unraisable(py, Some(&reports));
                    }
                };
                for report in batch {
                    tell(intern!(py, "connection_failed"), errors::from_report(py, report).into_any());
                }
                if dropped > 0 {
                    tell(intern!(py, "dropped"), PyInt::new(py, dropped).into_any());
                }
            });
        }
    }

    fn next(&self) -> Option<(VecDeque<Report>, u64)> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.closed {
            self.more.wait(&mut state);
        }
        if state.waiting.is_empty() {
            return None;
        }
        Some((std::mem::take(&mut state.waiting), std::mem::take(&mut state.dropped)))
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.more.notify_all();
    }
}
