//! The core's [`Handler`] over a Python callable, called where the request is or on a pool. Those on an event loop are
//! in [`crate::loops`].

use std::sync::Arc;

use http::StatusCode;
use http::header::RETRY_AFTER;
use portico_core::dispatch::{Runs, Streams, handler_begins};
use portico_core::http::Response;
use portico_core::http::form::Limits;
use portico_core::{Handler, Pool, Reply};
use pyo3::intern;
use pyo3::prelude::*;

use crate::bodies::{self, Long, Making, Pump};
use crate::errors::{PageError, RequestError, ResponseError, SessionError};
use crate::files;
use crate::loops::Bridge;
use crate::request::{Called, Request};
use crate::response;
use crate::sessions::{self, Commit, Cookies};
use crate::slot::Slot;
use crate::threads::try_attach_for_long;

/// What the handlers of one server share.
pub(crate) struct Site {
    /// A weak reference to the `portico.Server`.
    pub(crate) server: Py<PyAny>,
    /// `portico._reports.Reports`: told of what goes wrong.
    pub(crate) reports: Arc<Slot>,
    /// Threads for what lasts as long as a connection or a response.
    pub(crate) long: Arc<Pool<Long>>,
    /// How much a form may be.
    pub(crate) forms: Arc<Limits>,
}

impl Site {
    pub(crate) fn wrap<'py>(
        &self,
        py: Python<'py>,
        request: Box<portico_core::http::Request>,
        called: Option<Called>,
    ) -> PyResult<Bound<'py, Request>> {
        Bound::new(py, Request::new(request, Some(self.server.clone_ref(py)), called, self.forms.clone()))
    }

    /// Answers with what the handler returned or raised; `bridge` leads to the event loop that it ran on.
    pub(crate) fn answer(
        self: &Arc<Self>,
        reply: Reply,
        request: &Bound<'_, Request>,
        result: PyResult<Bound<'_, PyAny>>,
        bridge: Option<&Bound<'_, Bridge>>,
    ) {
        if let Some(failed) = result.as_ref().ok().and_then(|value| value.cast::<Failed>().ok()) {
            return self.answer_failed(reply, request, failed);
        }
        let (response, making) = match result.and_then(|value| response::from_python(&value, bridge.is_some())) {
            Ok(answer) => answer,
            Err(error) => return self.fail(reply, request, &error),
        };
        match sessions::commit(request) {
            Ok(Commit::Done(cookies)) => self.send(reply, request, (response, making), cookies, bridge),
            Ok(Commit::Later(commit)) => sessions::send_later(commit, self, reply, request, (response, making), bridge),
            Err(error) => {
                making.into_iter().for_each(Making::abandon);
                self.fail(reply, request, &error);
            }
        }
    }

    /// Sends a response, with its session's cookies.
    pub(crate) fn send(
        self: &Arc<Self>,
        reply: Reply,
        request: &Bound<'_, Request>,
        (response, making): (Response, Option<Making<'_>>),
        cookies: Cookies,
        bridge: Option<&Bound<'_, Bridge>>,
    ) {
        let mut response = files::answer(request, response);
        response.headers.extend(cookies);
        match (making, bridge) {
            (None, _) => reply.send(response),
            (Some(making), None) if making.is_async => {
                let text = "body: an async iterable needs a handler that is `async def`, or dispatch=\"asyncio\"";
                self.fail(reply, request, &ResponseError::new_err(text));
            }
            (Some(making), Some(bridge)) if making.is_async => {
                reply.send(response);
                if let Err(error) = bodies::start_task(bridge, making, self, request) {
                    self.report(request, &error);
                }
            }
            (Some(making), _) if response.is_bodiless(&request.get().core().method) => {
                reply.send(response);
                if let Err(error) = bodies::close(&making.iterable) {
                    self.report(request, &error);
                }
            }
            (Some(making), _) => {
                reply.send(response);
                Pump::start(making, self, request, &self.long);
            }
        }
    }

    fn answer_failed(&self, reply: Reply, request: &Bound<'_, Request>, failed: &Bound<'_, Failed>) {
        let py = request.py();
        sessions::discard(request);
        let Failed { exception, response } = failed.get();
        let status = self.report(request, &PyErr::from_value(exception.bind(py).clone()));
        match response::from_python(response.bind(py), false) {
            Ok((response, None)) if status.is_some() => reply.send(response),
            Ok((response, None)) => reply.fail_with(response),
            // What a middleware says of a failure is short.
            Ok((_, Some(_))) => reply.fail(),
            Err(error) => self.fail(reply, request, &error),
        }
    }

    pub(crate) fn fail(&self, reply: Reply, request: &Bound<'_, Request>, error: &PyErr) {
        sessions::discard(request);
        match self.report(request, error) {
            Some(StatusCode::SERVICE_UNAVAILABLE) => {
                reply.send(Response::plain(StatusCode::SERVICE_UNAVAILABLE).with(RETRY_AFTER, "1"));
            }
            Some(status) => reply.send(Response::plain(status)),
            None => reply.fail(),
        }
    }

    /// Tells what went wrong; the status to answer with, where it is not 500.
    pub(crate) fn report(&self, request: &Bound<'_, Request>, error: &PyErr) -> Option<StatusCode> {
        let py = request.py();
        let value = error.value(py);
        // Before Python 3.12 the exception itself does not know where it came from, and PyO3 keeps that apart.
        if let Some(traceback) = error.traceback(py) {
            let _ = value.setattr(intern!(py, "__traceback__"), traceback);
        }
        // A request that the handler could not read is its client's fault: that is what the status says. A session or a
        // worker that cannot be had just now is nobody's.
        let status = value.getattr_opt(intern!(py, "status")).ok().flatten();
        let status = status.and_then(|status| StatusCode::from_u16(status.extract().ok()?).ok());
        let status = status.filter(|status| match *status {
            StatusCode::SERVICE_UNAVAILABLE => {
                value.is_instance_of::<SessionError>() || value.is_instance_of::<PageError>()
            }
            status => status.is_client_error() && value.is_instance_of::<RequestError>(),
        });
        let reports = self.reports.get(py);
        if let Err(error) = reports.and_then(|it| it.call_method1(intern!(py, "handler_failed"), (value, request))) {
            error.write_unraisable(py, Some(request));
        }
        status
    }
}

