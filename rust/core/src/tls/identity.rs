//! Certificates and their keys: read from files or bytes, PEM or DER, and checked before anybody sees them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::context::provider;
use crate::error::Error;

/// Where a certificate or key comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, read again on every reload.
    File(PathBuf),
    /// The bytes themselves.
    Bytes(Vec<u8>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "file {}", path.display()),
            Source::Bytes(bytes) => write!(f, "{} bytes given", bytes.len()),
        }
    }
}

// Bytes may be a private key, which must not end up in a log.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Source {
    pub(super) fn read(&self, what: &str) -> Result<Vec<u8>, Error> {
        match self {
            Source::File(path) => {
                std::fs::read(path).map_err(|error| Error::Certificate(format!("cannot read {what} {self}: {error}")))
            }
            Source::Bytes(bytes) => Ok(bytes.clone()),
        }
    }
}

/// Where a certificate and its key come from.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The certificate chain.
    pub cert: Source,
    /// The private key.
    pub key: Source,
    /// For an encrypted key.
    pub password: Option<String>,
}

impl Credentials {
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        [&self.cert, &self.key].into_iter()
    }
}

// Not the password, which must not end up in a log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {}, key {}", self.cert, self.key)
    }
}

/// A certificate chain with its private key, known to fit together and to be valid now.
#[derive(Clone)]
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    /// The subject of the certificate, as in RFC 4514.
    pub subject: String,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
}

impl Identity {
    /// Reads and checks a chain and its key.
    ///
    /// # Errors
    /// [`Error::Certificate`], saying which of the two is wrong, and how.
    pub fn load(credentials: &Credentials) -> Result<Self, Error> {
        let Credentials { cert, key, password } = credentials;
        let chain = read_chain(cert)?;
        let private = read_key(key, password.as_deref())?;
        let (subject, not_after) = check_leaf(&chain, cert)?;
        let certified = CertifiedKey::from_der(chain, private, provider()).map_err(|error| {
            Error::Certificate(match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("key {key} does not match certificate {cert} (subject {subject})")
                }
                error => format!("key {key} with certificate {cert} (subject {subject}) cannot be used: {error}"),
            })
        })?;
        Ok(Identity { key: Arc::new(certified), subject, not_after })
    }
}

/// One or more certificates, the server's own first.
fn read_chain(source: &Source) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = source.read("certificate")?;
    if bytes.is_empty() {
        return Err(Error::Certificate(format!("certificate {source}: it is empty")));
    }
    if !is_pem(&bytes) {
        return Ok(vec![CertificateDer::from(bytes)]);
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| Error::Certificate(format!("certificate {source}: malformed PEM: {error}")))?;
    if chain.is_empty() {
        let hint = if contains(&bytes, b"PRIVATE KEY-----") { "; it holds a key: are the two swapped?" } else { "" };
        return Err(Error::Certificate(format!("certificate {source}: PEM without a CERTIFICATE section{hint}")));
    }
    Ok(chain)
}

/// Reads a certificate, checks that it is valid now, and says its subject and when it ends in seconds since 1970.
///
/// # Errors
/// [`Error::Certificate`].
pub fn read_certificate(source: &Source) -> Result<(String, i64), Error> {
    check_leaf(&read_chain(source)?, source)
}

fn check_leaf(chain: &[CertificateDer<'_>], source: &Source) -> Result<(String, i64), Error> {
    let leaf = chain.first().ok_or_else(|| Error::Certificate(format!("certificate {source}: it is empty")))?;
    for (index, issuer) in chain.iter().enumerate().skip(1) {
        X509Certificate::from_der(issuer).map_err(|error| {
            let number = index + 1;
            Error::Certificate(format!(
                "certificate {source}: number {number} in it is not an X.509 certificate: {error}"
            ))
        })?;
    }
    let (_, parsed) = X509Certificate::from_der(leaf)
        .map_err(|error| Error::Certificate(format!("certificate {source}: not an X.509 certificate: {error}")))?;
    let subject = parsed.subject().to_string();
    let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let now = OffsetDateTime::now_utc().unix_timestamp();
    if now > to {
        return Err(Error::Certificate(format!("certificate {source} (subject {subject}) expired at {}", date(to))));
    }
    if now < from {
        return Err(Error::Certificate(format!(
            "certificate {source} (subject {subject}) is not valid before {}",
            date(from)
        )));
    }
    Ok((subject, to))
}

pub(super) fn date(timestamp: i64) -> String {
    OffsetDateTime::from_unix_timestamp(timestamp)
        .ok()
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| timestamp.to_string())
}

/// PKCS#8 (plain or encrypted), PKCS#1 or SEC1.
fn read_key(source: &Source, password: Option<&str>) -> Result<PrivateKeyDer<'static>, Error> {
    let bytes = source.read("key")?;
    let wrong = |why: String| Error::Certificate(format!("key {source}: {why}"));
    if !is_pem(&bytes) {
        if let Ok(encrypted) = EncryptedPrivateKeyInfoRef::try_from(bytes.as_slice()) {
            return decrypt(&encrypted, password).map_err(wrong);
        }
        return PrivateKeyDer::try_from(bytes).map_err(|error| wrong(format!("neither PEM nor a DER key: {error}")));
    }
    if contains(&bytes, b"Proc-Type: 4,ENCRYPTED") {
        return Err(wrong(
            "encrypted in the old PEM form, which is not supported; convert it with: openssl pkcs8 -topk8 -in OLD.key -out NEW.key".into(),
        ));
    }
    if let Some(section) = section(&bytes, "ENCRYPTED PRIVATE KEY") {
        let (_, document) =
            pkcs8::SecretDocument::from_pem(section).map_err(|error| wrong(format!("malformed PEM: {error}")))?;
        let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
            .map_err(|error| wrong(format!("malformed encrypted key: {error}")))?;
        return decrypt(&encrypted, password).map_err(wrong);
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        wrong(match error {
            rustls::pki_types::pem::Error::NoItemsFound => "PEM without a PRIVATE KEY section".into(),
            error => format!("malformed PEM: {error}"),
        })
    })
}

fn decrypt(
    encrypted: &EncryptedPrivateKeyInfoRef<'_>,
    password: Option<&str>,
) -> Result<PrivateKeyDer<'static>, String> {
    let password = password.ok_or("it is encrypted: give its password=")?;
    let document =
        encrypted.decrypt(password).map_err(|error| format!("wrong password, or not decryptable: {error}"))?;
    PrivateKeyDer::try_from(document.as_bytes().to_vec())
        .map_err(|_| "wrong password: what it decrypts to is no key".to_string())
}

pub(super) fn is_pem(bytes: &[u8]) -> bool {
    contains(bytes, b"-----BEGIN ")
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}

/// The text of the first PEM section of that label, its markers included.
fn section<'a>(bytes: &'a [u8], label: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let end_marker = format!("-----END {label}-----");
    let start = text.find(&format!("-----BEGIN {label}-----"))?;
    let end = start + text[start..].find(&end_marker)? + end_marker.len();
    Some(&text[start..end])
}
