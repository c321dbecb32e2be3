//! The header names that most requests have, as Python objects that are made once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};

/// What browsers, programs and proxies send.
const COMMON: [&str; 32] = [
    "host",
    "user-agent",
    "accept",
    "accept-encoding",
    "accept-language",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "authorization",
    "cache-control",
    "if-modified-since",
    "if-none-match",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "te",
    "transfer-encoding",
    "upgrade-insecure-requests",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

struct Name {
    bytes: Py<PyBytes>,
    cgi: Py<PyString>,
}

fn names(py: Python<'_>) -> &'static [Name] {
    static NAMES: PyOnceLock<Vec<Name>> = PyOnceLock::new();
    NAMES.get_or_init(py, || {
        let name = |name: &&str| Name {
            bytes: PyBytes::new(py, name.as_bytes()).unbind(),
            cgi: PyString::intern(py, &to_cgi(name)).unbind(),
        };
        COMMON.iter().map(name).collect()
    })
}

/// Which of the common names it is.
pub(crate) fn position(name: &str) -> Option<usize> {
    COMMON.iter().position(|common| *common == name)
}

/// A lower-case name as bytes.
pub(crate) fn as_bytes<'py>(py: Python<'py>, name: &str) -> Bound<'py, PyBytes> {
    match position(name).and_then(|at| names(py).get(at)) {
        Some(known) => known.bytes.bind(py).clone(),
        None => PyBytes::new(py, name.as_bytes()),
    }
}

/// A lower-case name, with its position among the common ones, as CGI writes it (RFC 3875 section 4.1.18): `HTTP_ACCEPT`.
pub(crate) fn as_cgi<'py>(py: Python<'py>, name: &str, position: Option<usize>) -> Bound<'py, PyString> {
    match position.and_then(|at| names(py).get(at)) {
        Some(known) => known.cgi.bind(py).clone(),
        None => PyString::new(py, &to_cgi(name)),
    }
}

fn to_cgi(name: &str) -> String {
    let letters = name.chars().map(|letter| if letter == '-' { '_' } else { letter.to_ascii_uppercase() });
    "HTTP_".chars().chain(letters).collect()
}
