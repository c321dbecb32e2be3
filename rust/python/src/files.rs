//! Files as bodies: `portico._core.StaticFiles`, for `python/portico/_files.py`, and paths in responses.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::header::{self, HeaderValue};
use portico_core::Handler;
use portico_core::files::{self, CacheControl, Links, OpenFile, Options};
use portico_core::http::{Body, Response};
use portico_core::locks::Mutex;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::asgi::to_dict;
use crate::errors::{self, ConfigError};
use crate::request::Request;
use crate::response::wrong;
use crate::threads::detach;

/// A folder that the core serves; for any number of servers.
#[pyclass(frozen)]
pub(crate) struct StaticFiles(files::StaticFiles);

#[pymethods]
impl StaticFiles {
    /// `cache_control` has a value by suffix, and one for `*`, which is all others.
    ///
    /// Raises `ConfigError` where the root is no folder, and for what cannot stand in a header.
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the keywords of StaticFiles, spelled out once in Python")]
    fn new(
        py: Python<'_>,
        root: PathBuf,
        index: Option<String>,
        precompressed: bool,
        cache_control: Vec<(String, String)>,
        listing: bool,
        hidden: bool,
        follow_links: bool,
    ) -> PyResult<Self> {
        let mut by_suffix = CacheControl::default();
        for (suffix, text) in cache_control {
            let Ok(value) = HeaderValue::from_str(&text) else {
                return Err(ConfigError::new_err(format!("cache_control: {text:?} cannot stand in a header")));
            };
            match suffix.as_str() {
                "*" => by_suffix.other = Some(value),
                _ => drop(by_suffix.by_suffix.insert(suffix, value)),
            }
        }
        let links = if follow_links { Links::Below } else { Links::No };
        let options = Options { index, precompressed, cache_control: by_suffix, listing, hidden, links };
        detach(py, || files::StaticFiles::new(&root, options)).map(StaticFiles).map_err(errors::to_python)
    }

    /// The answer to a request, as a handler returns one.
    fn answer<'py>(&self, py: Python<'py>, request: &Bound<'py, Request>) -> PyResult<Bound<'py, PyDict>> {
        let request = request.get().core();
        to_dict(py, detach(py, || self.0.answer(request)))
    }
}

impl StaticFiles {
    pub(crate) fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(self.0.clone())
    }
}

/// What the core reads from a file when it is sent, as the body of a response in Python's hands. It is sent once.
#[pyclass(frozen)]
pub(crate) struct FileBody(Mutex<Option<Body>>);

impl FileBody {
    pub(crate) fn new(py: Python<'_>, body: Body) -> PyResult<Bound<'_, Self>> {
        Bound::new(py, FileBody(Mutex::new(Some(body))))
    }
}

#[pymethods]
impl FileBody {
    /// The regular file that a descriptor is open for, from there on, and at most so many bytes of it.
    ///
    /// Raises `OSError` where it is none.
    #[new]
    #[pyo3(signature = (fd, start, most))]
    fn from_descriptor(fd: RawFd, start: u64, most: Option<u64>) -> PyResult<Self> {
        if fd < 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        #[expect(unsafe_code, reason = "a number becomes a descriptor")]
        // SAFETY: borrowed for the call only, during which the kernel checks that the number is an open descriptor.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let file = OpenFile::from_descriptor(borrowed.try_clone_to_owned()?)?;
        // Its length is what is sent, whatever the request asks: that is its maker's business.
        let body = file.part(start, most).into_body();
        Ok(FileBody(Mutex::new(Some(body))))
    }

    /// How many bytes there are.
    #[getter]
    fn length(&self) -> u64 {
        self.0.lock().as_ref().and_then(Body::length).unwrap_or_default()
    }
}

/// Whether that is sent from a file.
pub(crate) fn is_file(body: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(body.is_instance_of::<FileBody>() || is_path(body)?)
}

fn is_path(body: &Bound<'_, PyAny>) -> PyResult<bool> {
    static PATH: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    body.is_instance(PATH.import(body.py(), "pathlib", "PurePath")?)
}

/// Takes a body that is sent from a file, and says by the name what it is, where nobody has yet.
pub(crate) fn take(body: &Bound<'_, PyAny>, response: &mut Response) -> PyResult<bool> {
    if let Ok(given) = body.cast::<FileBody>() {
        let Some(body) = given.get().0.lock().take() else {
            return wrong("body: this part of a file was sent already".to_string());
        };
        response.body = body;
        return Ok(true);
    }
    if !is_path(body)? {
        return Ok(false);
    }
    let path: PathBuf = body.extract()?;
    response.body = Body::File(Box::new(open(body.py(), &path)?));
    if !response.headers.iter().any(|(name, _)| name == header::CONTENT_TYPE) {
        response.headers.push((header::CONTENT_TYPE, files::content_type(path.as_os_str().as_encoded_bytes())));
    }
    Ok(true)
}

/// Opens the regular file at a path.
///
/// Raises `ResponseError`.
fn open(py: Python<'_>, path: &Path) -> PyResult<OpenFile> {
    detach(py, || OpenFile::open(path)).or_else(|error| {
        let text = error.to_string();
        wrong(format!("body: {}: {}", path.display(), text.split(" (os error").next().unwrap_or_default()))
    })
}

/// Sends a file that is a response's body by what the request asks.
pub(crate) fn answer(request: &Bound<'_, Request>, response: Response) -> Response {
    match response.body {
        Body::File(_) => files::answer(request.get().core(), response),
        _ => response,
    }
}
