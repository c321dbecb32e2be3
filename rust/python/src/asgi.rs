//! The quick parts of `portico.asgi` (the ASGI 3 specification, HTTP): the scope of a request, and its `receive` and `send`.
//! The rest is `python/portico/_asgi.py`.

use std::sync::{Arc, MutexGuard, OnceLock, Weak};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use portico_core::http::body::channel;
use portico_core::http::{Body, Response};
use portico_core::locks::Mutex;
use portico_core::{Address, Reply};
use pyo3::exceptions::{PyOSError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PyString, PyTuple, PyType};

use crate::bodies::{BodySender, Length};
use crate::connection;
use crate::files::FileBody;
use crate::header_names;
use crate::loops::Queue;
use crate::request::{Request, latin1, position};
use crate::response::{kind, to_body, to_status, wrong};

/// A request as ASGI describes one, with a shallow copy of the state that the app's lifespan left.
#[pyfunction]
pub(crate) fn asgi_scope<'py>(
    request: &Bound<'py, Request>,
    state: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = request.py();
    let core = request.get().core();
    let connection = core.connection.as_deref();
    let scope = blank(py)?.copy()?;
    scope.set_item(intern!(py, "asgi"), versions(py)?.copy()?)?;
    scope.set_item(intern!(py, "http_version"), core.version_text())?;
    scope.set_item(intern!(py, "method"), method(py, &core.method))?;
    let scheme =
        if connection.is_some_and(|connection| connection.secure) { intern!(py, "https") } else { intern!(py, "http") };
    scope.set_item(intern!(py, "scheme"), scheme)?;
    // The whole path, which begins with the root path: what is there in both is for the app to leave out.
    scope.set_item(intern!(py, "path"), String::from_utf8_lossy(&core.whole_path_bytes()))?;
    let root = core.root_path_bytes();
    if !root.is_empty() {
        scope.set_item(intern!(py, "root_path"), String::from_utf8_lossy(&root))?;
    }
    scope.set_item(intern!(py, "raw_path"), PyBytes::new(py, core.target.raw_path().as_bytes()))?;
    scope.set_item(intern!(py, "query_string"), PyBytes::new(py, core.target.query().as_bytes()))?;
    scope.set_item(intern!(py, "headers"), headers(py, core)?)?;
    if let Some(peer @ Address::Inet(_)) = connection.map(|connection| &connection.peer) {
        scope.set_item(intern!(py, "client"), connection::address(py, peer)?)?;
    }
    match connection.map(|connection| &connection.local) {
        None => {} // None, as it is
        Some(local @ Address::Inet(_)) => scope.set_item(intern!(py, "server"), connection::address(py, local)?)?,
        Some(Address::Unix(path)) => {
            scope.set_item(intern!(py, "server"), (path.as_deref().unwrap_or(""), py.None()))?
        }
    }
    scope.set_item(intern!(py, "state"), state.copy()?)?;
    scope.set_item(intern!(py, "extensions"), PyDict::new(py))?;
    Ok(scope)
}

/// A scope with every key in its place: a copy of it never has to grow.
fn blank(py: Python<'_>) -> PyResult<&Bound<'_, PyDict>> {
    static BLANK: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let keys = [
        "asgi",
        "http_version",
        "method",
        "scheme",
        "path",
        "raw_path",
        "query_string",
        "headers",
        "client",
        "server",
        "state",
        "extensions",
    ];
    let blank = BLANK.get_or_try_init(py, || {
        let blank = PyDict::new(py);
        blank.set_item(PyString::intern(py, "type"), PyString::intern(py, "http"))?;
        for key in keys {
            blank.set_item(PyString::intern(py, key), py.None())?;
        }
        blank.set_item(PyString::intern(py, "root_path"), "")?;
        PyResult::Ok(blank.unbind())
    })?;
    Ok(blank.bind(py))
}

/// Version 2.4 says that an app need not listen for its client's leaving while it sends.
fn versions(py: Python<'_>) -> PyResult<&Bound<'_, PyDict>> {
    static VERSIONS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let versions = VERSIONS.get_or_try_init(py, || {
        let versions = PyDict::new(py);
        versions.set_item("version", "3.0")?;
        versions.set_item("spec_version", "2.4")?;
        PyResult::Ok(versions.unbind())
    })?;
    Ok(versions.bind(py))
}

fn method<'py>(py: Python<'py>, method: &Method) -> Bound<'py, PyString> {
    match *method {
        Method::GET => intern!(py, "GET").clone(),
        Method::POST => intern!(py, "POST").clone(),
        Method::HEAD => intern!(py, "HEAD").clone(),
        _ => PyString::new(py, &method.as_str().to_ascii_uppercase()),
    }
}

