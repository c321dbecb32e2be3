//! `portico.Request`: the core's request, its values made when first asked for.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use portico_core::http::body::Incoming;
use portico_core::http::form::Limits;
use portico_core::http::target::parse_query;
use pyo3::exceptions::{PyKeyError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyString};
use pyo3::{IntoPyObjectExt, intern};

use crate::asgi::SharedReply;
use crate::connection::ConnectionInfo;
use crate::errors;
use crate::forms;
use crate::loops::Queue;
use crate::uploads::{self, BodyStream};

/// The keys of the mapping, in their order.
pub(crate) const KEYS: [&str; 14] = [
    "httpMethod",
    "url",
    "version",
    "path",
    "rawPath",
    "queryString",
    "queryStringParameters",
    "multiValueQueryStringParameters",
    "headers",
    "multiValueHeaders",
    "cookies",
    "body",
    "isBase64Encoded",
    "pathParameters",
];

/// One request. Read-only, and a mapping of its keys to the attributes of the same names.
#[pyclass(frozen, mapping, module = "portico", weakref)]
pub(crate) struct Request {
    request: Box<portico_core::http::Request>,
    /// A weak reference to the `portico.Server`; none where only bytes were parsed.
    server: Option<Py<PyAny>>,
    /// On an event loop: how it was called.
    called: Option<Called>,
    made: [PyOnceLock<Py<PyAny>>; KEYS.len()],
    /// Of a body that comes while the handler runs: its rest, once it was read whole.
    rest: OnceLock<Bytes>,
    forms: Arc<Limits>,
    form: PyOnceLock<Py<PyAny>>,
    /// A body that comes while the handler runs was, or is being, read as a form.
    into_form: AtomicBool,
    /// Its `portico.sessions.Session`, once it was asked for.
    session: PyOnceLock<Py<PyAny>>,
    /// Nobody keeps what is changed in the session from now on.
    is_settled: AtomicBool,
}

/// A call of a handler on an event loop.
pub(crate) struct Called {
    /// The handler, by its address.
    pub(crate) handler: usize,
    /// Where the answer goes.
    pub(crate) reply: Arc<SharedReply>,
    /// The way to the loop.
    pub(crate) queue: Weak<Queue>,
}

type Value<'py> = PyResult<Bound<'py, PyAny>>;

impl Request {
    pub(crate) fn new(
        request: Box<portico_core::http::Request>,
        server: Option<Py<PyAny>>,
        called: Option<Called>,
        forms: Arc<Limits>,
    ) -> Self {
        Request {
            request,
            server,
            called,
            made: [const { PyOnceLock::new() }; KEYS.len()],
            rest: OnceLock::new(),
            forms,
            form: PyOnceLock::new(),
            into_form: AtomicBool::new(false),
            session: PyOnceLock::new(),
            is_settled: AtomicBool::new(false),
        }
    }

    /// The core's request.
    pub(crate) fn core(&self) -> &portico_core::http::Request {
        &self.request
    }

    /// The whole body; one that is still coming is waited for.
    fn body_bytes(&self, py: Python<'_>) -> PyResult<Bytes> {
        let Some(incoming) = &self.request.incoming else { return Ok(self.request.body.clone()) };
        if let Some(rest) = self.rest.get() {
            return Ok(rest.clone());
        }
        self.check_no_form()?;
        if self.called.is_some() {
            return Err(PyRuntimeError::new_err(
                "the body is still coming, and waiting for it here would hold up the event loop: call `await request.read()` first",
            ));
        }
        let rest = uploads::wait_for_rest(py, incoming)?;
        Ok(self.rest.get_or_init(|| rest).clone())
    }

