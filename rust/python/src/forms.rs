//! Forms, for `python/portico/_forms.py`: read from a body that is here, waited for on a thread, or taken as it comes on an
//! event loop; and the content of their files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use portico_core::error::RequestError;
use portico_core::http::body::Incoming;
use portico_core::http::form::{FormPart, FormReader, FormValue, Limits, NotKept, Upload, parse_form};
use portico_core::locks::Mutex;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyType};

use crate::errors;
use crate::loops::{Queue, Sleeper};
use crate::request::Request;
use crate::threads::detach;
use crate::uploads;

/// Larger bodies are parsed without the interpreter.
const LARGE: usize = 64 * 1024;
/// So many pieces are taken before others have their turn on the event loop.
const IN_A_ROW: usize = 16;

/// The form of a request whose body is `body`.
pub(crate) fn of_body<'py>(
    py: Python<'py>,
    content_type: &str,
    body: &Bytes,
    limits: &Arc<Limits>,
) -> PyResult<Bound<'py, PyAny>> {
    let parse = || parse_form(content_type, body, limits);
    let parts = if body.len() < LARGE { parse() } else { detach(py, parse) };
    form(py)?.call1((to_list(py, parts.map_err(refused)?)?,))
}

/// What reads a form from a body that is still coming; none for one that is no form.
pub(crate) fn reader(content_type: &str, limits: &Arc<Limits>) -> PyResult<Option<FormReader>> {
    FormReader::new(content_type, limits).map_err(refused)
}

/// A form without fields.
pub(crate) fn empty(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    form(py)?.call1((PyList::empty(py),))
}

/// The form of a request whose body is still coming; on an event loop one that is to be awaited.
pub(crate) fn of_incoming<'py>(
    request: &Bound<'py, Request>,
    incoming: &Incoming,
    mut reader: FormReader,
) -> PyResult<Bound<'py, PyAny>> {
    let py = request.py();
    if let Some(queue) = request.get().queue() {
        let coming = FormStream {
            incoming: incoming.clone(),
            queue: queue.clone(),
            reader: Mutex::new(Some(reader)),
            abandoned: AtomicBool::new(false),
        };
        return form(py)?.call1((PyList::empty(py), coming));
    }
    let read = || {
        while let Some(piece) = incoming.wait_for_piece().map_err(Failure::Cut)? {
            reader.push(&piece).map_err(Failure::Refused)?;
            if reader.is_to_be_written() {
                reader.write().map_err(Failure::NotKept)?;
            }
        }
        reader.end().map_err(Failure::Refused)?;
        reader.write().map_err(Failure::NotKept)?;
        Ok(reader.into_parts())
    };
    let parts = detach(py, read).map_err(|failure| match failure {
        Failure::Cut(cut) => uploads::to_python(cut),
        Failure::Refused(error) => refused(error),
        Failure::NotKept(error) => not_kept(&error),
    })?;
    form(py)?.call1((to_list(py, parts)?,))
}

enum Failure {
    Cut(portico_core::http::body::Cut),
    Refused(RequestError),
    NotKept(NotKept),
}

fn form(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static FORM: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    FORM.import(py, "portico._forms", "Form")
}

fn refused(error: RequestError) -> PyErr {
    errors::refused_to_python(&error)
}

fn not_kept(error: &NotKept) -> PyErr {
    os_error(&error.source, "a file of a form cannot be kept: ", &error.folder)
}

fn os_error(error: &io::Error, what: &str, path: &Path) -> PyErr {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, format!("{what}{text}"), path.as_os_str().to_os_string())),
        None => PyOSError::new_err(format!("{what}{text}: {}", path.display())),
    }
}

/// `(name, text)` for a field, `(name, filename, content_type, content)` for a file.
fn to_list(py: Python<'_>, parts: Vec<FormPart>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for FormPart { name, value } in parts {
        match value {
            FormValue::Text(text) => list.append((name, text))?,
            FormValue::File { filename, content_type, content } => {
                let size = content.size();
                let content = FormContent { size, upload: Mutex::new(Some(content)) };
                list.append((name, filename, content_type, content))?;
            }
        }
    }
    Ok(list)
}

/// A form that is read on an event loop, as it comes. Its request has it, so it has not its request.
#[pyclass(frozen)]
pub(crate) struct FormStream {
    incoming: Incoming,
    queue: Weak<Queue>,
    /// None once it has given its parts, after an error, and while it is written.
    reader: Mutex<Option<FormReader>>,
    abandoned: AtomicBool,
}