/// What a handler returns that raised, where somebody around it has made a response of that: it is told like one that raised.
#[pyclass(frozen)]
pub(crate) struct Failed {
    exception: Py<PyAny>,
    response: Py<PyAny>,
}

#[pymethods]
impl Failed {
    #[new]
    fn new(exception: Py<PyAny>, response: Py<PyAny>) -> Self {
        Failed { exception, response }
    }
}

/// A callable, with what its server's handlers share.
pub(crate) struct Function {
    pub(crate) callable: Arc<Slot>,
    pub(crate) site: Arc<Site>,
    /// Which bodies it takes as they come.
    pub(crate) streams: Streams,
}

/// A handler that is called in its own way where the body of a request is here, and on a thread for itself where it has to wait
/// for it: clients that send slowly keep each other waiting there, and nobody else.
pub(crate) struct Patient {
    pub(crate) function: Arc<Function>,
    /// What it is otherwise called by.
    pub(crate) otherwise: Arc<dyn Handler>,
    pub(crate) pool: Arc<Pool<Long>>,
}

impl Handler for Patient {
    fn call(&self, request: Box<portico_core::http::Request>, reply: Reply) {
        if request.incoming.is_none() {
            return self.otherwise.call(request, reply);
        }
        self.pool.submit(Long::Call(Box::new(Call { function: self.function.clone(), request, reply })));
    }

    fn streams(&self) -> Streams {
        self.function.streams
    }
}

/// One call of a handler that waits for the body of its request.
pub(crate) struct Call {
    function: Arc<Function>,
    request: Box<portico_core::http::Request>,
    reply: Reply,
}

impl Call {
    pub(crate) fn connection(&self) -> u64 {
        self.request.connection_id()
    }

    pub(crate) fn run(mut self) {
        if !self.reply.is_abandoned() {
            self.reply.called(Runs::StreamThreads);
            self.function.call(self.request, self.reply);
        }
    }
}

impl Handler for Function {
    fn streams(&self) -> Streams {
        self.streams
    }

    fn hold(&self, work: &mut dyn FnMut()) {
        try_attach_for_long(|_| work());
    }

    fn call(&self, request: Box<portico_core::http::Request>, reply: Reply) {
        // An interpreter that is being taken down answers nothing any more: the reply is dropped.
        try_attach_for_long(|py| {
            let request = match self.site.wrap(py, request, None) {
                Ok(request) => request,
                Err(error) => return error.write_unraisable(py, None), // no memory; the reply answers 500
            };
            handler_begins();
            let result = self.callable.get(py).and_then(|callable| callable.call1((&request,)));
            self.site.answer(reply, &request, result, None);
        });
    }
}
