//! The core's threads as Python threads: they have names, `threading.local` works on them, and debuggers and profilers see
//! them. Each holds its thread state for as long as it lives, which makes attaching cheap.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use portico_core::Spawn;
use portico_core::locks::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Runs `work` without the interpreter, as `Python::detach` does, and never comes back to one that is being taken down.
///
/// Before Python 3.14 such a return ends the thread by unwinding it, which aborts the process in the middle of Rust frames. At
/// that point nobody waits for this thread any more: it sleeps until the process ends.
pub(crate) fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    let (result, _entering) = py.detach(|| {
        let result = work();
        loop {
            match DOOR.enter() {
                Some(entering) => break (result, entering),
                None => std::thread::park(),
            }
        }
    });
    result
}

/// Attaches, unless the interpreter is being taken down, which waits for `work`: it is to be short. PyO3's `try_attach` knows
/// that from Python 3.13 on only.
pub(crate) fn try_attach<T>(work: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let _entering = DOOR.enter()?;
    Python::try_attach(work)
}

/// The same for handlers, for which the end does not wait here: they are told to end.
pub(crate) fn try_attach_for_long<T>(work: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let entering = DOOR.enter()?;
    Python::try_attach(move |py| {
        drop(entering);
        work(py)
    })
}

/// The way back into the interpreter. It is closed before that is taken down, when nobody is on the way.
static DOOR: Door = Door { closed_by: OnceLock::new(), entering: AtomicUsize::new(0) };

struct Door {
    /// The thread that takes the interpreter down, which may still enter.
    closed_by: OnceLock<ThreadId>,
    /// Threads that wait for the interpreter, or have it for a moment.
    entering: AtomicUsize,
}

impl Door {
    fn enter(&self) -> Option<Entering> {
        // First, so that whoever closes the door sees us where we do not see that it is closed.
        self.entering.fetch_add(1, Ordering::SeqCst);
        let entering = Entering;
        fence(Ordering::SeqCst);
        let closed = self.closed_by.get().is_some_and(|by| *by != std::thread::current().id());
        (!closed && !is_finalizing()).then_some(entering)
    }
}

/// Somebody on the way in, until dropped.
struct Entering;

impl Drop for Entering {
    fn drop(&mut self) {
        DOOR.entering.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Keeps every other thread from coming back to the interpreter, for good, and waits for those that are about to leave, a
/// second at the most. To be called when it is about to be taken down.
#[pyfunction]
pub(crate) fn close_door(py: Python<'_>) {
    let _ = DOOR.closed_by.set(std::thread::current().id());
    fence(Ordering::SeqCst);
    py.detach(|| {
        let end = Instant::now() + Duration::from_secs(1);
        while DOOR.entering.load(Ordering::SeqCst) > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
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
