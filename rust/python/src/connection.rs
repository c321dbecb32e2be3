//! `request.connection`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use portico_core::Address;
use portico_core::proxy::{Proxied, ProxiedTls};
use portico_core::tls::Certificate;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

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

    /// Whether the client took up an earlier session again (RFC 8446 section 2.2), and so was not sent the certificate.
    #[getter]
    fn resumed(&self) -> bool {
        self.0.resumed
    }

    /// The certificate by which the client identified itself, where `client_auth` asks for one; None without.
    #[getter]
    fn peer_certificate(&self) -> Option<PeerCertificate> {
        let der = self.0.peer_certificate.clone()?;
        Some(PeerCertificate { fields: Certificate::from_der(&der)?, der })
    }

    /// How the connection came by a proxy that told so by the PROXY protocol (`listen(proxy_protocol=True)`); None without.
    #[getter]
    fn proxy(&self) -> Option<ProxyInfo> {
        self.0.proxy.clone().map(ProxyInfo)
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

/// What a proxy said by the PROXY protocol of a connection, besides the addresses, which are `peername` and `sockname` of the
/// connection then.
#[pyclass(frozen, module = "portico", eq)]
#[derive(PartialEq)]
pub(crate) struct ProxyInfo(Arc<Proxied>);

impl ProxyInfo {
    fn tls(&self) -> Option<&ProxiedTls> {
        self.0.header.more.tls.as_ref()
    }
}

#[pymethods]
impl ProxyInfo {
    /// The version of the PROXY protocol: 1 or 2.
    #[getter]
    fn version(&self) -> u8 {
        self.0.header.version
    }

    /// Whether the proxy connected for itself (the command `LOCAL`), as health checks do.
    #[getter]
    fn local(&self) -> bool {
        self.0.header.local
    }

    /// The proxy's address, as `ConnectionInfo.peername` has a client's.
    #[getter]
    fn peername<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        address(py, &self.0.peer)
    }

    /// The address of this end, to which the proxy connected.
    #[getter]
    fn sockname<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        address(py, &self.0.local)
    }

    /// The protocol that the client chose by ALPN at the proxy; None where that is not told, as by all of version 1.
    #[getter]
    fn alpn(&self) -> Option<Cow<'_, str>> {
        self.0.header.more.alpn.as_deref().map(String::from_utf8_lossy)
    }

    /// The host name that the client asked the proxy for; None where that is not told.
    #[getter]
    fn authority(&self) -> Option<&str> {
        self.0.header.more.authority.as_deref()
    }

    /// By which the proxy knows the connection; None where that is not told.
    #[getter]
    fn unique_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.header.more.unique_id.as_deref().map(|id| PyBytes::new(py, id))
    }

    /// Whether the client speaks TLS with the proxy. `request.scheme` is `https` then.
    #[getter]
    fn secure(&self) -> bool {
        self.tls().is_some()
    }

    /// The version of that TLS, as the proxy names it: `TLSv1.3`; None where that is not told.
    #[getter]
    fn tls_version(&self) -> Option<&str> {
        self.tls()?.version.as_deref()
    }

    /// Its cipher suite, as the proxy names it; None where that is not told.
    #[getter]
    fn cipher(&self) -> Option<&str> {
        self.tls()?.cipher.as_deref()
    }

    /// Whether the client showed the proxy a certificate, and the proxy found it good.
    #[getter]
    fn client_verified(&self) -> bool {
        self.tls().is_some_and(|tls| tls.verified)
    }

    /// The common name of that certificate; None where that is not told, and where it is not `client_verified`.
    #[getter]
    fn client_name(&self) -> Option<&str> {
        self.tls().filter(|tls| tls.verified)?.common_name.as_deref()
    }

    fn __repr__(&self) -> String {
        format!("<portico proxy {}, PROXY protocol {}>", self.0.peer, self.0.header.version)
    }
}

/// A client's certificate, which was checked against `client_ca` and `client_crl`.
#[pyclass(frozen, module = "portico")]
pub(crate) struct PeerCertificate {
    fields: Certificate,
    der: Bytes,
}

#[pymethods]
impl PeerCertificate {
    /// Whom it names, as in RFC 4514: `"CN=Ada, O=Analytical Engines"`.
    #[getter]
    fn subject(&self) -> &str {
        &self.fields.subject
    }

    /// Who signed it.
    #[getter]
    fn issuer(&self) -> &str {
        &self.fields.issuer
    }

    /// Its serial number, in hexadecimal digits: `"1A2B"`.
    #[getter]
    fn serial(&self) -> &str {
        &self.fields.serial
    }

    /// Its subject alternative names (RFC 5280 section 4.2.1.6), as `ssl` has them:
    /// `(("DNS", "ada.example"), ("email", "ada@ada.example"))`, also `URI` and `IP Address`.
    #[getter]
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.fields.names)
    }

    /// When it begins, in seconds since 1970.
    #[getter]
    fn not_before(&self) -> i64 {
        self.fields.not_before
    }

    /// When it ends, in seconds since 1970.
    #[getter]
    fn not_after(&self) -> i64 {
        self.fields.not_after
    }

    /// The SHA-256 of the certificate, in hexadecimal digits.
    #[getter]
    fn fingerprint(&self) -> &str {
        &self.fields.fingerprint
    }

    /// The certificate itself, DER.
    #[getter]
    fn der<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.der)
    }

    fn __repr__(&self) -> String {
        format!("<portico peer certificate {}, serial {}>", self.fields.subject, self.fields.serial)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| self.der == other.get().der)
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.der.hash(&mut hasher);
        hasher.finish()
    }
}
