//! A loop that turns the server's I/O on its own thread.

use std::os::fd::OwnedFd;
use std::time::Duration;

use portico_core::Driven;
use portico_core::locks::Mutex;
use pyo3::prelude::*;

use super::bridge::Bridge;
use super::queue::Wakes;
use crate::threads::detach;

/// Turns the I/O of a server on the thread of an event loop.
#[pyclass(frozen)]
pub(crate) struct Driver(
    /// Locked also while handlers run, but nobody else asks for it: a loop has one driver, and one thread.
    Mutex<portico_core::Driver>,
);

impl Driver {
    /// A driver for a server whose first event loop no thread turns yet.
    pub(crate) fn new(
        py: Python<'_>,
        server: &portico_core::Server,
        bridge: &Bridge,
        other: OwnedFd,
    ) -> Result<Option<Self>, portico_core::Error> {
        let driver = detach(py, || server.driver(other))?;
        if let Some(driver) = &driver {
            bridge.queue.wake_by(Wakes::Driver(driver.waker()));
        }
        Ok(driver.map(|driver| Driver(Mutex::new(driver))))
    }
}

#[pymethods]
impl Driver {
    /// Does I/O for `timeout` seconds, or until there is something else to do. Returns whether `Bridge.run` has something,
    /// whether the loop's own descriptors are ready, and whether the server has ended. `drained` says that none was ready
    /// the last time.
    #[pyo3(signature = (timeout, drained))]
    fn drive(&self, py: Python<'_>, timeout: Option<f64>, drained: bool) -> (bool, bool, bool) {
        // What is too long for a Duration is for ever.
        let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        let Driven { called, readable, ended } = detach(py, || self.0.lock().drive(timeout, drained));
        (called, readable, ended)
    }
}
