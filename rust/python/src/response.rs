//! From what a handler returned to a response that can be sent: everything else is a `ResponseError`.

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use portico_core::http::body::channel;
use portico_core::http::{Body, Response};
use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyList, PyMemoryView, PyString, PyTuple};

use crate::bodies::{Length, Making};
use crate::errors::{self, ResponseError};
use crate::files;
use crate::websocket::Upgrade;

/// The keys that a response may have.
pub(crate) const KEYS: [&str; 5] = ["statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"];

/// Larger bodies are sent from the Python object's own memory: a copy costs less than keeping a reference below this.
const SHARE: usize = 32 * 1024;

/// Checks and converts; with what is still to be made of a body that comes in pieces.
pub(crate) fn from_python<'py>(value: &Bound<'py, PyAny>) -> PyResult<(Response, Option<Making<'py>>)> {
    let Ok(dict) = value.cast::<PyDict>() else {
        let coroutine = kind(value) == "coroutine";
        if coroutine {
            // Or Python warns that it was never awaited, from a place that helps nobody.
            let _ = value.call_method0(intern!(value.py(), "close"));
        }
        let hint = if coroutine {
            " that nothing awaits: declare the handler, or the decorator around it, `async def`, or set dispatch=\"asyncio\""
        } else {
            ""
        };
        return wrong(format!("a handler must return a dict with a statusCode, not {}{hint}", kind(value)));
    };
    let mut response = Response::new(StatusCode::OK, Bytes::new());
    let (mut status, mut base64, mut body) = (None, false, None);
    for (key, value) in dict.iter() {
        let name = key.cast::<PyString>().ok().and_then(|name| name.to_cow().ok());
        match name.as_deref().unwrap_or_default() {
            "statusCode" => status = Some(to_status(&value, "statusCode")?),
            "headers" => add_headers(&mut response, &value, "headers", true)?,
            "multiValueHeaders" => add_headers(&mut response, &value, "multiValueHeaders", false)?,
            "body" => body = Some(value),
            "isBase64Encoded" => match value.cast::<PyBool>() {
                Ok(on) => base64 = on.is_true(),
                Err(_) => return wrong(format!("isBase64Encoded: True or False, not {}", kind(&value))),
            },
            _ => return wrong(format!("a response has the keys {}, not {}", KEYS.join(", "), key.repr()?)),
        }
    }
    let Some(status) = status else {
        return wrong("the response has no statusCode".to_string());
    };
    response.status = status;
    let mut making = None;
    match body {
        None => {}
        Some(body) if base64 => response.body = decode_base64(&body)?.into(),
        Some(body) if body.is_instance_of::<Upgrade>() => {
            response.upgrade = Some(body.cast::<Upgrade>()?.get().take()?);
        }
        Some(body) => match whole(&body)? {
            Some(whole) => response.body = whole.into(),
            None if files::take(&body, &mut response)? => {}
            None => {
                let is_async = has(&body, intern!(body.py(), "__aiter__"))?;
                // A client that has closed its half has left, as far as coroutines are concerned.
                let (sender, pieces) = channel(None, is_async);
                response.body = Body::Pieces(pieces);
                making = Some(Making { iterable: body, sender, length: Length::default(), is_async });
            }
        },
    }
    response.check().map_err(errors::to_python)?;
    if let Some(making) = &mut making {
        making.length = Length::of(&response);
    }
    Ok((response, making))
}

/// A body that is here; none for one that is to be made piece by piece.
fn whole(body: &Bound<'_, PyAny>) -> PyResult<Option<Bytes>> {
    let py = body.py();
    if body.is_none() || body.is_instance_of::<PyString>() || body.is_instance_of::<PyBytes>() {
        return to_body(body).map(Some);
    }
    if body.is_instance_of::<PyList>() || body.is_instance_of::<PyTuple>() {
        let mut joined = Vec::new();
        for piece in body.try_iter()? {
            joined.extend_from_slice(&to_body(&piece?)?);
        }
        return Ok(Some(joined.into()));
    }
    let comes_in_pieces = PyMemoryView::from(body).is_err()
        && !body.is_instance_of::<PyDict>()
        && (files::is_file(body)? || has(body, intern!(py, "__aiter__"))? || has(body, intern!(py, "__iter__"))?);
    if comes_in_pieces { Ok(None) } else { to_body(body).map(Some) }
}

