//! The scope of a request, as ASGI describes one.

use http::Method;
use portico_core::Address;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::connection;
use crate::header_names;
use crate::request::Request;

/// A request as ASGI describes one, with a shallow copy of the state that the app's lifespan left; whether its response may
/// have trailers.
#[pyfunction]
#[pyo3(signature = (request, state, trailers=false))]
pub(crate) fn asgi_scope<'py>(
    request: &Bound<'py, Request>,
    state: &Bound<'py, PyDict>,
    trailers: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let py = request.py();
    let core = request.get().core();
    let connection = core.connection.as_deref();
    let scope = blank(py)?.copy()?;
    scope.set_item(intern!(py, "asgi"), versions(py)?.copy()?)?;
    scope.set_item(intern!(py, "http_version"), core.version_text())?;
    scope.set_item(intern!(py, "method"), method(py, &core.method))?;
    let scheme = if core.scheme() == "https" { intern!(py, "https") } else { intern!(py, "http") };
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
    if let Some(client) = core.client() {
        scope.set_item(intern!(py, "client"), connection::address(py, &Address::Inet(client))?)?;
    }
    match connection.map(|connection| &connection.local) {
        None => {} // None, as it is
        Some(local @ Address::Inet(_)) => scope.set_item(intern!(py, "server"), connection::address(py, local)?)?,
        Some(Address::Unix(path)) => {
            scope.set_item(intern!(py, "server"), (path.as_deref().unwrap_or(""), py.None()))?
        }
    }
    scope.set_item(intern!(py, "state"), state.copy()?)?;
    let extensions = PyDict::new(py);
    extensions.set_item(intern!(py, "http.response.pathsend"), PyDict::new(py))?;
    if trailers {
        extensions.set_item(intern!(py, "http.response.trailers"), PyDict::new(py))?;
    }
    scope.set_item(intern!(py, "extensions"), extensions)?;
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