    /// Nobody has begun to read a body that is still coming as a form: the rest of it would pass for all.
    fn check_no_form(&self) -> PyResult<()> {
        if self.into_form.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("the body was read as a form, as it came: nothing else is left of it"));
        }
        Ok(())
    }

    /// A body that is still coming, as far as nobody has read it whole.
    pub(crate) fn coming(&self) -> Option<&Incoming> {
        self.request.incoming.as_ref().filter(|_| self.rest.get().is_none())
    }

    /// Keeps the rest of a body that was read elsewhere.
    pub(crate) fn keep_rest(&self, rest: Bytes) {
        let _ = self.rest.set(rest);
    }

    /// The way to the event loop that it was called on.
    pub(crate) fn queue(&self) -> Option<&Weak<Queue>> {
        self.called.as_ref().map(|called| &called.queue)
    }

    /// From now on nobody keeps what is changed in the session; the session as it is, where anybody asked for it.
    pub(crate) fn settle<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyAny>> {
        self.is_settled.store(true, Ordering::Relaxed);
        self.session.get(py).map(|session| session.bind(py))
    }

    /// How it was called, if it was this very handler that the server called on an event loop.
    pub(crate) fn called(&self, handler: &Bound<'_, PyAny>) -> Option<&Called> {
        self.called.as_ref().filter(|called| called.handler == handler.as_ptr() as usize)
    }

    pub(crate) fn value<'py>(&self, py: Python<'py>, index: usize) -> Value<'py> {
        let slot = self.made.get(index).ok_or_else(|| PyKeyError::new_err(index))?;
        Ok(slot.get_or_try_init(py, || self.make(py, KEYS[index]).map(Bound::unbind))?.bind(py).clone())
    }

    fn make<'py>(&self, py: Python<'py>, key: &str) -> Value<'py> {
        let request = &self.request;
        match key {
            "httpMethod" => request.method.as_str().into_bound_py_any(py),
            "url" => request.url().into_bound_py_any(py),
            "version" => request.version_text().into_bound_py_any(py),
            "path" => request.path().into_bound_py_any(py),
            "rawPath" => request.target.raw_path().into_bound_py_any(py),
            "queryString" => request.target.query().into_bound_py_any(py),
            "queryStringParameters" => single(py, self.query(py)),
            "multiValueQueryStringParameters" => multiple(py, self.query(py)),
            "headers" => self.joined_headers(py),
            "multiValueHeaders" => {
                multiple(py, request.headers.iter().map(|(name, value)| (PyString::new(py, name), latin1(py, value))))
            }
            "cookies" => first(py, request.cookies().map(|(name, value)| (latin1(py, name), latin1(py, value)))),
            "body" => Ok(PyBytes::new(py, &self.body_bytes(py)?).into_any()),
            "isBase64Encoded" => Ok(PyBool::new(py, false).to_owned().into_any()),
            _ => {
                let pairs = request.path_parameters();
                single(py, pairs.map(|(name, value)| (PyString::new(py, name), PyString::new(py, value))))
            }
        }
    }

    fn query<'py>(&self, py: Python<'py>) -> impl Iterator<Item = (Bound<'py, PyString>, Bound<'py, PyString>)> {
        parse_query(self.request.target.query()).map(move |(n, v)| (PyString::new(py, &n), PyString::new(py, &v)))
    }

    /// Repeated headers joined by `, ` (RFC 9110 section 5.3); cookies by `; ` (RFC 9113 section 8.2.3).
    fn joined_headers<'py>(&self, py: Python<'py>) -> Value<'py> {
        let dict = PyDict::new(py);
        for (name, value) in self.request.headers.iter() {
            let (key, value) = (PyString::new(py, name), latin1(py, value));
            let joined = match dict.get_item(&key)? {
                None => value,
                Some(_) if name == "set-cookie" => continue, // never joined: a date in it has a comma
                Some(before) => {
                    let separator = if name == "cookie" { "; " } else { ", " };
                    PyString::new(py, &format!("{before}{separator}{value}"))
                }
            };
            dict.set_item(key, joined)?;
        }
        Ok(dict.into_any())
    }

    fn index(key: &str) -> Option<usize> {
        KEYS.iter().position(|known| *known == key)
    }
}

/// Header bytes as text without loss: byte 0xE9 is U+00E9, as WSGI and Starlette have it.
pub(crate) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.is_ascii() => PyString::new(py, text),
        _ => PyString::new(py, &bytes.iter().map(|&byte| char::from(byte)).collect::<String>()),
    }
}