fn headers<'py>(py: Python<'py>, request: &portico_core::http::Request) -> PyResult<Bound<'py, PyList>> {
    // The host of an absolute target overrides the header (RFC 9112 section 3.2.2).
    let target = request.target.host().map(str::as_bytes);
    let pairs = request.headers.iter().map(|(name, value)| {
        let value = target.filter(|_| name == "host").unwrap_or(value);
        (header_names::as_bytes(py, name), PyBytes::new(py, value))
    });
    PyList::new(py, pairs)
}

/// Where the answer to a request goes, for a handler on an event loop that answers before it is done.
pub(crate) struct SharedReply {
    reply: Mutex<Option<Reply>>,
    /// The exchange that is told when the client leaves, in place of its task being cancelled.
    exchange: OnceLock<Weak<Mutex<State>>>,
}

impl SharedReply {
    pub(crate) fn new(reply: Reply) -> Arc<Self> {
        Arc::new(SharedReply { reply: Mutex::new(Some(reply)), exchange: OnceLock::new() })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Reply>> {
        self.reply.lock()
    }

    /// Tells the app that nobody waits for its response any more; whether there is one to tell.
    pub(crate) fn tell_left(&self, py: Python<'_>) -> PyResult<bool> {
        match self.exchange.get().and_then(Weak::upgrade) {
            Some(state) => leave(&state, py).map(|()| true),
            None => Ok(false),
        }
    }
}

/// One request and its response, as messages.
#[pyclass(frozen)]
pub(crate) struct Exchange {
    request: Py<Request>,
    /// None where the response is to be returned: between the server and this app is a handler that wants to see it.
    way: Option<(Arc<SharedReply>, Weak<Queue>)>,
    /// No Python runs while this is locked.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    stage: Stage,
    /// The parts of a body that comes in several.
    parts: Vec<u8>,
    was_read: bool,
    /// The client has left before the response was complete.
    left: bool,
    /// An `asyncio.Event` for those who wait for the end.
    ended: Option<Py<PyAny>>,
}

impl State {
    fn is_over(&self) -> bool {
        self.left || matches!(self.stage, Stage::Complete(_))
    }
}

#[derive(Default)]
enum Stage {
    #[default]
    Begun,
    Started(Response),
    /// Its body is sent as it comes.
    Streaming(Py<BodySender>),
    /// With a response that is to be returned.
    Complete(Option<Response>),
    Failed,
}

#[pymethods]
impl Exchange {
    /// For a request that `handler` was called with. The response is sent as it comes where the server itself called it,
    /// and else returned whole by `end`.
    #[new]
    fn new(request: Py<Request>, handler: &Bound<'_, PyAny>) -> Self {
        let way = request.get().called(handler).map(|called| (called.reply.clone(), called.queue.clone()));
        let state = Arc::<Mutex<State>>::default();
        if let Some((reply, _)) = &way {
            // A second call of the app for the same request is one that a handler of its own makes; the first is told.
            let _ = reply.exchange.set(Arc::downgrade(&state));
        }
        Exchange { request, way, state }
    }

    /// `http.request` with the whole body; then `http.disconnect`, once the response is complete.
    fn receive<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let (first, over) = {
            let mut state = slf.get().state.lock();
            let first = !std::mem::replace(&mut state.was_read, true);
            (first, state.is_over())
        };
        let message = PyDict::new(py);
        if first {
            message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
            let body = slf.get().request.get().value(py, const { position("body") })?;
            message.set_item(intern!(py, "body"), body)?;
            message.set_item(intern!(py, "more_body"), false)?;
        } else if over {
            message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
        } else {
            static WAIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            return WAIT.import(py, "portico._asgi", "disconnect")?.call1((slf,));
        }
        Ok(Bound::new(py, Ready(Some(message.into_any().unbind())))?.into_any())
    }

