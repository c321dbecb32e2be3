//! `request.connection`.

use std::sync::Arc;

use portico_core::Address;
use pyo3::prelude::*;

/// Who is connected, and how.
#[pyclass(frozen, module = "portico")]
pub(crate) struct ConnectionInfo(pub(crate) Arc<portico_core::ConnectionInfo>);

pub(crate) fn address<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    Ok(match address {
        Address::Inet(address) => {
            (address.ip().to_canonical().to_string(), address.port()).into_pyobject(py)?.into_any()
        }
        Address::Unix(path) => path.as_deref().unwrap_or("").into_pyobject(py)?.into_any(),
    })
}

#[pymethods]
impl ConnectionInfo {
    /// A number that no other connection of this server has.
    #[getter]
    fn id(&self) -> u64 {
        self.0.id
    }

    /// The client's address: `(ip, port)`, or the path of a Unix socket, empty where it has none.
    #[getter]
    fn peername<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        address(py, &self.0.peer)
    }

    /// The address of this end.
    #[getter]
    fn sockname<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        address(py, &self.0.local)
    }

    /// Whether it is TLS.
    #[getter]
    fn secure(&self) -> bool {
        self.0.secure
    }

    /// The host name that the client asked for in the handshake (RFC 6066), in lower case; None without one.
    #[getter]
    fn sni(&self) -> Option<&str> {
        self.0.sni.as_deref()
    }

    /// `TLSv1.2` or `TLSv1.3`; None without TLS.
    #[getter]
    fn tls_version(&self) -> Option<&'static str> {
        self.0.tls_version
    }

    /// The cipher suite by its IANA name; None without TLS.
    #[getter]
    fn cipher(&self) -> Option<&str> {
        self.0.cipher
    }

    /// The key exchange group by its IANA name; None without TLS and in a resumed TLS 1.2 session.
    #[getter]
    fn key_exchange(&self) -> Option<&str> {
        self.0.key_exchange
    }

    /// The protocol chosen by ALPN (RFC 7301): `h2`, `http/1.1` (for some clients `http/1.0`) or None.
    #[getter]
    fn alpn(&self) -> Option<&str> {
        self.0.alpn.as_deref()
    }

    fn __repr__(&self) -> String {
        let info = &self.0;
        let tls = info.tls_version.unwrap_or("cleartext");
        format!("<portico connection {} from {} to {}, {tls}>", info.id, info.peer, info.local)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| Arc::ptr_eq(&self.0, &other.get().0))
    }

    fn __hash__(&self) -> u64 {
        self.0.id
    }
}
