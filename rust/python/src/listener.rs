//! Listeners: where they are to listen, and the object that a program holds.

use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use portico_core::Place;
use pyo3::prelude::*;

use crate::connection;
use crate::errors::{self, ConfigError};
use crate::threads::detach;

/// A listener of the core.
#[pyclass(frozen)]
pub(crate) struct Listener(pub(crate) portico_core::Listener);

#[pymethods]
impl Listener {
    /// `(host, port)`, or the path of a Unix socket.
    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        connection::address(py, self.0.address())
    }

    #[getter]
    fn tls(&self) -> bool {
        self.0.is_tls()
    }

    fn close(&self, py: Python<'_>) {
        detach(py, || self.0.close());
    }
}

/// Where `listen` and `listen_admin` are to listen.
pub(crate) fn place(host: String, port: u16, unix: Option<OsString>, fd: Option<RawFd>) -> PyResult<Place> {
    Ok(match (unix, fd) {
        (Some(path), _) => Place::Unix(path.into()),
        (None, Some(fd)) => Place::Inherited(Arc::new(duplicate(fd)?)),
        (None, None) => Place::Inet { host, port },
    })
}

/// A descriptor of our own for what a number in the caller's hands refers to; that one stays the caller's.
pub(crate) fn duplicate(fd: RawFd) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(ConfigError::new_err(format!("fd: the descriptor of a listening socket, not {fd}")));
    }
    #[expect(unsafe_code, reason = "a number becomes a descriptor")]
    // SAFETY: borrowed for the call only, during which the kernel checks that the number is an open descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map_err(|source| {
        errors::to_python(portico_core::Error::Listen { address: format!("descriptor {fd}"), source })
    })
}