type Pair<'py> = (Bound<'py, PyString>, Bound<'py, PyString>);

/// The last value of each name.
fn single<'py>(py: Python<'py>, pairs: impl Iterator<Item = Pair<'py>>) -> Value<'py> {
    let dict = PyDict::new(py);
    for (name, value) in pairs {
        dict.set_item(name, value)?;
    }
    Ok(dict.into_any())
}

/// The first value of each name: a browser sends the most specific cookie first (RFC 6265 section 5.4).
fn first<'py>(py: Python<'py>, pairs: impl Iterator<Item = Pair<'py>>) -> Value<'py> {
    let dict = PyDict::new(py);
    for (name, value) in pairs {
        if !dict.contains(&name)? {
            dict.set_item(name, value)?;
        }
    }
    Ok(dict.into_any())
}

/// Every value of each name.
fn multiple<'py>(py: Python<'py>, pairs: impl Iterator<Item = Pair<'py>>) -> Value<'py> {
    let dict = PyDict::new(py);
    for (name, value) in pairs {
        match dict.get_item(&name)? {
            Some(list) => list.cast::<PyList>()?.append(value)?,
            None => dict.set_item(name, PyList::new(py, [value])?)?,
        }
    }
    Ok(dict.into_any())
}

fn view<'py>(slf: &Bound<'py, Request>, name: &str) -> Value<'py> {
    slf.py().import(intern!(slf.py(), "collections.abc"))?.getattr(name)?.call1((slf,))
}

pub(crate) const fn position(key: &str) -> usize {
    let mut index = 0;
    while index < KEYS.len() {
        let (known, mut at) = (KEYS[index].as_bytes(), 0);
        if known.len() == key.len() {
            while at < known.len() && known[at] == key.as_bytes()[at] {
                at += 1;
            }
            if at == known.len() {
                return index;
            }
        }
        index += 1;
    }
    index
}

