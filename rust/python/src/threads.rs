//! The core's threads as Python threads: they have names, `threading.local` works on them, and debuggers and profilers see
//! them. Each holds its thread state for as long as it lives, which makes attaching cheap.

use std::io;

use parking_lot::Mutex;
use portico_core::Spawn;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Runs `work` without the interpreter, as `Python::detach` does, and never comes back to one that is being taken down.
///
/// Before Python 3.14 such a return ends the thread by unwinding it, which aborts the process in the middle of Rust frames. At
/// that point nobody waits for this thread any more: it sleeps until the process ends.
pub(crate) fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(|| {
        let result = work();
        while is_finalizing() {
            std::thread::park();
        }
        result
    })
}

/// Attaches, unless the interpreter is being taken down. PyO3's `try_attach` knows that from Python 3.13 on only.
pub(crate) fn try_attach<T>(work: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    if is_finalizing() { None } else { Python::try_attach(work) }
}

/// Has an exception raised in a thread, as soon as that runs Python code.
#[pyfunction]
pub(crate) fn raise_in_thread(py: Python<'_>, ident: std::ffi::c_ulong, exception: &Bound<'_, PyAny>) {
    let _ = py;
    #[expect(unsafe_code, reason = "there is no safe way to do that")]
    // SAFETY: attached, as `py` shows; the number of a thread that is gone is looked up in vain.
    unsafe {
        pyo3::ffi::PyThreadState_SetAsyncExc(ident as _, exception.as_ptr());
    }
}

#[expect(unsafe_code, reason = "there is no safe way to ask")]
fn is_finalizing() -> bool {
    #[cfg(Py_3_13)]
    use pyo3::ffi::Py_IsFinalizing as ask;
    #[cfg(not(Py_3_13))]
    unsafe extern "C" {
        // What Python 3.13 made public under the other name.
        #[link_name = "_Py_IsFinalizing"]
        fn ask() -> std::ffi::c_int;
    }
    // SAFETY: reads a flag of the runtime, for which no thread state is needed.
    unsafe { ask() != 0 }
}

type Body = Box<dyn FnOnce() + Send>;

/// Starts threads through a Python callable `(name, target) -> None`.
pub(crate) struct PythonThreads(pub(crate) Py<PyAny>);

impl Spawn for PythonThreads {
    fn spawn(&self, name: String, body: Body) -> io::Result<()> {
        try_attach(|py| {
            let target = Py::new(py, Target(Mutex::new(Some(body))))?;
            self.0.bind(py).call1((name, target)).map(drop)
        })
        .unwrap_or_else(|| Err(PyRuntimeError::new_err("the interpreter is ending")))
        .map_err(io::Error::other)
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
            detach(py, body);
        }
    }
}
