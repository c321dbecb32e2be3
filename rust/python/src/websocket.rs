//! WebSockets in the hands of Python: the handshake, and the callback's end of a socket. What users see is in
//! `python/portico/_websocket.py`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use portico_core::http::{Request as CoreRequest, Response};
use portico_core::locks::Mutex;
use portico_core::raw::{self, StreamError, Timeout};
use portico_core::websocket::{self, Close, Kind, Options, Refused};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::bodies::Long;
use crate::connection::ConnectionInfo;
use crate::errors::ConfigError;
use crate::handler::Site;
use crate::loops::{Bridge, Queue};
use crate::request::{Request, latin1};
use crate::response::{kind, wrong};
use crate::server::Server;
use crate::slot::Slot;
use crate::streams::{self, Operation, Visit};

/// Messages from this size on may take long to compress.
const LONG: usize = 8 * 1024;

/// Whether a request asks for a WebSocket, rightly or not.
#[pyfunction]
pub(crate) fn is_websocket(request: &Bound<'_, Request>) -> bool {
    websocket::Handshake::is_asked_for(request.get().core())
}

/// `portico._websocket.Options`, attribute by attribute.
#[derive(FromPyObject)]
pub(crate) struct Given {
    subprotocols: Vec<String>,
    max_message_bytes: usize,
    ping_interval: Option<f64>,
    idle_timeout: Option<f64>,
    origins: Option<Vec<Option<String>>>,
    compression: bool,
}

impl From<Given> for Options {
    fn from(given: Given) -> Self {
        let time = |seconds: Option<f64>| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Options {
            subprotocols: given.subprotocols,
            max_message_bytes: given.max_message_bytes,
            ping_interval: time(given.ping_interval),
            idle_timeout: time(given.idle_timeout),
            origins: given.origins,
            compression: given.compression,
        }
    }
}

/// A request that may become a WebSocket.
#[pyclass(frozen)]
pub(crate) struct Handshake {
    server: Arc<portico_core::Server>,
    site: Arc<Site>,
    request: CoreRequest,
    options: Options,
    read: Result<(websocket::Handshake, Option<String>), Refused>,
}

#[pymethods]
impl Handshake {
    #[new]
    #[pyo3(signature = (server, request, options))]
    fn new(server: &Server, request: &Request, options: Given) -> Self {
        let options = Options::from(options);
        let (server, site, enabled) = server.for_websockets();
        let request = request.core().clone();
        let read = if enabled { websocket::Handshake::read(&request) } else { Err(Refused::SWITCHED_OFF) };
        let read = read.and_then(|handshake| Ok((handshake.clone(), handshake.agree(&options)?)));
        Handshake { server, site, request, options, read }
    }

    /// Why it becomes none; None where it does.
    #[getter]
    fn refused(&self) -> Option<&'static str> {
        self.read.as_ref().err().map(|refused| refused.reason)
    }

    /// The response that says so.
    fn refusal<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.read.as_ref().err().map(|refused| to_dict(py, &refused.response())).transpose()
    }

    /// The protocol that both speak.
    #[getter]
    fn subprotocol(&self) -> Option<&str> {
        self.read.as_ref().ok().and_then(|(_, subprotocol)| subprotocol.as_deref())
    }

    /// The protocols that the client speaks.
    #[getter]
    fn offered(&self) -> Vec<String> {
        self.read.as_ref().map(|(handshake, _)| handshake.offered().to_vec()).unwrap_or_default()
    }

    /// Makes it one: the response to send, and the socket, whose callback runs on the event loop behind `bridge`, where one
    /// is given.
    #[pyo3(signature = (subprotocol, bridge))]
    fn accept<'py>(
        &self,
        py: Python<'py>,
        subprotocol: Option<&str>,
        bridge: Option<&Bound<'py, Bridge>>,
    ) -> PyResult<(Bound<'py, PyDict>, Socket)> {
        let Ok((handshake, _)) = &self.read else {
            return wrong("a request that is no handshake becomes no WebSocket".into());
        };
        let opened = websocket::Socket::open(&self.server, &self.request, handshake, subprotocol, self.options.clone());
        let (mut response, socket) = opened.map_err(|error| ConfigError::new_err(error.to_string()))?;
        let upgrade = response.upgrade.take();
        let dict = to_dict(py, &response)?;
        dict.set_item(intern!(py, "body"), Bound::new(py, Upgrade(Mutex::new(upgrade)))?)?;
        let queue = bridge.map(|bridge| Arc::downgrade(&bridge.get().queue));
        Ok((dict, Socket { socket, site: self.site.clone(), queue }))
    }
}

fn to_dict<'py>(py: Python<'py>, response: &Response) -> PyResult<Bound<'py, PyDict>> {
    let (dict, headers) = (PyDict::new(py), PyDict::new(py));
    for (name, value) in &response.headers {
        let name: &HeaderName = name;
        headers.set_item(name.as_str(), latin1(py, value.as_bytes()))?;
    }
    dict.set_item(intern!(py, "statusCode"), response.status.as_u16())?;
    dict.set_item(intern!(py, "headers"), headers)?;
    if let portico_core::http::Body::Whole(body) = &response.body {
        dict.set_item(intern!(py, "body"), latin1(py, body))?;
    }
    Ok(dict)
}