/// Whether its class has that method.
fn has(value: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> PyResult<bool> {
    value.get_type().hasattr(name)
}

pub(crate) fn wrong<T>(text: String) -> PyResult<T> {
    Err(ResponseError::new_err(text))
}

pub(crate) fn kind(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_string(), |name| name.to_string())
}

/// `name` is what the value is called where it came from.
pub(crate) fn to_status(value: &Bound<'_, PyAny>, name: &str) -> PyResult<StatusCode> {
    let number = match value.cast::<PyInt>() {
        Ok(number) if !value.is_instance_of::<PyBool>() => number.extract().unwrap_or(0u16),
        _ => return wrong(format!("{name}: an int from 100 to 599, not {} ({})", value.repr()?, kind(value))),
    };
    match StatusCode::from_u16(number) {
        Ok(status) if (100..=599).contains(&number) => Ok(status),
        _ => wrong(format!("{name}: an int from 100 to 599, not {}", value.repr()?)),
    }
}

/// `single` values may be a str or a list of them; in `multiValueHeaders` only lists are meant.
fn add_headers(response: &mut Response, headers: &Bound<'_, PyAny>, key: &str, single: bool) -> PyResult<()> {
    if headers.is_none() {
        return Ok(());
    }
    let Ok(headers) = headers.cast::<PyDict>() else {
        return wrong(format!("{key}: a dict, not {}", kind(headers)));
    };
    for (name, value) in headers.iter() {
        let name = to_name(&name, key)?;
        if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
            for value in value.try_iter()? {
                let value = to_header_value(&name, &value?)?;
                response.headers.push((name.clone(), value));
            }
        } else if single {
            let value = to_header_value(&name, &value)?;
            response.headers.push((name, value));
        } else {
            return wrong(format!("{key}: header {name}: a list of str, not {}", kind(&value)));
        }
    }
    Ok(())
}

fn to_name(name: &Bound<'_, PyAny>, key: &str) -> PyResult<HeaderName> {
    let parsed =
        name.cast::<PyString>().ok().and_then(|name| HeaderName::from_bytes(name.to_cow().ok()?.as_bytes()).ok());
    match parsed {
        Some(parsed) => Ok(parsed),
        None => wrong(format!("{key}: {} is no header name (RFC 9110 section 5.1)", name.repr()?)),
    }
}

fn to_header_value(name: &HeaderName, value: &Bound<'_, PyAny>) -> PyResult<HeaderValue> {
    let Ok(text) = value.cast::<PyString>() else {
        return wrong(format!("header {name}: a str or a list of str, not {}", kind(value)));
    };
    let parsed = text.to_cow().ok().and_then(|text| {
        if text.is_ascii() {
            return HeaderValue::from_str(text.trim_matches([' ', '\t'])).ok();
        }
        // As in requests: one character is one byte.
        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
        HeaderValue::from_bytes(&bytes?).ok()
    });
    match parsed {
        Some(parsed) => Ok(parsed),
        None => wrong(format!(
            "header {name}: {} has a control character (CR or LF, say) or one beyond Latin-1",
            text.repr()?
        )),
    }
}

pub(crate) fn to_body(body: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if body.is_none() {
        return Ok(Bytes::new());
    }
    if let Ok(text) = body.cast::<PyString>() {
        return match text.to_str() {
            Ok(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Err(error) => wrong(format!("body: a str that UTF-8 cannot encode: {}", error.value(body.py()))),
        };
    }
    if let Ok(bytes) = body.cast::<PyBytes>() {
        return Ok(if bytes.as_bytes().len() < SHARE {
            Bytes::copy_from_slice(bytes.as_bytes())
        } else {
            Bytes::from_owner(PyBackedBytes::from(bytes.clone()))
        });
    }
    if let Ok(buffer) = PyBuffer::<u8>::get(body) {
        return Ok(Bytes::from(buffer.to_vec(body.py())?));
    }
    wrong(format!("body: None, str, bytes, a pathlib.Path, or an iterable of bytes, not {}", kind(body)))
}

fn decode_base64(body: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let py = body.py();
    if body.is_none() {
        return Ok(Bytes::new());
    }
    let arguments = PyDict::new(py);
    arguments.set_item(intern!(py, "validate"), true)?;
    let base64 = py.import(intern!(py, "base64"))?;
    match base64.call_method(intern!(py, "b64decode"), (body,), Some(&arguments)) {
        Ok(decoded) => to_body(&decoded),
        Err(error) => wrong(format!("body: not base64, as isBase64Encoded says: {}", error.value(py))),
    }
}
