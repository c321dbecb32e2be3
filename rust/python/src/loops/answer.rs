//! What becomes of a task when it is done.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use portico_core::Reply;
use portico_core::locks::Mutex;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::intern;
use pyo3::prelude::*;

use super::bridge::{Bridge, cancel};
use super::queue::Left;
use crate::asgi::SharedReply;
use crate::handler::Function;
use crate::request::Request;
use crate::sessions;

/// One request on an event loop, and where its answer goes.
pub(super) struct Answer {
    pub(super) bridge: Py<Bridge>,
    /// That of its task.
    pub(super) number: u64,
    pub(super) function: Arc<Function>,
    pub(super) request: Py<Request>,
    /// Shared with the request, for a handler that answers before it is done.
    pub(super) reply: Arc<SharedReply>,
    pub(super) deadline: Option<Instant>,
}

impl Answer {
    /// Answers with what became of the task.
    pub(super) fn finish(self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        self.bridge.get().forget_task(py, self.number)?;
        let site = &self.function.site;
        let (request, mut reply) = (self.request.bind(py), self.reply.lock().take());
        let result = task.call_method0(intern!(py, "result"));
        if result.as_ref().is_err_and(|error| error.is_instance_of::<PyKeyboardInterrupt>(py)) {
            sessions::discard(request);
            return Ok(()); // asyncio gives it to the program
        }
        let result = result.and_then(|value| match value.cast::<Raised>() {
            Ok(raised) => Err(PyErr::from_value(raised.get().0.bind(py).clone())),
            Err(_) => Ok(value),
        });
        let nobody_waits = reply.as_mut().is_none_or(Reply::is_abandoned) || self.bridge.get().queue.is_closed();
        match (result, reply) {
            (Ok(value), Some(_)) if nobody_waits && value.is_none() => sessions::discard(request),
            (Ok(value), Some(reply)) => site.answer(reply, request, Ok(value), Some(self.bridge.bind(py))),
            (Ok(_), None) => sessions::discard(request),
            (Err(error), _) if error.is_instance_of::<CancelledError>(py) && nobody_waits => {
                sessions::discard(request);
            }
            (Err(error), Some(reply)) => site.fail(reply, request, &error),
            // It went wrong after the answer: its client is served, its author is to know.
            (Err(error), None) => {
                sessions::discard(request);
                site.report(request, &error);
            }
        }
        Ok(())
    }

    /// Answers when the task is done, and cancels it when nobody waits for that any more.
    pub(super) fn wait_for(self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        let bridge = self.bridge.get();
        let (queue, reply) = (Arc::downgrade(&bridge.queue), Some(Arc::downgrade(&self.reply)));
        let waker = Waker::from(Arc::new(Left { queue, task: self.number, reply, deadline: self.deadline }));
        let mut cx = Context::from_waker(&waker);
        let left = self.reply.lock().as_mut().map_or(Poll::Pending, |reply| reply.poll_abandoned(&mut cx));
        task.call_method1(intern!(py, "add_done_callback"), (Done(Mutex::new(Some(self))),))?;
        match left {
            Poll::Ready(()) => cancel(task),
            Poll::Pending => Ok(()),
        }
    }
}

/// What a task calls when it is done.
#[pyclass(frozen)]
struct Done(Mutex<Option<Answer>>);

#[pymethods]
impl Done {
    fn __call__(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let answer = self.0.lock().take();
        answer.map_or(Ok(()), |answer| answer.finish(task))
    }
}

/// What a handler returns in place of an exception that asyncio would end its loop for.
#[pyclass(frozen)]
pub(crate) struct Raised(Py<PyAny>);

#[pymethods]
impl Raised {
    #[new]
    fn new(exception: Py<PyAny>) -> Self {
        Raised(exception)
    }
}
