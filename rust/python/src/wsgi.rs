//! The quick parts of `portico.wsgi` (PEP 3333): the environ of a request, and the check of what `start_response` is given.
//! The rest is `python/portico/_wsgi.py`.

use portico_core::Address;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};

use crate::header_names;
use crate::request::{Request, latin1, position};
use crate::response::{kind, wrong};

/// A request as WSGI describes one: `base` with what is the same for all requests, and this one's own.
#[pyfunction]
pub(crate) fn wsgi_environ<'py>(
    request: &Bound<'py, Request>,
    base: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = request.py();
    let core = request.get().core();
    let environ = base.copy()?;
    environ.set_item(intern!(py, "REQUEST_METHOD"), core.method.as_str())?;
    environ.set_item(intern!(py, "PATH_INFO"), latin1(py, &core.path_bytes()))?;
    let root = core.root_path_bytes();
    if !root.is_empty() {
        environ.set_item(intern!(py, "SCRIPT_NAME"), latin1(py, &root))?;
    }
    environ.set_item(intern!(py, "QUERY_STRING"), core.target.query())?;
    let protocol = match core.version_text() {
        "1.0" => intern!(py, "HTTP/1.0"),
        "1.1" => intern!(py, "HTTP/1.1"),
        _ => intern!(py, "HTTP/2"),
    };
    environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol)?;
    add_addresses(&environ, core)?;
    add_headers(&environ, request)?;
    let input = match streamed(request) {
        Some(_) => body_input(py)?.call1((request,))?,
        None => bytes_io(py)?.call1((request.get().value(py, const { position("body") })?,))?,
    };
    environ.set_item(intern!(py, "wsgi.input"), input)?;
    environ.set_item(intern!(py, "portico.request"), request)?;
    Ok(environ)
}

/// The announced length of a body that the application reads as it comes. One without is waited for: applications that do not
/// know `wsgi.input_terminated` take it for empty.
fn streamed<'a>(request: &'a Bound<'_, Request>) -> Option<&'a [u8]> {
    let request = request.get();
    request.coming().filter(|_| request.queue().is_none())?;
    request.core().headers.get("content-length")
}

fn body_input(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static INPUT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    INPUT.import(py, "portico._wsgi", "body_input")
}

fn bytes_io(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static BYTES_IO: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    BYTES_IO.import(py, "io", "BytesIO")
}

fn add_addresses(environ: &Bound<'_, PyDict>, request: &portico_core::http::Request) -> PyResult<()> {
    let py = environ.py();
    let (scheme, port) = match request.scheme() {
        "https" => (intern!(py, "https"), intern!(py, "443")),
        _ => (intern!(py, "http"), intern!(py, "80")),
    };
    environ.set_item(intern!(py, "wsgi.url_scheme"), scheme)?;
    match request.connection.as_ref().map(|connection| &connection.local) {
        Some(Address::Inet(address)) => {
            environ.set_item(intern!(py, "SERVER_NAME"), address.ip().to_canonical().to_string())?;
            environ.set_item(intern!(py, "SERVER_PORT"), address.port().to_string())?;
        }
        // Neither may be empty, and a URL that is made of them is to be one.
        Some(Address::Unix(_)) | None => {
            environ.set_item(intern!(py, "SERVER_NAME"), intern!(py, "localhost"))?;
            environ.set_item(intern!(py, "SERVER_PORT"), port)?;
        }
    }
    if let Some(address) = request.client() {
        environ.set_item(intern!(py, "REMOTE_ADDR"), address.ip().to_canonical().to_string())?;
        environ.set_item(intern!(py, "REMOTE_PORT"), address.port().to_string())?;
    }
    Ok(())
}

