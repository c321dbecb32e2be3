//! References to Python objects that the garbage collector sees through the core.

use std::sync::Arc;

use portico_core::locks::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::errors;

/// A reference to a Python object that the server's garbage collection sees, and can cut: a handler often refers to what
/// refers to its server.
pub(crate) struct Slot(Mutex<Option<Py<PyAny>>>);

impl Slot {
    pub(crate) fn new(object: Py<PyAny>) -> Arc<Self> {
        Arc::new(Slot(Mutex::new(Some(object))))
    }

    pub(crate) fn get<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let object = self.0.lock().as_ref().map(|object| object.bind(py).clone());
        object.ok_or_else(|| errors::ClosedError::new_err("the server is closed"))
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever holds the lock is attached, as the collector is, and holds it for no call: try_lock never fails.
        self.0.try_lock().map_or(Ok(()), |object| visit.call(&*object))
    }

    pub(crate) fn clear(&self) {
        // Dropped outside the lock, because dropping it may run anything.
        let _object = self.0.lock().take();
    }
}