    /// Takes `http.response.start` and `http.response.body`.
    ///
    /// Raises `ResponseError` for what is none, and for what comes out of turn.
    fn send<'py>(slf: &Bound<'py, Self>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (py, exchange) = (message.py(), slf.get());
        let Ok(message) = message.cast::<PyDict>() else {
            return wrong(format!("send: a message is a dict, not {}", kind(message)));
        };
        let name = message.get_item(intern!(py, "type"))?;
        let name = name.as_ref().and_then(|name| name.cast::<PyString>().ok()).map(|name| name.to_cow()).transpose()?;
        match name.as_deref() {
            Some("http.response.start") => exchange.start(message)?,
            Some("http.response.body") => {
                if let Some(full) = exchange.body(slf, message)? {
                    static ROOM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                    return ROOM.import(py, "portico._bodies", "room")?.call1((full,));
                }
            }
            Some(other) => return wrong(format!("send: no message {other:?} belongs to a request")),
            None => return wrong("send: a message has a type, which is a str".to_string()),
        }
        done(py).map(Bound::into_any)
    }

    /// To be called when the app has returned: the response as a dict, or None where it is sent already.
    ///
    /// Raises `ResponseError` where the app has not completed it.
    fn end<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let stage = std::mem::replace(&mut self.state.lock().stage, Stage::Complete(None));
        self.wake(py)?;
        match stage {
            Stage::Begun | Stage::Started(_) | Stage::Streaming(_) if self.state.lock().left => Ok(None),
            Stage::Begun => wrong("the ASGI app returned without an http.response.start".to_string()),
            Stage::Started(_) | Stage::Streaming(_) => {
                wrong("the ASGI app returned before its last http.response.body".to_string())
            }
            Stage::Failed => wrong("the ASGI app went on after an error of its response".to_string()),
            Stage::Complete(response) => response.map(|response| to_dict(py, response)).transpose(),
        }
    }

    /// To be called when the app has raised: there will be no response.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        self.state.lock().stage = Stage::Complete(None);
        self.wake(py)
    }

    /// The client has left while the response was being sent.
    fn client_left(&self, py: Python<'_>) -> PyResult<()> {
        leave(&self.state, py)
    }

    /// Whether the client has left before the response was complete.
    #[getter]
    fn left(&self) -> bool {
        self.state.lock().left
    }

    /// An `asyncio.Event` that is set when the response is complete, or cannot be any more.
    fn ended<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static EVENT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let new = EVENT.import(py, "asyncio", "Event")?.call0()?;
        let (event, over) = {
            let mut state = self.state.lock();
            let event = state.ended.get_or_insert_with(|| new.clone().unbind()).clone_ref(py);
            (event, state.is_over())
        };
        if over {
            self.wake(py)?;
        }
        Ok(event.into_bound(py))
    }
}

impl Exchange {
    fn start(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        let Some(status) = message.get_item(intern!(py, "status"))? else {
            return wrong("http.response.start: the status is missing".to_string());
        };
        let mut response = Response::new(to_status(&status, "http.response.start: status")?, Bytes::new());
        if let Some(headers) = message.get_item(intern!(py, "headers"))? {
            add_headers(&mut response, &headers)?;
        }
        response.check().map_err(crate::errors::to_python)?;
        let mut state = self.state.lock();
        match state.stage {
            // Nobody hears it any more, and the specification has what follows the end ignored.
            Stage::Complete(_) => return Ok(()),
            Stage::Begun if state.left => return Err(BodySender::gone()),
            Stage::Begun => {}
            _ => return wrong("send: a second http.response.start".to_string()),
        }
        state.stage = Stage::Started(response);
        Ok(())
    }

    /// Takes a part of the body; gives what is full, where the app is to wait for room.
    fn body(&self, slf: &Bound<'_, Self>, message: &Bound<'_, PyDict>) -> PyResult<Option<Py<BodySender>>> {
        let py = message.py();
        let body = match message.get_item(intern!(py, "body"))? {
            None => Bytes::new(),
            Some(body) if is_bytes(&body) => to_body(&body)?,
            Some(body) => return wrong(format!("http.response.body: body: bytes, not {}", kind(&body))),
        };
        let more = match message.get_item(intern!(py, "more_body"))? {
            None => false,
            Some(more) => more.cast::<PyBool>().map_or_else(|_| more.is_truthy(), |more| Ok(more.is_true()))?,
        };
        // Whatever goes wrong from here on, the response cannot go on.
        let stage = std::mem::replace(&mut self.state.lock().stage, Stage::Failed);
        match stage {
            Stage::Started(_) if self.state.lock().left => {
                self.state.lock().stage = Stage::Begun;
                Err(BodySender::gone())
            }
            Stage::Started(response) if more => self.begin_streaming(slf, response, body),
            Stage::Started(response) => self.complete(py, response, body).map(|()| None),
            Stage::Streaming(sender) => self.stream(py, sender, body, more),
            Stage::Begun => {
                self.state.lock().stage = Stage::Begun;
                wrong("send: http.response.body before http.response.start".to_string())
            }
            Stage::Complete(response) => {
                self.state.lock().stage = Stage::Complete(response);
                Ok(None)
            }
            Stage::Failed => wrong("send: http.response.body after an error of this response".to_string()),
        }
    }

