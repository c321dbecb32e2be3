//! Certificates that are found in a folder, and those for development and tests.

use std::path::PathBuf;

use portico_core::tls::development::Authority;
use portico_core::tls::{self, Form, Source, Wanted, host_name, read_certificate};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::contexts::{Description, describe, given, password};
use crate::errors::{self, ConfigError};
use crate::threads::detach;

/// Makes a certificate authority, valid for ten years: its certificate and its key, as PEM. With `permitted` it can sign
/// for those domains, all below them, and those networks (`10.0.0.0/8`) only.
#[pyfunction]
#[pyo3(signature = (name, permitted=None))]
pub(crate) fn make_authority(py: Python<'_>, name: &str, permitted: Option<Vec<String>>) -> PyResult<(String, String)> {
    detach(py, || permitted.map_or_else(|| Authority::new(name), |only| Authority::constrained(name, &only)))
        .map(|made| (made.cert_pem().to_string(), made.key_pem()))
        .map_err(errors::to_python)
}

/// Signs a certificate for some host names or IP addresses: its chain and its key, as PEM.
#[pyfunction]
pub(crate) fn issue_certificate(
    py: Python<'_>,
    ca_cert_pem: &str,
    ca_key_pem: &str,
    names: Vec<String>,
    days: u32,
) -> PyResult<(String, String)> {
    detach(py, || Authority::from_pem(ca_cert_pem, ca_key_pem)?.issue(&names, days))
        .map(|issued| (issued.cert_pem, issued.key_pem))
        .map_err(errors::to_python)
}

/// The subject of a certificate, and when it ends in seconds since 1970.
///
/// Raises `CertificateError` where it is unreadable, expired or not yet valid.
#[pyfunction]
pub(crate) fn certificate_info(pem: Vec<u8>) -> PyResult<(String, i64)> {
    read_certificate(&Source::Bytes(pem)).map_err(errors::to_python)
}

/// Which keyword of `add_context` each file is for, what was found, others that would have done, and what would not.
type Found = (Vec<(&'static str, PathBuf)>, Description, Vec<String>, Vec<String>);

/// Looks for a certificate with its key. `keywords` are those of `portico.find_certificate`.
#[pyfunction]
pub(crate) fn find_certificate(py: Python<'_>, folder: PathBuf, keywords: &Bound<'_, PyDict>) -> PyResult<Found> {
    let text = |name| {
        let Some(value) = given(keywords, name)? else { return Ok(None) };
        let wrong = |_| ConfigError::new_err(format!("{name}: text, without lone surrogates"));
        Ok::<_, PyErr>(Some(value.extract::<String>().map_err(wrong)?))
    };
    let wanted = Wanted {
        subject: text("subject")?,
        host: text("host")?.map(|host| host_name(&host)).transpose().map_err(errors::to_python)?,
        password: password(keywords)?,
    };
    let found = detach(py, || tls::find_certificate(&folder, &wanted)).map_err(errors::to_python)?;
    let sources = match found.credentials.form {
        Form::Pair { cert, key } => vec![("cert", Some(cert)), ("key", key)],
        Form::Pfx(pfx) => vec![("pfx", Some(pfx))],
    };
    let file = |(name, source)| match source {
        Some(Source::File(path)) => Some((name, path)),
        _ => None,
    };
    Ok((sources.into_iter().filter_map(file).collect(), describe(found.identity), found.others, found.passed_over))
}
