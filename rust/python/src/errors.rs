//! The one place where a core error becomes a Python exception. The classes are Python's own: `portico._errors`.

use portico_core::error::{Refusal, RequestError as Refused};
use portico_core::{Error, Report, error::Stage};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::connection::ConnectionInfo;

pyo3::import_exception!(portico._errors, CertificateError);
pyo3::import_exception!(portico._errors, ClosedError);
pyo3::import_exception!(portico._errors, ConfigError);
pyo3::import_exception!(portico._errors, HandshakeError);
pyo3::import_exception!(portico._errors, IncompleteRequest);
pyo3::import_exception!(portico._errors, LimitError);
pyo3::import_exception!(portico._errors, ListenError);
pyo3::import_exception!(portico._errors, PageError);
pyo3::import_exception!(portico._errors, RequestError);
pyo3::import_exception!(portico._errors, ResponseError);
pyo3::import_exception!(portico._errors, SessionError);

/// The exception for an error of a call.
pub(crate) fn to_python(error: Error) -> PyErr {
    let text = error.to_string();
    if let Error::Listen { source, .. } = &error
        && let Some(raised) = source.get_ref().and_then(|inner| inner.downcast_ref::<PyErr>())
    {
        // Ctrl-C while a thread was being started is no error of the address.
        let raised = Python::attach(|py| {
            let ends = !raised.is_instance_of::<PyException>(py);
            ends.then(|| raised.clone_ref(py))
        });
        if let Some(raised) = raised {
            return raised;
        }
    }
    match error {
        Error::Config(_) => ConfigError::new_err(text),
        Error::Certificate(_) => CertificateError::new_err(text),
        Error::Closed(_) => ClosedError::new_err(text),
        Error::Response(_) => ResponseError::new_err(text),
        Error::Listen { source, .. } => match source.raw_os_error() {
            Some(number) => ListenError::new_err((number, text)),
            None => ListenError::new_err(text),
        },
        Error::Request(refused) => refused_to_python(&refused),
    }
}

pub(crate) fn refused_to_python(refused: &Refused) -> PyErr {
    Python::attach(|py| {
        let Refused { refusal, .. } = refused;
        let text = refused.to_string();
        let error = if refusal.is_limit() { LimitError::new_err(text) } else { RequestError::new_err(text) };
        describe(py, &error, refusal.label(), Some(refusal.status()));
        error
    })
}

fn describe(py: Python<'_>, error: &PyErr, reason: &str, status: Option<u16>) {
    // Setting an attribute on an exception of our own class fails only without memory.
    let value = error.value(py);
    let _ = value.setattr("reason", reason);
    if let Some(status) = status {
        let _ = value.setattr("status", status);
    }
}

/// The exception that `on_error` gets for an error of a connection.
pub(crate) fn from_report(py: Python<'_>, report: Report) -> Bound<'_, PyAny> {
    let Report { stage, reason, message, status, connection } = report;
    let limit = Refusal::ALL.iter().any(|refusal| refusal.label() == reason && refusal.is_limit());
    let error = match stage {
        Stage::Handshake => HandshakeError::new_err(message),
        Stage::Request if !limit => RequestError::new_err(message),
        Stage::Request | Stage::Admission => LimitError::new_err(message),
        Stage::Accept | Stage::AccessLog => ListenError::new_err(message),
        Stage::Certificate | Stage::Warning => CertificateError::new_err(message),
    };
    describe(py, &error, reason, status);
    // Fails only without memory, as in `describe`.
    let _ = error.value(py).setattr("connection", connection.map(ConnectionInfo));
    error.into_value(py).into_bound(py).into_any()
}