impl FormStream {
    fn over() -> PyErr {
        PyRuntimeError::new_err("the form was read already, or reading it failed")
    }
}

#[pymethods]
impl FormStream {
    /// Takes what has come; whether the form is whole. None where nothing has, and then `future` is done when to ask again.
    fn poll(&self, future: Py<PyAny>) -> PyResult<Option<bool>> {
        let mut slot = self.reader.lock();
        // What failed is not gone on with.
        let mut reader = slot.take().ok_or_else(Self::over)?;
        let waker = Sleeper::waker(&self.queue, future);
        let mut cx = Context::from_waker(&waker);
        let mut taken = Some(false);
        for _ in 0..IN_A_ROW {
            match self.incoming.poll_piece(&mut cx) {
                Poll::Ready(Ok(Some(piece))) => reader.push(&piece).map_err(refused)?,
                Poll::Ready(Ok(None)) => {
                    reader.end().map_err(refused)?;
                    taken = Some(true);
                    break;
                }
                Poll::Ready(Err(cut)) => return Err(uploads::to_python(cut)),
                Poll::Pending => {
                    taken = None;
                    break;
                }
            }
            if reader.is_to_be_written() {
                break;
            }
        }
        *slot = Some(reader);
        Ok(taken)
    }

    /// Whether `write` is to be called before more is taken.
    fn is_to_be_written(&self) -> bool {
        self.reader.lock().as_ref().is_some_and(FormReader::is_to_be_written)
    }

    /// Writes to the temporary file what waits for that. It blocks, so it is for another thread.
    ///
    /// Raises `OSError`.
    fn write(&self, py: Python<'_>) -> PyResult<()> {
        let write = || {
            // Not under the lock: an event loop that abandons it is not to wait for the disk.
            let Some(mut reader) = self.reader.lock().take() else { return Ok(()) };
            reader.write()?;
            let mut slot = self.reader.lock();
            if !self.abandoned.load(Ordering::Relaxed) {
                *slot = Some(reader);
            }
            Ok(())
        };
        detach(py, write).map_err(|error| not_kept(&error))
    }

    /// Lets go of what has come: nobody will take the rest.
    fn abandon(&self) {
        let reader = {
            let mut slot = self.reader.lock();
            self.abandoned.store(true, Ordering::Relaxed);
            slot.take()
        };
        drop(reader);
    }

    /// The fields of the form, once it is whole and written.
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let reader = self.reader.lock().take().ok_or_else(Self::over)?;
        to_list(py, reader.into_parts())
    }
}

/// What is in a file of a form.
#[pyclass(frozen)]
pub(crate) struct FormContent {
    size: u64,
    /// None once it is closed.
    upload: Mutex<Option<Upload>>,
}

impl FormContent {
    fn upload(&self) -> PyResult<Upload> {
        self.upload.lock().clone().ok_or_else(|| PyValueError::new_err("the file of the form is closed"))
    }
}

#[pymethods]
impl FormContent {
    /// Its length in bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.size
    }

    /// As many bytes from `at` on as there are, and at most `length`.
    ///
    /// Raises `OSError`, and `ValueError` where it is closed.
    fn read_at<'py>(&self, py: Python<'py>, at: u64, length: u64) -> PyResult<Bound<'py, PyBytes>> {
        let upload = self.upload()?;
        let length = length.min(self.size.saturating_sub(at));
        // It is no more than the file has.
        let length = usize::try_from(length)?;
        if let Upload::Here(bytes) = &upload {
            let at = usize::try_from(at.min(self.size))?;
            return Ok(PyBytes::new(py, &bytes[at..at + length]));
        }
        let read = || {
            let mut buffer = vec![0; length];
            upload.read_at(at, &mut buffer).map(|length| {
                buffer.truncate(length);
                buffer
            })
        };
        Ok(PyBytes::new(py, &detach(py, read)?))
    }

    /// Writes it to a file, which is there whole or not at all.
    ///
    /// Raises `OSError`, and `ValueError` where it is closed.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let upload = self.upload()?;
        detach(py, || upload.save(&path)).map_err(|error| os_error(&error, "", &path))
    }

    /// Lets it go.
    fn close(&self) {
        let upload = self.upload.lock().take();
        drop(upload);
    }
}
