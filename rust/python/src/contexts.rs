//! `portico._core.Context`, and the keywords of `add_context`. `python/portico/_contexts.py` is what users see.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portico_core::Config;
use portico_core::tls::{
    self, Changes, ClientAuth, Credentials, Form, Identity, Password, Rules, Source, Sources, Version,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::errors::{self, ConfigError};
use crate::threads::detach;

/// A context of the core.
#[pyclass(frozen, eq)]
pub(crate) struct Context(pub(crate) Arc<tls::Context>);

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[pymethods]
impl Context {
    #[getter]
    fn host(&self) -> Option<&str> {
        self.0.host()
    }

    /// See [`Description`].
    fn describe(&self) -> Description {
        describe(self.0.identity())
    }

    /// Subject and end alone.
    fn end(&self) -> (String, i64) {
        self.0.describe()
    }

    /// `keywords` are those of `Context.replace`, each of them.
    fn replace(&self, py: Python<'_>, keywords: &Bound<'_, PyDict>) -> PyResult<()> {
        let changes = changes(keywords)?;
        if changes.is_empty() {
            let text =
                "nothing to replace: give cert= and key=, pfx= or what else there is; reload() reads files again";
            return Err(ConfigError::new_err(text));
        }
        detach(py, || self.0.replace(changes)).map_err(errors::to_python)
    }

    /// The secrets of session tickets alone.
    fn replace_ticket_keys(&self, py: Python<'_>, keys: Vec<Vec<u8>>) -> PyResult<()> {
        let keys = keys.into_iter().map(Source::Bytes).collect();
        detach(py, || self.0.replace_ticket_keys(keys)).map_err(errors::to_python)
    }

    fn reload(&self, py: Python<'_>) -> PyResult<()> {
        detach(py, || self.0.reload()).map_err(errors::to_python)
    }
}

/// What a context presents and whom it trusts.
pub(crate) fn sources(keywords: &Bound<'_, PyDict>) -> PyResult<Sources> {
    let Changes { credentials, ocsp, client_ca, client_crl, ticket_keys } = changes(keywords)?;
    let credentials = credentials.ok_or_else(|| {
        ConfigError::new_err("no certificate: give cert= and key=, or cert= alone for a file that holds both, or pfx=")
    })?;
    Ok(Sources { credentials, ocsp, client_ca, client_crl, ticket_keys: ticket_keys.unwrap_or_default() })
}

/// The same, where what is not given stays.
fn changes(keywords: &Bound<'_, PyDict>) -> PyResult<Changes> {
    let one = |name| given(keywords, name)?.map(|value| source(&value, name)).transpose();
    Ok(Changes {
        credentials: credentials(keywords)?,
        ocsp: one("ocsp")?,
        client_ca: one("client_ca")?,
        client_crl: one("client_crl")?,
        ticket_keys: given(keywords, "ticket_keys")?.map(|keys| ticket_keys(&keys)).transpose()?,
    })
}

fn credentials(keywords: &Bound<'_, PyDict>) -> PyResult<Option<Credentials>> {
    let part = |name| given(keywords, name)?.map(|value| source(&value, name)).transpose();
    let form = match (part("cert")?, part("key")?, part("pfx")?) {
        (Some(cert), key, None) => Form::Pair { cert, key },
        (None, None, Some(pfx)) => Form::Pfx(pfx),
        (None, None, None) => {
            return match given(keywords, "password")? {
                None => Ok(None),
                Some(_) => Err(ConfigError::new_err("password: it goes with cert= or pfx=, and neither was given")),
            };
        }
        (None, Some(_), None) => return Err(ConfigError::new_err("key: it needs its certificate, as cert=")),
        (_, _, Some(_)) => {
            return Err(ConfigError::new_err("pfx: it holds certificate and key; give it alone, or cert= and key="));
        }
    };
    Ok(Some(Credentials { form, password: password(keywords)? }))
}

fn ticket_keys(keys: &Bound<'_, PyAny>) -> PyResult<Vec<Source>> {
    if keys.is_instance_of::<PyString>() || keys.is_instance_of::<PyBytes>() {
        return Err(ConfigError::new_err("ticket_keys: a list of keys, the one that seals first, not a single one"));
    }
    let keys = keys.try_iter().map_err(|_| ConfigError::new_err("ticket_keys: a list of keys, paths or bytes"))?;
    let keys: Vec<_> = keys.map(|key| source(&key?, "ticket_keys")).collect::<PyResult<_>>()?;
    if keys.is_empty() {
        return Err(ConfigError::new_err(
            "ticket_keys: it is empty; leave it out for random keys, or give one or more",
        ));
    }
    Ok(keys)
}

/// `str` or `bytes`.
pub(crate) fn password(keywords: &Bound<'_, PyDict>) -> PyResult<Option<Password>> {
    let Some(value) = given(keywords, "password")? else { return Ok(None) };
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Some(Password::new(bytes.as_bytes())));
    }
    // Not shown, not even what is odd about it.
    match value.extract::<String>() {
        Ok(text) => Ok(Some(Password::new(text))),
        Err(_) => Err(ConfigError::new_err(format!("password: str or bytes, not {}", value.get_type().name()?))),
    }
}

