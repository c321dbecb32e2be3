//! `portico.parse_request`.

use std::sync::Arc;

use portico_core::http::form;
use portico_core::http::h1::{Limits, Unparsed, parse_request as parse};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::{self, ConfigError, IncompleteRequest, RequestError};
use crate::request::Request;
use crate::settings;
use crate::threads::detach;

/// Larger requests are parsed without the interpreter.
const LARGE: usize = 64 * 1024;

/// The request that those bytes are; `limits` are settings of these names.
#[pyfunction]
pub(crate) fn parse_request(py: Python<'_>, data: &Bound<'_, PyAny>, limits: &Bound<'_, PyDict>) -> PyResult<Request> {
    let config = settings::parse(limits)?;
    let (limits, forms) = (Limits::from(&config), Arc::new(form::Limits::from(&config)));
    let parsed = match data.cast::<PyBytes>() {
        Ok(data) if data.as_bytes().len() < LARGE => parse(data.as_bytes(), limits),
        _ => {
            let wrong = |_| ConfigError::new_err("data: bytes, or what has the buffer protocol");
            let data = PyBuffer::<u8>::get(data).map_err(wrong)?.to_vec(py)?;
            detach(py, || parse(&data, limits))
        }
    };
    match parsed {
        Ok(request) => Ok(Request::new(Box::new(request), None, None, forms)),
        Err(Unparsed::Refused(refused)) => Err(errors::refused_to_python(&refused)),
        Err(Unparsed::Incomplete) => Err(with_reason(
            py,
            IncompleteRequest::new_err("the bytes are the beginning of a request: more are needed"),
            "incomplete",
        )),
        Err(Unparsed::Longer(end)) => {
            let error = RequestError::new_err(format!("bytes follow the request: it ends at byte {end}"));
            // As in `with_reason`.
            let _ = error.value(py).setattr("end", end);
            Err(with_reason(py, error, "longer"))
        }
    }
}

fn with_reason(py: Python<'_>, error: PyErr, reason: &str) -> PyErr {
    // Setting an attribute on an exception of our own class fails only without memory.
    let _ = error.value(py).setattr("reason", reason);
    error
}