    /// Sends the response, whose body is whole with this part, or leaves it to be returned.
    fn complete(&self, py: Python<'_>, mut response: Response, body: Bytes) -> PyResult<()> {
        let mut parts = std::mem::take(&mut self.state.lock().parts);
        response.body = if parts.is_empty() {
            body.into()
        } else {
            parts.extend_from_slice(&body);
            parts.into()
        };
        check_length(&mut response, &self.request.get().core().method)?;
        let to_return = match &self.way {
            // Where the server itself called the app, and took the reply back, nobody waits any more.
            Some((reply, _)) => {
                let reply = reply.lock().take();
                if let Some(reply) = reply {
                    reply.send(response);
                }
                None
            }
            None => Some(response),
        };
        self.state.lock().stage = Stage::Complete(to_return);
        self.wake(py)
    }

    /// Sends the head, and the first part; where the response is to be returned its parts are kept instead.
    fn begin_streaming(
        &self,
        slf: &Bound<'_, Self>,
        mut response: Response,
        body: Bytes,
    ) -> PyResult<Option<Py<BodySender>>> {
        let py = slf.py();
        let Some((reply, queue)) = &self.way else {
            let mut state = self.state.lock();
            state.parts.extend_from_slice(&body);
            state.stage = Stage::Started(response);
            return Ok(None);
        };
        // An app hears of its client's leaving by `receive`, and by what its sends raise.
        let (sender, pieces) = channel(None, true);
        response.body = Body::Pieces(pieces);
        response.check().map_err(crate::errors::to_python)?;
        let sender = if response.is_bodiless(&self.request.get().core().method) {
            BodySender::nowhere()
        } else {
            BodySender::new(sender, Length::of(&response), queue.clone())
        };
        let sender = Py::new(py, sender)?;
        let reply = reply.lock().take();
        if let Some(reply) = reply {
            reply.send(response);
        }
        sender.get().when_gone(slf.getattr(intern!(py, "client_left"))?.unbind());
        self.stream(py, sender, body, true)
    }

    fn stream(
        &self,
        py: Python<'_>,
        sender: Py<BodySender>,
        body: Bytes,
        more: bool,
    ) -> PyResult<Option<Py<BodySender>>> {
        let has_room = match sender.get().send_bytes(body) {
            // The client has left. An app that goes on is told again.
            Err(error) if error.is_instance_of::<PyOSError>(py) => Err(error),
            sent => Ok(sent.inspect_err(|_| sender.get().abandon())?),
        };
        if !more {
            sender.get().finish()?;
            self.state.lock().stage = Stage::Complete(None);
            self.wake(py)?;
            return has_room.map(|_| None);
        }
        let full = matches!(has_room, Ok(false)).then(|| sender.clone_ref(py));
        self.state.lock().stage = Stage::Streaming(sender);
        has_room.map(|_| full)
    }

    /// Tells those who wait for the end.
    fn wake(&self, py: Python<'_>) -> PyResult<()> {
        wake(&self.state, py)
    }
}

fn leave(state: &Mutex<State>, py: Python<'_>) -> PyResult<()> {
    state.lock().left = true;
    wake(state, py)
}

fn wake(state: &Mutex<State>, py: Python<'_>) -> PyResult<()> {
    let ended = state.lock().ended.take();
    match ended {
        None => Ok(()),
        Some(ended) => ended.call_method0(py, intern!(py, "set")).map(drop),
    }
}

/// An iterable of pairs of bytes, as the specification has it.
fn add_headers(response: &mut Response, headers: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(list) = headers.cast::<PyList>() {
        response.headers.reserve(list.len());
        return list.iter().try_for_each(|line| add_header(response, &line));
    }
    let Ok(lines) = headers.try_iter() else {
        return wrong(format!("http.response.start: headers: an iterable of [name, value], not {}", kind(headers)));
    };
    for line in lines {
        add_header(response, &line?)?;
    }
    Ok(())
}

