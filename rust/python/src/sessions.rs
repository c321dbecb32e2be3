//! Where a handler's end meets its session: what was changed is kept after the handler returned and before its response is
//! sent. A request whose session nobody asked for pays one look at an empty slot. The sessions themselves are
//! `python/portico/sessions/`, which count what becomes of them here.

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use portico_core::Reply;
use portico_core::http::Response;
use portico_core::locks::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::bodies::Making;
use crate::errors::ClosedError;
use crate::handler::Site;
use crate::loops::Bridge;
use crate::request::Request;
use crate::response::wrong;

/// The headers that go with a session.
pub(crate) type Cookies = Vec<(HeaderName, HeaderValue)>;

/// How a session is kept.
pub(crate) enum Commit<'py> {
    Done(Cookies),
    /// A coroutine of its event loop, because the store would hold that up.
    Later(Bound<'py, PyAny>),
}

/// Keeps what the handler of a request has changed in its session.
pub(crate) fn commit<'py>(request: &Bound<'py, Request>) -> PyResult<Commit<'py>> {
    let py = request.py();
    let Some(session) = request.get().settle(py) else { return Ok(Commit::Done(Vec::new())) };
    let kept = session.call_method0(intern!(py, "_commit"))?;
    if kept.is_instance_of::<PyList>() { cookies(&kept).map(Commit::Done) } else { Ok(Commit::Later(kept)) }
}

/// Keeps nothing of it: the handler failed. Lets others have the session.
pub(crate) fn discard(request: &Bound<'_, Request>) {
    let py = request.py();
    if let Some(session) = request.get().settle(py)
        && let Err(error) = session.call_method0(intern!(py, "_discard"))
    {
        error.write_unraisable(py, Some(session));
    }
}

fn cookies(kept: &Bound<'_, PyAny>) -> PyResult<Cookies> {
    let kept: Vec<(String, String)> = kept.extract()?;
    let headers = kept.into_iter().map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
    match headers.collect() {
        Some(headers) => Ok(headers),
        None => wrong("a session gave what cannot stand in a header".to_string()),
    }
}

/// Sends a response when the task of its session is done.
pub(crate) fn send_later(
    commit: Bound<'_, PyAny>,
    site: &Arc<Site>,
    reply: Reply,
    request: &Bound<'_, Request>,
    (response, making): (Response, Option<Making<'_>>),
    bridge: Option<&Bound<'_, Bridge>>,
) {
    let py = request.py();
    let made = match bridge {
        Some(bridge) => bridge.get().make_task(&commit).map(|made| Some((bridge, made?))),
        None => Ok(None),
    };
    let (bridge, (number, task)) = match made {
        Ok(Some(made)) => made,
        none => {
            let error = none.err().unwrap_or_else(|| ClosedError::new_err("the event loop of this request has ended"));
            // Or Python warns that it was never awaited.
            let _ = commit.call_method0(intern!(py, "close"));
            making.into_iter().for_each(Making::abandon);
            return site.fail(reply, request, &error);
        }
    };
    let making = making.map(|making| {
        let Making { iterable, sender, length, is_async } = making;
        (iterable.unbind(), sender, length, is_async)
    });
    let waiting = Waiting {
        bridge: bridge.clone().unbind(),
        number,
        site: site.clone(),
        request: request.clone().unbind(),
        reply,
        response,
        making,
    };
    let done = Committed(Mutex::new(Some(waiting)));
    if let Err(error) = task.call_method1(intern!(py, "add_done_callback"), (done,)) {
        error.write_unraisable(py, Some(&task)); // no memory; the reply, dropped, answers 500
    }
}

/// What is counted of sessions, for `stats()` and `/metrics`.
#[pyclass(frozen)]
pub(crate) struct SessionCounts(pub(crate) Arc<portico_core::SessionCounts>);

#[pymethods]
impl SessionCounts {
    #[new]
    fn new() -> Self {
        SessionCounts(Arc::default())
    }

    /// So many are in the memory of this process.
    fn hold(&self, number: u64) {
        self.0.hold(number);
    }

    /// One was kept for the first time.
    fn made(&self) {
        self.0.made();
    }

    /// So many have ended: `handler`, `expired` or `evicted`.
    #[pyo3(signature = (reason, number=1))]
    fn ended(&self, reason: &str, number: u64) -> PyResult<()> {
        known(self.0.ended(reason, number), reason)
    }

    /// A `cookie` or a `record` was not taken for a session.
    fn rejected(&self, what: &str) -> PyResult<()> {
        known(self.0.rejected(what), what)
    }

    /// A request could not have or keep its session: `store`, `busy` or `conflict`.
    fn failed(&self, reason: &str) -> PyResult<()> {
        known(self.0.failed(reason), reason)
    }
}

fn known(is_known: bool, word: &str) -> PyResult<()> {
    if is_known { Ok(()) } else { Err(PyValueError::new_err(format!("nothing is counted as {word:?}"))) }
}

/// A response that waits for its session.
struct Waiting {
    bridge: Py<Bridge>,
    /// That of the task.
    number: u64,
    site: Arc<Site>,
    request: Py<Request>,
    reply: Reply,
    response: Response,
    /// A [`Making`], as it can be kept.
    making: Option<(Py<PyAny>, portico_core::http::body::BodySender, crate::bodies::Length, bool)>,
}

/// What the task of a session calls when it is done.
#[pyclass(frozen)]
struct Committed(Mutex<Option<Waiting>>);

#[pymethods]
impl Committed {
    fn __call__(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        let waiting = self.0.lock().take();
        let Some(Waiting { bridge, number, site, request, mut reply, response, making }) = waiting else {
            return Ok(());
        };
        let (bridge, request) = (bridge.bind(py), request.bind(py));
        bridge.get().forget_task(py, number)?;
        let making = making.map(|(iterable, sender, length, is_async)| {
            let iterable = iterable.into_bound(py);
            Making { iterable, sender, length, is_async }
        });
        match task.call_method0(intern!(py, "result")).and_then(|kept| cookies(&kept)) {
            Ok(cookies) => site.send(reply, request, (response, making), cookies, Some(bridge)),
            Err(error) => {
                making.into_iter().for_each(Making::abandon);
                // The server has ended, and nobody waits.
                if !(error.is_instance_of::<CancelledError>(py) && reply.is_abandoned()) {
                    site.fail(reply, request, &error);
                }
            }
        }
        Ok(())
    }
}
