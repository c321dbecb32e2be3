//! The errors of connections, on their way from I/O threads to Python.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

use portico_core::error::Stage;
use portico_core::locks::{Condvar, Mutex};
use portico_core::{Observer, Report};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};

use crate::errors;
use crate::slot::Slot;
use crate::threads::try_attach;

/// Carries the errors of connections to a Python thread, so that no I/O thread waits for the interpreter or a log file.
#[derive(Default)]
pub(crate) struct Reporter {
    state: Mutex<Reported>,
    more: Condvar,
    /// Where lines of the access log go, once there is somebody to take them.
    lines: OnceLock<Weak<Slot>>,
}

#[derive(Default)]
struct Reported {
    waiting: VecDeque<Report>,
    dropped: u64,
    closed: bool,
}

/// Reports that may wait; more are only counted.
const MAX_WAITING: usize = 1_000;

impl Observer for Reporter {
    fn report(&self, report: Report) {
        let mut state = self.state.lock();
        if state.waiting.len() >= MAX_WAITING {
            state.dropped += 1;
            return;
        }
        state.waiting.push_back(report);
        drop(state);
        self.more.notify_one();
    }

    /// To the logger, which may take its time.
    fn access(&self, lines: &str) {
        let Some(reports) = self.lines.get().and_then(Weak::upgrade) else { return };
        try_attach(|py| {
            let Ok(reports) = reports.get(py) else { return };
            if let Err(error) = reports.call_method1(intern!(py, "accessed"), (lines,)) {
                error.write_unraisable(py, Some(&reports));
            }
        });
    }
}

impl Reporter {
    /// Hands lines of the access log to `reports.accessed`.
    pub(crate) fn log_to(&self, reports: &Arc<Slot>) {
        let _ = self.lines.set(Arc::downgrade(reports));
    }

    /// Hands reports to `reports.failed` until closed.
    pub(crate) fn run(&self, reports: &Slot) {
        while let Some((batch, dropped)) = self.next() {
            try_attach(|py| {
                let Ok(reports) = reports.get(py) else { return };
                let tell = |method, argument: Bound<'_, PyAny>| {
                    if let Err(error) = reports.call_method1(method, (argument,)) {
                        error.write_unraisable(py, Some(&reports));
                    }
                };
                for report in batch {
                    match report.stage {
                        Stage::Warning => tell(intern!(py, "warned"), PyString::new(py, &report.message).into_any()),
                        Stage::AccessLog => {
                            tell(intern!(py, "log_failed"), PyString::new(py, &report.message).into_any());
                        }
                        _ => tell(intern!(py, "failed"), errors::from_report(py, report)),
                    }
                }
                if dropped > 0 {
                    tell(intern!(py, "dropped"), PyInt::new(py, dropped).into_any());
                }
            });
        }
    }

    fn next(&self) -> Option<(VecDeque<Report>, u64)> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.closed {
            state = self.more.wait(state);
        }
        if state.waiting.is_empty() {
            return None;
        }
        Some((std::mem::take(&mut state.waiting), std::mem::take(&mut state.dropped)))
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.more.notify_all();
    }
}