fn add_headers(environ: &Bound<'_, PyDict>, this: &Bound<'_, Request>) -> PyResult<()> {
    let (py, request) = (environ.py(), this.get().core());
    // Which of the common names were seen: only a repeated name is looked up before it is set.
    let (mut seen, mut has_length) = (0u64, !request.body.is_empty());
    for (name, value) in request.headers.iter() {
        match name {
            "content-length" => has_length = true,
            "content-type" => {}
            // The chunks are undone, for `wsgi.input` too.
            "transfer-encoding" => {}
            // `x_forwarded_for` would pass for `x-forwarded-for`, which a proxy may have checked.
            _ if name.contains('_') => {}
            _ => {
                let at = header_names::position(name);
                let key = header_names::as_cgi(py, name, at);
                let bit = at.map_or(0, |at| 1 << at);
                let before = if bit == 0 || seen & bit != 0 { environ.get_item(&key)? } else { None };
                seen |= bit;
                let mut value = latin1(py, value);
                if let Some(before) = before {
                    let separator = if name == "cookie" { "; " } else { "," };
                    value = PyString::new(py, &format!("{before}{separator}{value}"));
                }
                environ.set_item(key, value)?;
            }
        }
    }
    // The host of an absolute target overrides the header (RFC 9112 section 3.2.2).
    if let Some(host) = request.target.host() {
        environ.set_item(intern!(py, "HTTP_HOST"), host)?;
    }
    if let Some(value) = request.headers.get("content-type") {
        environ.set_item(intern!(py, "CONTENT_TYPE"), latin1(py, value))?;
    }
    if let Some(length) = streamed(this) {
        environ.set_item(intern!(py, "CONTENT_LENGTH"), latin1(py, length))?;
    } else if request.incoming.is_some() {
        let body = this.get().value(py, const { position("body") })?;
        environ.set_item(intern!(py, "CONTENT_LENGTH"), body.len()?.to_string())?;
    } else if has_length {
        environ.set_item(intern!(py, "CONTENT_LENGTH"), request.body.len().to_string())?;
    }
    Ok(())
}

/// What concerns one connection, and so is the server's business and not an app's (RFC 2616 section 13.5.1, which PEP 3333
/// names).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// Status line and headers, as `start_response` gets them, for a response dict: `statusCode` and `headers`.
#[pyfunction]
pub(crate) fn wsgi_start<'py>(
    py: Python<'py>,
    status: &Bound<'py, PyAny>,
    headers: &Bound<'py, PyAny>,
) -> PyResult<(u16, Bound<'py, PyDict>)> {
    let Ok(lines) = headers.cast::<PyList>() else {
        return wrong(format!("start_response: headers: a list of (name, value), not {}", kind(headers)));
    };
    let status = to_status(status)?;
    let dict = PyDict::new(py);
    for line in lines.iter() {
        let pair = line.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2);
        let Some((name, value)) = pair.and_then(|pair| Some((pair.get_item(0).ok()?, pair.get_item(1).ok()?))) else {
            return wrong(format!("start_response: headers: a (name, value) each, not {}", line.repr()?));
        };
        let (Ok(name), Ok(value)) = (name.cast::<PyString>(), value.cast::<PyString>()) else {
            return wrong(format!("start_response: headers: name and value are str, not {}", line.repr()?));
        };
        let mut text = name.to_cow()?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            text.to_mut().make_ascii_lowercase();
        }
        if HOP_BY_HOP.contains(&&*text) {
            return wrong(format!(
                "start_response: header {text}: it is the server's business (PEP 3333); leave it out"
            ));
        }
        let key = PyString::new(py, &text);
        match dict.get_item(&key)? {
            None => dict.set_item(key, value)?,
            Some(before) => match before.cast::<PyList>() {
                Ok(list) => list.append(value)?,
                Err(_) => dict.set_item(key, PyList::new(py, [&before, value.as_any()])?)?,
            },
        }
    }
    Ok((status, dict))
}

/// The number of `200 OK`. The words after it are not sent: the server has its own.
fn to_status(status: &Bound<'_, PyAny>) -> PyResult<u16> {
    let Ok(text) = status.cast::<PyString>() else {
        return wrong(format!("start_response: status: a str as \"200 OK\", not {}", kind(status)));
    };
    let line = text.to_cow()?;
    let (number, _) = line.split_once(' ').unwrap_or((&line, ""));
    let is_number = number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse() {
        Ok(number) if is_number && !line.contains(char::is_control) => Ok(number),
        _ => wrong(format!("start_response: status: three digits and a reason as \"200 OK\", not {}", text.repr()?)),
    }
}
