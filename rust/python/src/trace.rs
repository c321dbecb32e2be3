//! `trace=`: what connections do, as records, and the thread that hands them to Python.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use portico_core::trace::{EVENTS, Queue, Record, Value};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::slot::Slot;
use crate::threads::try_attach_for_long;

/// Hands records to a callable, on a thread for this alone.
pub(crate) struct Tracer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) callable: Arc<Slot>,
}

impl Tracer {
    /// Calls it for each record, until the server has ended. What it raises is told to `reports.trace_failed`, which says
    /// whether to go on.
    pub(crate) fn run(&self, reports: &Slot) {
        while let Some(records) = self.queue.take() {
            // As for handlers: it may do what it likes, and the end of the interpreter does not wait for it here.
            let go_on = try_attach_for_long(|py| {
                let (Ok(callable), Ok(reports)) = (self.callable.get(py), reports.get(py)) else { return false };
                records.into_iter().all(|record| match callable.call1((TraceRecord(record),)) {
                    Ok(_) => true,
                    Err(error) => {
                        let told = reports.call_method1(intern!(py, "trace_failed"), (error.value(py),));
                        told.and_then(|go_on| go_on.is_truthy()).unwrap_or(false)
                    }
                })
            });
            if go_on != Some(true) {
                return;
            }
        }
    }
}

/// One step of a connection, as `trace=` is called with. `str()` makes one line of it.
#[pyclass(frozen, module = "portico")]
pub(crate) struct TraceRecord(Record);

impl TraceRecord {
    fn fill(&self, py: Python<'_>, dict: &Bound<'_, PyDict>) -> PyResult<()> {
        for (name, value) in self.0.event.clone().details() {
            match value {
                Value::Nothing => dict.set_item(name, py.None())?,
                Value::Flag(flag) => dict.set_item(name, flag)?,
                Value::Number(number) => dict.set_item(name, number)?,
                Value::Seconds(seconds) => dict.set_item(name, seconds)?,
                Value::Text(text) => dict.set_item(name, &*text)?,
            }
        }
        Ok(())
    }
}

#[pymethods]
impl TraceRecord {
    /// What happened: `accepted`, `request`, `closed` and so on.
    #[getter]
    fn event(&self) -> &'static str {
        self.0.event.name()
    }

    /// The number of the process: of several, each counts its connections by itself.
    #[getter]
    fn pid(&self) -> u32 {
        std::process::id()
    }

    /// The number of the connection, as `request.connection.id` has it; None for one that was not let in.
    #[getter]
    fn connection(&self) -> Option<u64> {
        self.0.connection
    }

    /// Which request on it: the stream in HTTP/2 (1, 3, 5, ...), and in HTTP/1 a number that counts up from 1. None for what
    /// is the connection's own.
    #[getter]
    fn stream(&self) -> Option<u32> {
        self.0.stream
    }

    /// Seconds since the connection was accepted, by a clock that never jumps.
    #[getter]
    fn elapsed(&self) -> f64 {
        self.0.elapsed
    }

    /// When it happened, in seconds since 1970.
    #[getter]
    fn time(&self) -> f64 {
        self.0.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }

    /// What else there is to say, by name, depending on the event; a new dict each time.
    #[getter]
    fn details<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let details = PyDict::new(py);
        self.fill(py, &details)?;
        Ok(details)
    }

    /// All of it in one dict, with the details beside the rest: for JSON.
    fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item(intern!(py, "event"), self.event())?;
        dict.set_item(intern!(py, "time"), self.time())?;
        dict.set_item(intern!(py, "elapsed"), self.elapsed())?;
        dict.set_item(intern!(py, "pid"), self.pid())?;
        dict.set_item(intern!(py, "connection"), self.connection())?;
        dict.set_item(intern!(py, "stream"), self.stream())?;
        self.fill(py, &dict)?;
        Ok(dict)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<portico trace {}>", self.0)
    }
}

/// Every event: its name, what it means, and the same of each of its details.
#[pyfunction]
pub(crate) fn trace_events() -> Vec<(&'static str, &'static str, Vec<Named>)> {
    let named = |(name, doc): &Named| (*name, doc.trim());
    EVENTS.iter().map(|(name, doc, details)| (*name, doc.trim(), details.iter().map(named).collect())).collect()
}

/// A name and what it means.
type Named = (&'static str, &'static str);