/// Subject, names, beginning and end in seconds since 1970, warnings, serial number and fingerprint of an identity.
pub(crate) type Description = (String, Vec<String>, (i64, i64), Vec<String>, String, String);

pub(crate) fn describe(identity: Identity) -> Description {
    let ends = (identity.not_before, identity.not_after);
    (identity.subject, identity.names, ends, identity.warnings, identity.serial, identity.fingerprint)
}

/// What its handshakes may agree on.
pub(crate) fn rules(keywords: &Bound<'_, PyDict>, config: &Config) -> PyResult<Rules> {
    Ok(Rules {
        min_version: version(&required(keywords, "min_version")?, "min_version")?,
        max_version: version(&required(keywords, "max_version")?, "max_version")?,
        alpn: alpn(&required(keywords, "alpn")?, config)?,
        client_auth: client_auth(&required(keywords, "client_auth")?)?,
        watch: required(keywords, "watch")?.is_truthy()?,
    })
}

/// The value of a keyword, where it is there and not None.
pub(crate) fn given<'py>(keywords: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    Ok(keywords.get_item(name)?.filter(|value| !value.is_none()))
}

fn required<'py>(keywords: &Bound<'py, PyDict>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    given(keywords, name)?.ok_or_else(|| ConfigError::new_err(format!("{name}: it is needed, and None was given")))
}

/// A path (`str`, `os.PathLike`) or the bytes themselves; a `str` that is PEM is taken as such.
fn source(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Source> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Source::Bytes(bytes.as_bytes().to_vec()));
    }
    if let Ok(text) = value.cast::<PyString>() {
        // Text that is not Unicode may be the name of a file all the same.
        if let Ok(text) = text.to_cow() {
            if text.contains("-----BEGIN ") {
                return Ok(Source::Bytes(text.as_bytes().to_vec()));
            }
            refuse_secret(value.py(), &text, name)?;
        }
    }
    match value.extract::<PathBuf>() {
        Ok(path) => Ok(Source::File(path)),
        Err(_) if value.is_instance_of::<PyString>() => {
            Err(ConfigError::new_err(format!("{name}: it is text that no file can have as its name")))
        }
        Err(_) => Err(ConfigError::new_err(format!(
            "{name}: a path (str or os.PathLike) or bytes, not {}",
            value.get_type().name()?
        ))),
    }
}

/// Text that names no file and may be the secret itself must not get into a message as the name of a missing one.
fn refuse_secret(py: Python<'_>, text: &str, name: &str) -> PyResult<()> {
    if (name != "ticket_keys" && !may_be_secret(text)) || detach(py, || Path::new(text).exists()) {
        return Ok(());
    }
    let length = text.chars().count();
    let (kinds, cure) = match name {
        "ticket_keys" => ("not the path of a file that is there", "; keys themselves are given as bytes"),
        _ => ("neither PEM nor the path of a file", ""),
    };
    let text = format!("what was given as {name}= ({length} characters) is {kinds}{cure}");
    Err(errors::CertificateError::new_err(text))
}

/// By its looks: in lines, or long and of nothing but the letters of Base64 or hexadecimal. A path mostly begins with
/// what Base64 of a key (`M`) does not, or has a dot in it.
fn may_be_secret(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_: ".contains(&byte);
    text.contains(['\n', '\r']) || (text.len() >= 32 && !text.starts_with('/') && text.bytes().all(letter))
}

fn version(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Version> {
    match value.extract::<&str>() {
        Ok("1.2") => Ok(Version::Tls12),
        Ok("1.3") => Ok(Version::Tls13),
        _ => Err(ConfigError::new_err(format!("{name}: \"1.2\" or \"1.3\", not {}", value.repr()?))),
    }
}

fn client_auth(value: &Bound<'_, PyAny>) -> PyResult<ClientAuth> {
    match value.extract::<&str>() {
        Ok("none") => Ok(ClientAuth::None),
        Ok("optional") => Ok(ClientAuth::Optional),
        Ok("required") => Ok(ClientAuth::Required),
        _ => Err(ConfigError::new_err(format!(
            "client_auth: \"none\", \"optional\" or \"required\", not {}",
            value.repr()?
        ))),
    }
}

/// Only protocols that are spoken are offered.
fn alpn(names: &Bound<'_, PyAny>, config: &Config) -> PyResult<Vec<Vec<u8>>> {
    let wrong =
        |it: &dyn std::fmt::Display| ConfigError::new_err(format!("alpn: h2 and http/1.1 are spoken, not {it}"));
    let names: Vec<String> = names.extract().map_err(|_| wrong(names))?;
    let known = [("h2", config.http2), ("http/1.1", config.http1)];
    let mut offered = Vec::new();
    for name in names {
        match known.iter().find(|(known, _)| *known == name) {
            Some((_, true)) => offered.push(name.into_bytes()),
            Some((_, false)) => {}
            None => return Err(wrong(&format_args!("{name:?}"))),
        }
    }
    Ok(offered)
}
