//! What the admin listener shows beside the core's own numbers.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use portico_core::{Level, Recent};
use pyo3::prelude::*;

/// The last lines of a server's log.
#[pyclass(frozen)]
pub(crate) struct Lines(pub(crate) Arc<Recent>);

#[pymethods]
impl Lines {
    /// Keeps a line, `warning`, `error` or, by any other name, `info`.
    fn note(&self, level: &str, message: &str) {
        let level = match level {
            "error" => Level::Error,
            "warning" => Level::Warning,
            _ => Level::Info,
        };
        self.0.note(level, message);
    }
}

/// The workers of a supervisor, as its admin listener sees them.
#[pyclass(frozen)]
pub(crate) struct WorkersSeen(pub(crate) Arc<portico_core::Workers>);

#[pymethods]
impl WorkersSeen {
    #[new]
    fn new() -> Self {
        WorkersSeen(Arc::default())
    }

    /// A worker serves, in place of the one that had that name; its own admin listener is at the Unix socket, and
    /// its dashboard, where people can go there, at the port.
    #[pyo3(signature = (name, socket, port))]
    fn joined(&self, name: String, socket: OsString, port: Option<u16>) {
        self.0.joined(name, socket.into(), port);
    }

    fn ended(&self, socket: OsString) {
        self.0.ended(&PathBuf::from(socket));
    }
}