fn add_header(response: &mut Response, line: &Bound<'_, PyAny>) -> PyResult<()> {
    let pair = if let Ok(pair) = line.cast::<PyTuple>() {
        (pair.len() == 2).then(|| (pair.get_item(0), pair.get_item(1)))
    } else if let Ok(pair) = line.cast::<PyList>() {
        (pair.len() == 2).then(|| (pair.get_item(0), pair.get_item(1)))
    } else {
        None
    };
    let Some((Ok(name), Ok(value))) = pair else {
        return wrong(format!("http.response.start: headers: a [name, value] each, not {}", line.repr()?));
    };
    let (Ok(name), Ok(value)) = (name.cast::<PyBytes>(), value.cast::<PyBytes>()) else {
        return wrong(format!("http.response.start: headers: name and value are bytes, not {}", line.repr()?));
    };
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        return wrong(format!("http.response.start: {} is no header name (RFC 9110 section 5.1)", name.repr()?));
    };
    // The transfer coding is the server's choice; apps that pass on somebody else's response name one all the same.
    if name == header::TRANSFER_ENCODING {
        return Ok(());
    }
    match HeaderValue::from_bytes(trimmed(value.as_bytes())) {
        Ok(value) => response.headers.push((name, value)),
        Err(_) => {
            let value = value.repr()?;
            return wrong(format!(
                "http.response.start: header {name}: {value} has a control character (CR or LF, say)"
            ));
        }
    }
    Ok(())
}

/// Without the white space that is no part of a value (RFC 9110 section 5.5): no line ends, which are errors.
fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

fn is_bytes(body: &Bound<'_, PyAny>) -> bool {
    body.is_instance_of::<PyBytes>() || body.is_instance_of::<PyByteArray>() || body.is_instance_of::<PyMemoryView>()
}

/// A length without its body may answer HEAD, or stand in a 304 (RFC 9110 section 8.6).
fn check_length(response: &mut Response, method: &Method) -> PyResult<()> {
    response.check().map_err(crate::errors::to_python)?;
    if !response.body.is_empty() || method == Method::HEAD || response.status == StatusCode::NOT_MODIFIED {
        return Ok(());
    }
    match response.headers.iter().find(|(name, value)| name == header::CONTENT_LENGTH && value != "0") {
        Some((_, value)) => wrong(format!("header content-length: {value:?} is not the length of the body, 0")),
        None => Ok(()),
    }
}

/// As a handler returns one.
pub(crate) fn to_dict(py: Python<'_>, response: Response) -> PyResult<Bound<'_, PyDict>> {
    let headers = PyDict::new(py);
    for (name, value) in &response.headers {
        let value = latin1(py, value.as_bytes());
        match headers.get_item(name.as_str())? {
            None => headers.set_item(name.as_str(), PyList::new(py, [value])?)?,
            Some(before) => before.cast::<PyList>()?.append(value)?,
        }
    }
    let dict = PyDict::new(py);
    dict.set_item(intern!(py, "statusCode"), response.status.as_u16())?;
    dict.set_item(intern!(py, "multiValueHeaders"), headers)?;
    match response.body {
        Body::Whole(body) => dict.set_item(intern!(py, "body"), PyBytes::new(py, &body))?,
        body => dict.set_item(intern!(py, "body"), FileBody::new(py, body)?)?,
    }
    Ok(dict)
}

/// An awaitable that has its result already: awaiting it does not suspend. It has the methods of a coroutine, because
/// `asyncio.create_task` wants one.
#[pyclass(frozen)]
pub(crate) struct Ready(Option<Py<PyAny>>);

fn done(py: Python<'_>) -> PyResult<Bound<'_, Ready>> {
    static DONE: PyOnceLock<Py<Ready>> = PyOnceLock::new();
    Ok(DONE.get_or_try_init(py, || Py::new(py, Ready(None)))?.bind(py).clone())
}

#[pymethods]
impl Ready {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<()>> {
        match &self.0 {
            None => Ok(None),
            Some(value) => Err(PyStopIteration::new_err(value.clone_ref(py))),
        }
    }

    fn send(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = value;
        Err(PyStopIteration::new_err(self.0.as_ref().map(|value| value.clone_ref(py))))
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw<'py>(
        &self,
        kind: &Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let _ = traceback;
        Err(PyErr::from_value(value.unwrap_or_else(|| kind.clone())))
    }

    fn close(&self) {}
}
