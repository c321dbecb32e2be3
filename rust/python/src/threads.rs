//! The core's threads as Python threads: they have names, `threading.local` works on them, and debuggers and profilers see
//! them. Each holds its thread state for as long as it lives, which makes attaching cheap.

use std::io;

use parking_lot::Mutex;
use portico_core::Spawn;
use pyo3::prelude::*;

type Body = Box<dyn FnOnce() + Send>;

/// Starts threads through a Python callable `(name, target) -> None`.
pub(crate) struct PythonThreads(pub(crate) Py<PyAny>);

impl Spawn for PythonThreads {
    fn spawn(&self, name: String, body: Body) -> io::Result<()> {
        Python::attach(|py| {
            let target = Py::new(py, Target(Mutex::new(Some(body))))?;
            self.0.bind(py).call1((name, target)).map(drop)
        })
        .map_err(|error: PyErr| io::Error::other(error.to_string()))
    }
}

/// What such a thread runs, once.
#[pyclass(frozen)]
struct Target(Mutex<Option<Body>>);

#[pymethods]
impl Target {
    fn __call__(&self, py: Python<'_>) {
        let body = self.0.lock().take();
        if let Some(body) = body {
            py.detach(body);
        }
    }
}