/// What a response has for its body that begins a WebSocket.
#[pyclass(frozen)]
pub(crate) struct Upgrade(Mutex<Option<Box<websocket::Upgrade>>>);

impl Upgrade {
    /// What the connection goes on with.
    pub(crate) fn take(&self) -> PyResult<Box<websocket::Upgrade>> {
        match self.0.lock().take() {
            Some(upgrade) => Ok(upgrade),
            None => wrong("body: the response of a WebSocket was sent already".into()),
        }
    }
}

/// A socket of the core: each call gives an [`Operation`], to be waited for on a thread or polled on a loop.
#[pyclass(frozen, weakref)]
pub(crate) struct Socket {
    socket: websocket::Socket,
    site: Arc<Site>,
    /// The way back to the event loop on which the callback runs.
    queue: Option<Weak<Queue>>,
}

impl Socket {
    fn begin(&self, operation: raw::Operation) -> Operation {
        Operation::new(self.socket.connection().clone(), self.site.clone(), self.queue.clone(), operation)
    }

    fn writing(&self, py: Python<'_>, begun: Result<raw::Operation, StreamError>) -> PyResult<Operation> {
        begun
            .map(|operation| self.begin(operation))
            .map_err(|error| streams::to_python(py, self.socket.connection(), error))
    }
}

#[pymethods]
impl Socket {
    /// Has `target(socket)` called: on the event loop behind `bridge`, as a coroutine function; else on a thread.
    #[pyo3(signature = (target, bridge))]
    fn visit(slf: &Bound<'_, Self>, target: Py<PyAny>, bridge: Option<&Bound<'_, Bridge>>) -> PyResult<()> {
        let Socket { socket, site, .. } = slf.get();
        let visit =
            Visit::of_socket(Slot::new(target), site.clone(), socket.connection().clone(), slf.clone().unbind());
        match bridge {
            Some(bridge) => bridge.get().queue.visit(visit),
            None => {
                site.long.start()?;
                site.long.submit(Long::Visit(visit));
            }
        }
        Ok(())
    }

    #[getter]
    fn info(&self) -> ConnectionInfo {
        ConnectionInfo(self.socket.connection().info().clone())
    }

    /// The next message, str or bytes; None at the end.
    #[pyo3(signature = (seconds))]
    fn receive(&self, seconds: Option<f64>) -> PyResult<Operation> {
        let timeout = seconds.map_or(Ok(Timeout::Is(None)), |seconds| streams::timeout(Some(seconds)))?;
        Ok(self.begin(self.socket.receive(timeout)))
    }

    /// A message: of text for str, else of bytes.
    fn send(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let (kind, payload) = match data.cast::<PyString>() {
            Ok(text) => (Kind::Text, Bytes::copy_from_slice(text.to_str()?.as_bytes())),
            Err(_) => (Kind::Binary, streams::to_bytes(data)?),
        };
        // The GIL is kept for what is done in a moment.
        let sent = if payload.len() < LONG {
            self.socket.send(kind, payload)
        } else {
            py.detach(|| self.socket.send(kind, payload))
        };
        self.writing(py, sent)
    }

    fn ping(&self, py: Python<'_>, payload: &[u8]) -> PyResult<Operation> {
        self.writing(py, self.socket.ping(payload))
    }

    /// Counts that the callback raised.
    fn failed(&self) {
        self.socket.connection().failed();
    }

    /// Says goodbye, and returns.
    fn close(&self, code: u16, reason: String) -> PyResult<()> {
        if !Close::may_be_sent(code) {
            let text = format!("code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 section 7.4), not {code}");
            return Err(pyo3::exceptions::PyValueError::new_err(text));
        }
        self.socket.close(Close::new(code, reason));
        Ok(())
    }

    /// How it ended: code, reason, and what went wrong where that is how. None while it goes on.
    fn ended(&self) -> Option<(u16, String, Option<String>)> {
        self.socket.ended().map(|(close, failure)| (close.code, close.reason.into_owned(), failure))
    }
}

/// Header lines as ASGI has them, as a response dict has them.
///
/// Raises `ResponseError` for what cannot be sent.
#[pyfunction]
pub(crate) fn asgi_headers<'py>(py: Python<'py>, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let headers = PyDict::new(py);
    for pair in given.try_iter()? {
        let pair = pair?;
        let Ok((name, value)) = pair.extract::<(Vec<u8>, Vec<u8>)>() else {
            return wrong(format!("headers: pairs of bytes, not {}", kind(&pair)));
        };
        let (Ok(name), Ok(_)) = (HeaderName::from_bytes(&name), HeaderValue::from_bytes(&value)) else {
            return wrong(format!("headers: {} is no header (RFC 9110 section 5.1)", pair.repr()?));
        };
        let (name, value) = (PyString::new(py, name.as_str()), latin1(py, &value));
        match headers.get_item(&name)? {
            Some(list) => list.cast::<PyList>()?.append(value)?,
            None => headers.set_item(name, PyList::new(py, [value])?)?,
        }
    }
    Ok(headers)
}
