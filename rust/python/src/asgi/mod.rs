//! The quick parts of `portico.asgi` (the ASGI 3 specification, HTTP): a request's `receive` and `send`. The rest is
//! `python/portico/_asgi.py`.

mod response;
pub(crate) mod scope;

use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use portico_core::http::body::{Cut, channel};
use portico_core::http::{Body, Response, Trailers};
use portico_core::locks::Mutex;
use portico_core::{Reply, RequestError};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyString, PyType};

pub(crate) use self::response::to_dict;
use self::response::{add_headers, add_trailers, check_length, is_bytes};
use crate::bodies::{BodySender, Length};
use crate::errors;
use crate::loops::{Queue, Sleeper};
use crate::request::{Request, position};
use crate::response::{kind, to_body, to_status, wrong};

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
    /// What is to follow the body, of an app that says that something does, to a client that takes it; else none.
    trailers: Option<Trailers>,
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
    /// It is whole, and its trailers are to come.
    Trailing(Py<BodySender>),
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

    /// `http.request` with the whole body, or one for each piece of a body that is still coming; then `http.disconnect`,
    /// once the response is complete or the client has left.
    fn receive<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if slf.get().is_coming() {
            static PIECE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            return match slf.get().next_piece(py, Waker::noop())? {
                Some(message) => Ok(Bound::new(py, Ready(Some(message.into_any().unbind())))?.into_any()),
                None => PIECE.import(py, "portico._bodies", "next_piece")?.call1((slf,)),
            };
        }
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

    /// The next message of a body that is still coming; None where there is none yet, and then `future` is done when to ask
    /// again.
    fn poll<'py>(&self, py: Python<'py>, future: Py<PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
        match self.request.get().queue() {
            Some(queue) => self.next_piece(py, &Sleeper::waker(queue, future)),
            None => {
                Err(PyRuntimeError::new_err("a body that is still coming is received on the server's event loop only"))
            }
        }
    }

    /// Whether trailers of the response are sent. One that is returned has no place for them.
    #[getter]
    fn takes_trailers(&self) -> bool {
        self.way.is_some() && self.request.get().core().takes_trailers()
    }

    /// Takes `http.response.start`, `http.response.body`, `http.response.pathsend` and `http.response.trailers`.
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
            Some("http.response.pathsend") => exchange.path(message)?,
            Some("http.response.trailers") => exchange.trailers(message)?,
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
            Stage::Begun | Stage::Started(_) | Stage::Streaming(_) | Stage::Trailing(_) if self.state.lock().left => {
                Ok(None)
            }
            Stage::Begun => wrong("the ASGI app returned without an http.response.start".to_string()),
            Stage::Started(_) | Stage::Streaming(_) => {
                wrong("the ASGI app returned before its last http.response.body".to_string())
            }
            Stage::Trailing(_) => wrong(
                "the ASGI app returned before its last http.response.trailers, which its start says come".to_string(),
            ),
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
    /// Whether some of the body may not have been received, and need not be here.
    fn is_coming(&self) -> bool {
        self.request.get().coming().is_some() && !self.state.lock().was_read
    }

    fn next_piece<'py>(&self, py: Python<'py>, waker: &Waker) -> PyResult<Option<Bound<'py, PyDict>>> {
        let incoming = self.request.get().coming().filter(|_| !self.state.lock().is_over());
        let piece = match incoming.map(|incoming| incoming.poll_piece(&mut Context::from_waker(waker))) {
            Some(Poll::Pending) => return Ok(None),
            Some(Poll::Ready(Ok(piece))) => Some(piece),
            Some(Poll::Ready(Err(cut))) => {
                if let Cut::Refused(error) = cut {
                    self.refuse(&error)?;
                }
                leave(&self.state, py)?;
                None
            }
            None => None,
        };
        let message = PyDict::new(py);
        match piece {
            None => message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?,
            Some(piece) => {
                message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
                message.set_item(intern!(py, "body"), PyBytes::new(py, piece.as_deref().unwrap_or_default()))?;
                message.set_item(intern!(py, "more_body"), piece.is_some())?;
                self.state.lock().was_read = piece.is_none();
            }
        }
        Ok(Some(message))
    }

    /// Answers for an app whose request is refused in the middle: it has no message for that, and takes it for one whose
    /// client has left.
    fn refuse(&self, error: &RequestError) -> PyResult<()> {
        let Some((reply, _)) = &self.way else { return Err(errors::refused_to_python(error)) };
        let reply = reply.lock().take();
        if let Some(reply) = reply {
            reply.send(Response::refusal(error));
        }
        Ok(())
    }

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
        let trailing = is_true(message, intern!(py, "trailers"))? && self.takes_trailers();
        let mut state = self.state.lock();
        match state.stage {
            // Nobody hears it any more, and the specification has what follows the end ignored.
            Stage::Complete(_) => return Ok(()),
            Stage::Begun if state.left => return Err(BodySender::gone()),
            Stage::Begun => {}
            _ => return wrong("send: a second http.response.start".to_string()),
        }
        state.stage = Stage::Started(response);
        state.trailers = trailing.then(Trailers::default);
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
        let more = is_true(message, intern!(py, "more_body"))?;
        // Whatever goes wrong from here on, the response cannot go on.
        let stage = std::mem::replace(&mut self.state.lock().stage, Stage::Failed);
        match stage {
            Stage::Started(_) if self.state.lock().left => {
                self.state.lock().stage = Stage::Begun;
                Err(BodySender::gone())
            }
            Stage::Started(response) if more || self.state.lock().trailers.is_some() => {
                self.begin_streaming(slf, response, body, more)
            }
            Stage::Started(mut response) => {
                let mut parts = std::mem::take(&mut self.state.lock().parts);
                response.body = if parts.is_empty() {
                    body.into()
                } else {
                    parts.extend_from_slice(&body);
                    parts.into()
                };
                self.complete(py, response).map(|()| None)
            }
            Stage::Streaming(sender) => self.stream(py, sender, body, more),
            other => self.out_of_turn(other, "http.response.body").map(|()| None),
        }
    }

    /// Takes a file as the body, whole, whatever part of it the request asks for: that is the app's business (the
    /// specification's extension Path Send).
    fn path(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        let path: PathBuf = match message.get_item(intern!(py, "path"))? {
            Some(path) if path.is_instance_of::<PyString>() => path.extract()?,
            _ => return wrong("http.response.pathsend: path: a str".to_string()),
        };
        if !path.is_absolute() {
            return wrong(format!("http.response.pathsend: path: {} is not absolute", path.display()));
        }
        let body = crate::files::open(py, &path)?.into_body();
        let stage = std::mem::replace(&mut self.state.lock().stage, Stage::Failed);
        match stage {
            Stage::Started(_) if self.state.lock().left => {
                self.state.lock().stage = Stage::Begun;
                Err(BodySender::gone())
            }
            Stage::Started(mut response) if self.state.lock().parts.is_empty() => {
                response.body = body;
                self.complete(py, response)
            }
            Stage::Started(_) | Stage::Streaming(_) => {
                wrong("send: http.response.pathsend after a part of the body".to_string())
            }
            other => self.out_of_turn(other, "http.response.pathsend"),
        }
    }

    /// Takes trailers. Where none are sent they are checked all the same, so that an app is wrong or right whoever asks; what
    /// is wrong neither is sent nor ends the response.
    fn trailers(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        let mut new = Trailers::default();
        if let Some(headers) = message.get_item(intern!(py, "headers"))? {
            add_trailers(&mut new, &headers)?;
        }
        let more = is_true(message, intern!(py, "more_trailers"))?;
        let (sender, trailers) = {
            let mut state = self.state.lock();
            match std::mem::replace(&mut state.stage, Stage::Failed) {
                Stage::Trailing(sender) => {
                    let mut trailers = state.trailers.take().unwrap_or_default();
                    let added = trailers.append(new).map_err(errors::to_python);
                    if more || added.is_err() {
                        state.trailers = Some(trailers);
                        state.stage = Stage::Trailing(sender);
                        return added;
                    }
                    state.stage = Stage::Complete(None);
                    (sender, trailers)
                }
                early @ (Stage::Started(_) | Stage::Streaming(_)) => {
                    state.stage = early;
                    return wrong("send: http.response.trailers before the last http.response.body".to_string());
                }
                other => {
                    drop(state);
                    return self.out_of_turn(other, "http.response.trailers");
                }
            }
        };
        let sent = sender.get().finish_with(trailers);
        self.wake(py)?;
        sent
    }

    /// A body where none is due. What follows the end is ignored, as the specification has it.
    fn out_of_turn(&self, stage: Stage, name: &str) -> PyResult<()> {
        match stage {
            Stage::Begun => {
                self.state.lock().stage = Stage::Begun;
                wrong(format!("send: {name} before http.response.start"))
            }
            Stage::Failed => wrong(format!("send: {name} after an error of this response")),
            Stage::Trailing(_) => {
                self.state.lock().stage = stage;
                wrong(format!("send: {name} after the last http.response.body; http.response.trailers is due"))
            }
            over => {
                self.state.lock().stage = over;
                Ok(())
            }
        }
    }

    /// Sends the response, whose body is whole, or leaves it to be returned.
    fn complete(&self, py: Python<'_>, mut response: Response) -> PyResult<()> {
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
        more: bool,
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
        let trailing = self.state.lock().trailers.is_some();
        response.body = Body::Pieces(if trailing { pieces.with_trailers() } else { pieces });
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
        self.stream(py, sender, body, more)
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
            if self.state.lock().trailers.is_some() {
                sender.get().check_whole()?;
                self.state.lock().stage = Stage::Trailing(sender);
                return has_room.map(|_| None);
            }
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

/// A flag of a message, which is off where it is not there.
fn is_true(message: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> PyResult<bool> {
    match message.get_item(key)? {
        None => Ok(false),
        Some(flag) => flag.cast::<PyBool>().map_or_else(|_| flag.is_truthy(), |flag| Ok(flag.is_true())),
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
