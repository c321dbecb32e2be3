//! Handlers on an event loop: requests wait in a queue, and one wake brings all that came meanwhile.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;
use portico_core::{Handler, Reply};
use pyo3::prelude::*;

use crate::asgi::SharedReply;
use crate::errors;
use crate::handler::Function;
use crate::request::Request;

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
pub(crate) struct Queue(Mutex<State>);

struct State {
    jobs: Vec<Job>,
    /// To wake, and to be woken by; none once closed.
    ends: Option<(UnixStream, UnixStream)>,
}

impl Queue {
    fn push(&self, job: Job) {
        let mut state = self.0.lock();
        let State { jobs, ends: Some((wake, _)) } = &mut *state else {
            return; // Dropping the job answers it with 500.
        };
        jobs.push(job);
        if jobs.len() == 1 {
            // An error would mean that the pipe is full of wakes already.
            let _ = wake.write(&[0]);
        }
    }

    fn take(&self) -> Vec<Job> {
        let mut state = self.0.lock();
        // Under the lock, so that a wake is pending exactly while jobs are.
        if let Some((_, woken)) = &mut state.ends {
            let _ = woken.read(&mut [0; 64]);
        }
        std::mem::take(&mut state.jobs)
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
        Ok(Bridge(Arc::new(Queue(Mutex::new(State { jobs: Vec::new(), ends: Some((wake, woken)) })))))
    }

    /// The descriptor that becomes readable when requests are waiting; -1 once closed.
    fn fileno(&self) -> i32 {
        self.0.0.lock().ends.as_ref().map_or(-1, |(_, woken)| woken.as_raw_fd())
    }

    /// Every request that is waiting.
    fn take(&self) -> Vec<Answer> {
        self.0.take().into_iter().map(Answer::new).collect()
    }

    /// Gives the descriptors back. Requests that wait, and those to come, are answered with 500.
    fn close(&self) {
        let ended = {
            let mut state = self.0.0.lock();
            (state.ends.take(), std::mem::take(&mut state.jobs))
        };
        drop(ended);
    }
}

/// One request on an event loop, and where its answer goes. Dropped without one, it answers 500.
#[pyclass(frozen)]
pub(crate) struct Answer {
    function: Arc<Function>,
    parts: Mutex<Option<(portico_core::http::Request, Reply)>>,
    /// Shared with the request, for a handler that answers before it is done.
    reply: SharedReply,
}

impl Answer {
    fn new(job: Job) -> Self {
        let Job { function, request, reply } = job;
        Answer { function, parts: Mutex::new(Some((request, reply))), reply: SharedReply::default() }
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
        let callable = self.function.callable.get(py);
        let called = callable.as_ref().map_or(0, |callable| callable.as_ptr() as usize);
        let request = self.function.site.wrap(py, request, Some((called, self.reply.clone())))?;
        match callable.and_then(|callable| callable.call1((&request,))) {
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
        let error = PyErr::from_value(error.clone());
        match reply {
            Some(reply) => self.function.site.fail(reply, request, &error),
            // It went wrong after the answer: its client is served, its author is to know.
            None => drop(self.function.site.report(request, &error)),
        }
    }

    /// Whether an answer was sent.
    #[getter]
    fn done(&self) -> bool {
        self.parts.lock().is_none() && self.reply.lock().is_none()
    }
}
