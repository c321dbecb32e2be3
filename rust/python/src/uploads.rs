//! Bodies of requests that come while their handlers run.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use portico_core::http::body::{Cut, Incoming};
use portico_core::locks::Mutex;
use pyo3::exceptions::{PyConnectionResetError, PyRuntimeError, PyStopAsyncIteration};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;

use crate::errors;
use crate::loops::Sleeper;
use crate::request::Request;
use crate::threads::detach;

/// The pieces of a request's body, for `for` and for `async for`.
#[pyclass(frozen)]
pub(crate) struct BodyStream {
    request: Py<Request>,
    /// What was here with the head.
    here: Mutex<Option<Bytes>>,
}

impl BodyStream {
    pub(crate) fn new(request: &Bound<'_, Request>) -> Self {
        let here = request.get().core().body.clone();
        BodyStream { request: request.clone().unbind(), here: Mutex::new((!here.is_empty()).then_some(here)) }
    }

    fn incoming(&self) -> Option<&Incoming> {
        self.request.get().core().incoming.as_ref()
    }
}

#[pymethods]
impl BodyStream {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        if let Some(here) = self.here.lock().take() {
            return Ok(Some(PyBytes::new(py, &here)));
        }
        let Some(incoming) = self.incoming() else { return Ok(None) };
        if self.request.get().queue().is_some() {
            return Err(PyRuntimeError::new_err(
                "on an event loop a body is read by `async for`, which lets others run",
            ));
        }
        let piece = detach(py, || incoming.wait_for_piece()).map_err(to_python)?;
        Ok(piece.map(|piece| PyBytes::new(py, &piece)))
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static NEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        NEXT.import(slf.py(), "portico._bodies", "next_piece")?.call1((slf,))
    }

    /// The next piece; None where there is none yet, and then `future` is done when to ask again.
    ///
    /// Raises `StopAsyncIteration` at the end.
    fn poll<'py>(&self, py: Python<'py>, future: Py<PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        if let Some(here) = self.here.lock().take() {
            return Ok(Some(PyBytes::new(py, &here)));
        }
        let Some(incoming) = self.incoming() else { return Err(PyStopAsyncIteration::new_err(())) };
        let Some(queue) = self.request.get().queue() else {
            return Err(PyRuntimeError::new_err("a `def` handler reads a body by `for`: it is not on an event loop"));
        };
        let waker = Sleeper::waker(queue, future);
        match incoming.poll_piece(&mut Context::from_waker(&waker)) {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(Some(piece))) => Ok(Some(PyBytes::new(py, &piece))),
            Poll::Ready(Ok(None)) => Err(PyStopAsyncIteration::new_err(())),
            Poll::Ready(Err(cut)) => Err(to_python(cut)),
        }
    }

    /// Has the request keep the rest of its body.
    fn keep(&self, rest: &[u8]) {
        self.request.get().keep_rest(Bytes::copy_from_slice(rest));
    }
}

/// The rest of a body, waited for on this thread.
pub(crate) fn wait_for_rest(py: Python<'_>, incoming: &Incoming) -> PyResult<Bytes> {
    let read = || {
        let mut rest = BytesMut::new();
        while let Some(piece) = incoming.wait_for_piece()? {
            rest.extend_from_slice(&piece);
        }
        Ok(rest.freeze())
    };
    detach(py, read).map_err(to_python)
}

/// The exception for a body that is cut off.
pub(crate) fn to_python(cut: Cut) -> PyErr {
    match cut {
        Cut::Refused(error) => errors::refused_to_python(&error),
        Cut::Left => PyConnectionResetError::new_err(
            "the body of the request is cut off: its client has left, or the request was answered before it was read",
        ),
    }
}
