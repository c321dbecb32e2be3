//! A response out of an app's messages, and back into what a handler returns.

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use portico_core::http::{Body, Response, Trailers};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PyTuple};

use crate::files::FileBody;
use crate::request::latin1;
use crate::response::{kind, wrong};

pub(super) fn add_headers(response: &mut Response, headers: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(list) = headers.cast::<PyList>() {
        response.headers.reserve(list.len());
    }
    each_header("http.response.start", headers, |name, value| {
        // The transfer coding is the server's choice; apps that pass on somebody else's response name one all the same.
        if name != header::TRANSFER_ENCODING {
            response.headers.push((name, value));
        }
        Ok(())
    })
}

/// What an `http.response.trailers` brings.
pub(super) fn add_trailers(trailers: &mut Trailers, headers: &Bound<'_, PyAny>) -> PyResult<()> {
    each_header("http.response.trailers", headers, |name, value| {
        trailers.push(name, value).map_err(crate::errors::to_python)
    })
}

/// Calls `take` with each of an iterable of pairs of bytes, as the specification has it; they are those of `message`.
fn each_header(
    message: &str,
    headers: &Bound<'_, PyAny>,
    mut take: impl FnMut(HeaderName, HeaderValue) -> PyResult<()>,
) -> PyResult<()> {
    let mut line = |line: &Bound<'_, PyAny>| to_header(message, line).and_then(|(name, value)| take(name, value));
    if let Ok(list) = headers.cast::<PyList>() {
        return list.iter().try_for_each(|pair| line(&pair));
    }
    let Ok(lines) = headers.try_iter() else {
        return wrong(format!("{message}: headers: an iterable of [name, value], not {}", kind(headers)));
    };
    for pair in lines {
        line(&pair?)?;
    }
    Ok(())
}

fn to_header(message: &str, line: &Bound<'_, PyAny>) -> PyResult<(HeaderName, HeaderValue)> {
    let pair = if let Ok(pair) = line.cast::<PyTuple>() {
        (pair.len() == 2).then(|| (pair.get_item(0), pair.get_item(1)))
    } else if let Ok(pair) = line.cast::<PyList>() {
        (pair.len() == 2).then(|| (pair.get_item(0), pair.get_item(1)))
    } else {
        None
    };
    let Some((Ok(name), Ok(value))) = pair else {
        return wrong(format!("{message}: headers: a [name, value] each, not {}", line.repr()?));
    };
    let (Ok(name), Ok(value)) = (name.cast::<PyBytes>(), value.cast::<PyBytes>()) else {
        return wrong(format!("{message}: headers: name and value are bytes, not {}", line.repr()?));
    };
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        return wrong(format!("{message}: {} is no header name (RFC 9110 section 5.1)", name.repr()?));
    };
    match HeaderValue::from_bytes(trimmed(value.as_bytes())) {
        Ok(value) => Ok((name, value)),
        Err(_) => {
            let value = value.repr()?;
            wrong(format!("{message}: header {name}: {value} has a control character (CR or LF, say)"))
        }
    }
}

/// Without the white space that is no part of a value (RFC 9110 section 5.5): no line ends, which are errors.
fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

pub(super) fn is_bytes(body: &Bound<'_, PyAny>) -> bool {
    body.is_instance_of::<PyBytes>() || body.is_instance_of::<PyByteArray>() || body.is_instance_of::<PyMemoryView>()
}

/// A length without its body may answer HEAD, or stand in a 304 (RFC 9110 section 8.6).
pub(super) fn check_length(response: &mut Response, method: &Method) -> PyResult<()> {
    response.check().map_err(crate::errors::to_python)?;
    if !response.body.is_empty() || method == Method::HEAD || response.status == StatusCode::NOT_MODIFIED {
        return Ok(());
    }
    match response.headers.iter().find(|(name, value)| name == header::CONTENT_LENGTH && value != "0") {
        Some((_, value)) => wrong(format!("header content-length: {value:?} is not the length of the body, 0")),
        None => Ok(()),
    }
}

/// As a handler returns one.
pub(crate) fn to_dict(py: Python<'_>, response: Response) -> PyResult<Bound<'_, PyDict>> {
    let headers = PyDict::new(py);
    for (name, value) in &response.headers {
        let value = latin1(py, value.as_bytes());
        match headers.get_item(name.as_str())? {
            None => headers.set_item(name.as_str(), PyList::new(py, [value])?)?,
            Some(before) => before.cast::<PyList>()?.append(value)?,
        }
    }
    let dict = PyDict::new(py);
    dict.set_item(intern!(py, "statusCode"), response.status.as_u16())?;
    dict.set_item(intern!(py, "multiValueHeaders"), headers)?;
    match response.body {
        Body::Whole(body) => dict.set_item(intern!(py, "body"), PyBytes::new(py, &body))?,
        body => dict.set_item(intern!(py, "body"), FileBody::new(py, body)?)?,
    }
    Ok(dict)
}