#[pymethods]
impl Request {
    /// The method, as it came: `GET`.
    #[getter(httpMethod)]
    fn http_method<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("httpMethod") })
    }

    /// The whole URL.
    #[getter]
    fn url<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("url") })
    }

    /// `1.0`, `1.1` or `2`.
    #[getter]
    fn version<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("version") })
    }

    /// The path, percent-decoded (what is not UTF-8 becomes U+FFFD) and without dot segments; for what is mounted at a
    /// prefix of it, the rest, which is `/` at least.
    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("path") })
    }

    /// The path as it came.
    #[getter(rawPath)]
    fn raw_path<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("rawPath") })
    }

    /// What follows the `?`, as it came; empty where there is none.
    #[getter(queryString)]
    fn query_string<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("queryString") })
    }

    /// The decoded query: the last value of each name.
    #[getter(queryStringParameters)]
    fn query_string_parameters<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("queryStringParameters") })
    }

    /// The decoded query: every value of each name.
    #[getter(multiValueQueryStringParameters)]
    fn multi_value_query_string_parameters<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("multiValueQueryStringParameters") })
    }

    /// The headers by lower-case name. Repeated ones are joined with `, `, cookies with `; `; text is Latin-1, so nothing is
    /// lost.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("headers") })
    }

    /// The headers by lower-case name: every value.
    #[getter(multiValueHeaders)]
    fn multi_value_headers<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("multiValueHeaders") })
    }

    /// The cookies by name (RFC 6265); of a repeated name the first, which is the most specific. One that came without a
    /// name is that of the empty name (RFC 6265bis).
    #[getter]
    fn cookies<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("cookies") })
    }

    /// The whole body.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("body") })
    }

    /// Always False: `body` is bytes.
    #[getter(isBase64Encoded)]
    fn is_base64_encoded<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("isBase64Encoded") })
    }

    /// What the patterns of a `portico.Router` took out of the path, decoded; empty without one.
    #[getter(pathParameters)]
    fn path_parameters<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("pathParameters") })
    }

    /// The method, as it came: the same as `httpMethod`.
    #[getter]
    fn method<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.value(py, const { position("httpMethod") })
    }

    /// What it is called in logs, where the setting `request_id_header` gives requests ids; else None.
    #[getter]
    fn id(&self) -> Option<&str> {
        self.request.id.as_ref().and_then(|id| id.to_str().ok())
    }

    /// The pattern of the route that led here, with those of the mounts before it: `/shop/items/{id}`. None without a
    /// `portico.Router`.
    #[getter]
    fn route(&self) -> Option<&str> {
        self.request.route_pattern()
    }

    /// The header by which a client says what trace the request is part of, where it keeps to W3C Trace Context; else None. To
    /// be passed on in requests that are made for this one.
    #[getter]
    fn traceparent(&self) -> Option<&str> {
        self.request.traceparent()
    }

    /// The body as text, by the charset of its content type, else UTF-8 (WHATWG Encoding); what does not decode becomes
    /// U+FFFD.
    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.request.decode(&self.body_bytes(py)?).into_bound_py_any(py)
    }

    /// The body parsed as JSON (RFC 8259).
    ///
    /// Raises `RequestError` with status 400 where it is none; a handler that lets it pass answers 400.
    fn json<'py>(&self, py: Python<'py>) -> Value<'py> {
        let body = self.value(py, const { position("body") })?;
        let json = py.import(intern!(py, "json"))?;
        json.call_method1(intern!(py, "loads"), (body,)).map_err(|error| {
            // RecursionError: brackets a thousand deep are no more the server's fault than a missing one.
            let error = errors::RequestError::new_err(format!("the body is not JSON: {}", error.value(py)));
            let _ = error.value(py).setattr(intern!(py, "reason"), "json");
            error
        })
    }

    /// The body in pieces: for `def` handlers an iterator, for `async def` ones an async iterator.
    ///
    /// A handler with the attribute `stream_body = True` gets them as they come; a body that was here with its head
    /// is one piece. Raises `LimitError` or `RequestError` where the body is refused in the middle, `ConnectionResetError`
    /// where the client left.
    fn stream(slf: &Bound<'_, Self>) -> BodyStream {
        BodyStream::new(slf)
    }

    /// Awaits the rest of the body and gives it whole; `body`, `text`, `json()` and `form()` have it from then on. For
    /// `async def` handlers with `stream_body`; in any other it is here already.
    fn read<'py>(slf: &Bound<'py, Self>) -> Value<'py> {
        let py = slf.py();
        slf.get().check_no_form()?;
        py.import(intern!(py, "portico._bodies"))?.getattr(intern!(py, "read_rest"))?.call1((slf, Self::stream(slf)))
    }

    /// The fields of a form, `application/x-www-form-urlencoded` or `multipart/form-data` (RFC 7578), as a
    /// `portico.Form`; empty for any other content type. For `async def` handlers with `stream_body` it is
    /// `await request.form()`, which is right in any `async def` handler.
    ///
    /// Raises `RequestError` with status 400 for a malformed one, `LimitError` with 413 for one that is over a limit of the
    /// settings; a handler that lets it pass answers so. Raises `OSError` where a file has no room on the disk.
    fn form<'py>(slf: &Bound<'py, Self>) -> Value<'py> {
        let (py, this) = (slf.py(), slf.get());
        if let Some(form) = this.form.get(py) {
            return Ok(form.bind(py).clone());
        }
        let form = match this.coming() {
            None => forms::of_body(py, this.request.content_type(), &this.body_bytes(py)?, &this.forms)?,
            // What is no form is not read: it is left to who reads the body.
            Some(incoming) => match forms::reader(this.request.content_type(), &this.forms)? {
                None => forms::empty(py)?,
                Some(_) if this.into_form.swap(true, Ordering::Relaxed) => {
                    return Err(PyRuntimeError::new_err("the form is being read, or reading it failed"));
                }
                Some(reader) => forms::of_incoming(slf, incoming, reader)?,
            },
        };
        Ok(this.form.get_or_init(py, || form.unbind()).bind(py).clone())
    }

    /// The prefix at which what answers is mounted, decoded and without a slash at its end; empty where it is not. The
    /// `SCRIPT_NAME` of WSGI, the `root_path` of ASGI.
    #[getter]
    fn root_path(&self) -> String {
        String::from_utf8_lossy(&self.request.root_path_bytes()).into_owned()
    }

    /// The connection on which it came; None for `parse_request`.
    #[getter]
    fn connection(&self) -> Option<ConnectionInfo> {
        self.request.connection.clone().map(ConnectionInfo)
    }

    /// The client's address as `(ip, port)`: where `forwarded` is set, as trusted proxies tell it, with the port 0 where they
    /// do not. None on a Unix socket, where a proxy hides the client or tells something else than an address, and for
    /// `parse_request`.
    #[getter]
    fn client(&self) -> Option<(String, u16)> {
        self.request.client().map(|client| (client.ip().to_canonical().to_string(), client.port()))
    }

    /// `https` where the client speaks TLS, to this server or, as trusted proxies tell, to a proxy; else `http`.
    #[getter]
    fn scheme(&self) -> &'static str {
        self.request.scheme()
    }

    /// Host and port as the client wrote them, where `forwarded` is set as trusted proxies tell; empty for HTTP/1.0 without
    /// `Host`. The host of `url`. Which context and handler answer is up to the header `Host` alone.
    #[getter]
    fn host(&self) -> Cow<'_, str> {
        self.request.authority()
    }

    /// The port that the client connected to, as trusted proxies tell; None on a Unix socket.
    #[getter]
    fn _port(&self) -> Option<u16> {
        self.request.port()
    }

    /// The `portico.Server` that it came to; None once that is gone, and for `parse_request`.
    #[getter]
    fn server<'py>(&self, py: Python<'py>) -> Value<'py> {
        self.server.as_ref().map_or_else(|| Ok(py.None().into_bound(py)), |server| server.bind(py).call0())
    }

    /// The client's session, a mutable mapping (`portico.sessions.Session`). Made at the first write, kept in the store
    /// before the response is sent; see docs/sessions.md.
    ///
    /// Raises `ClosedError` for a request without a server.
    #[getter]
    fn session<'py>(slf: &Bound<'py, Self>) -> Value<'py> {
        static OPEN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, request) = (slf.py(), slf.get());
        let open = || {
            let settled = request.is_settled.load(Ordering::Relaxed);
            OPEN.import(py, "portico.sessions._sessions", "open_session")?
                .call1((slf, request.called.is_some(), settled))
                .map(Bound::unbind)
        };
        Ok(request.session.get_or_try_init(py, open)?.bind(py).clone())
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> Value<'py> {
        let index = key.cast::<PyString>().ok().and_then(|key| Self::index(&key.to_cow().ok()?));
        match index {
            Some(index) => self.value(py, index),
            None => Err(PyKeyError::new_err(key.clone().unbind())),
        }
    }

    fn __len__(&self) -> usize {
        KEYS.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> Value<'py> {
        Ok(PyList::new(py, KEYS)?.try_iter()?.into_any())
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> bool {
        key.cast::<PyString>().is_ok_and(|key| key.to_cow().is_ok_and(|key| Self::index(&key).is_some()))
    }

    /// The value of a key, or `default`.
    #[pyo3(signature = (key, default=None))]
    fn get<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>, default: Option<Bound<'py, PyAny>>) -> Value<'py> {
        if self.__contains__(key) {
            return self.__getitem__(py, key);
        }
        Ok(default.unwrap_or_else(|| py.None().into_bound(py)))
    }

    /// The keys, as of a dict.
    fn keys<'py>(slf: &Bound<'py, Self>) -> Value<'py> {
        view(slf, "KeysView")
    }

    /// The values, as of a dict. Makes every one of them.
    fn values<'py>(slf: &Bound<'py, Self>) -> Value<'py> {
        view(slf, "ValuesView")
    }

    /// The items, as of a dict. Makes every value.
    fn items<'py>(slf: &Bound<'py, Self>) -> Value<'py> {
        view(slf, "ItemsView")
    }

    fn __repr__(&self) -> String {
        format!("<portico request {} {}>", self.request.method, self.request.url())
    }
}
