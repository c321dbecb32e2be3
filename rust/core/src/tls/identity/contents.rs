//! What a file holds: certificates and keys, in PEM or DER, and what people give by mistake.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::asn1_rs::Oid;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::der_parser::oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::asn1::Reader;
use super::decrypt::{Failure, Work, damaged, decrypt_key, decrypt_old_pem};
use super::pem::{self, Section};
use super::pfx;
use super::source::Password;

pub(super) const SIGNED_DATA: Oid<'static> = oid!(1.2.840.113549.1.7.2);

/// Certificates and keys in the order of the file.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) keys: Vec<StoredKey>,
    /// Whatever else is in it, in words.
    pub(super) others: Vec<String>,
    pub(super) is_pem: bool,
}

/// A key, maybe encrypted yet.
pub(super) enum StoredKey {
    Plain(PrivateKeyDer<'static>),
    /// `EncryptedPrivateKeyInfo` (RFC 5958).
    Encrypted(Vec<u8>),
    /// With `Proc-Type: 4,ENCRYPTED`.
    OldPem(Section),
    /// Of a kind that TLS cannot use, in words.
    Unusable(&'static str),
}

impl StoredKey {
    pub(super) fn open(self, password: Option<&Password>, work: &mut Work) -> Result<PrivateKeyDer<'static>, Failure> {
        let der = match self {
            StoredKey::Plain(key) => return Ok(key),
            StoredKey::Encrypted(der) => decrypt_key(&der, password, work)?,
            StoredKey::OldPem(section) => decrypt_old_pem(&section, password)?,
            StoredKey::Unusable(kind) => return Err(Failure::Other(format!("it is {kind}, which TLS does not use"))),
        };
        // One wrong password of 256 leaves something that looks padded.
        key_of(der).ok_or(Failure::WrongPassword)
    }
}

/// PKCS#8, PKCS#1 or SEC1, by its looks.
pub(super) fn key_of(der: Vec<u8>) -> Option<PrivateKeyDer<'static>> {
    PrivateKeyDer::try_from(der).ok()
}

impl Contents {
    /// Sorts out what stands in a file. Nothing is decrypted yet.
    pub(super) fn read(bytes: Vec<u8>) -> Result<Self, String> {
        if !pem::is_pem(&bytes) {
            return Ok(Contents::of_der(bytes));
        }
        let mut contents = Contents { is_pem: true, ..Contents::default() };
        for section in pem::sections(&bytes)? {
            contents.add(section)?;
        }
        Ok(contents)
    }

    fn add(&mut self, section: Section) -> Result<(), String> {
        match section.label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" => self.certificates.push(section.der.into()),
            "TRUSTED CERTIFICATE" => {
                // OpenSSL puts what it trusts it for behind it.
                let trusted = X509Certificate::from_der(&section.der).map(|(rest, _)| section.der.len() - rest.len());
                let length = trusted.map_err(|error| format!("its TRUSTED CERTIFICATE is malformed: {error}"))?;
                self.certificates.push(section.der[..length].to_vec().into());
            }
            "PKCS7" | "CMS" => {
                let bundle = pkcs7(&section.der).ok_or_else(|| format!("its {} is malformed", section.label))?;
                self.certificates.extend(bundle);
            }
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                self.keys.push(if section.header("Proc-Type").is_some_and(|kind| kind.contains("ENCRYPTED")) {
                    StoredKey::OldPem(section)
                } else {
                    let label = section.label;
                    StoredKey::Plain(
                        key_of(section.der).ok_or_else(|| format!("malformed PEM: its {label} is no key"))?,
                    )
                })
            }
            "ENCRYPTED PRIVATE KEY" => self.keys.push(StoredKey::Encrypted(section.der)),
            "DSA PRIVATE KEY" => self.keys.push(StoredKey::Unusable("a DSA key")),
            "OPENSSH PRIVATE KEY" => self.keys.push(StoredKey::Unusable("a key for SSH")),
            "EC PARAMETERS" | "DH PARAMETERS" | "X509 CRL" => {}
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => self.others.push(REQUEST.into()),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => self.others.push("a public key".into()),
            other => self.others.push(format!("a section {:.60}", other.escape_debug().to_string())),
        }
        Ok(())
    }

    fn of_der(der: Vec<u8>) -> Self {
        let mut contents = Contents::default();
        if pfx::is_pfx(&der) {
            contents.others.push(PFX.into());
        } else if is_encrypted_key(&der) {
            contents.keys.push(StoredKey::Encrypted(der));
        } else if let Some(bundle) = pkcs7(&der) {
            contents.certificates = bundle;
        } else if X509CertificationRequest::from_der(&der).is_ok_and(|(rest, _)| rest.is_empty()) {
            contents.others.push(REQUEST.into());
        } else if SubjectPublicKeyInfo::from_der(&der).is_ok_and(|(rest, _)| rest.is_empty()) {
            contents.others.push("a public key".into());
        } else if X509Certificate::from_der(&der).is_ok() {
            contents.certificates.push(der.into());
        } else if let Some(key) = key_of(der.clone()) {
            contents.keys.push(StoredKey::Plain(key));
        } else if der.starts_with(b"\xff\xfe") || der.starts_with(b"\xfe\xff") {
            contents
                .others
                .push("UTF-16 text, as some editors and shells of Windows write it: save it as UTF-8".into());
        }
        contents
    }

    /// Why there is no certificate in it.
    pub(super) fn no_certificate(&self) -> String {
        let what = if self.is_pem { "PEM without a CERTIFICATE section" } else { "not an X.509 certificate" };
        let keys = (!self.keys.is_empty()).then(|| "a key: are the two swapped?".to_string());
        format!("{what}{}", holds(self.others.iter().cloned().chain(keys)))
    }

    /// Why there is no key in it.
    pub(super) fn no_key(&self) -> String {
        let what = if self.is_pem { "PEM without a PRIVATE KEY section" } else { "neither PEM nor a DER key" };
        let certificates = (!self.certificates.is_empty()).then(|| "a certificate: are the two swapped?".to_string());
        format!("{what}{}", holds(self.others.iter().cloned().chain(certificates)))
    }
}

const REQUEST: &str = "a certificate request (CSR), for which an authority has yet to give the certificate";
const PFX: &str = "a PFX (PKCS#12): give it as pfx=";

fn holds(things: impl Iterator<Item = String>) -> String {
    let things: Vec<_> = things.take(3).collect();
    if things.is_empty() { String::new() } else { format!("; it holds {}", things.join(", and ")) }
}

/// `EncryptedPrivateKeyInfo` (RFC 5958 section 3): an algorithm and octets.
fn is_encrypted_key(der: &[u8]) -> bool {
    let parts = || {
        let mut info = Reader::of_sequence(der)?;
        info.sequence()?.oid()?;
        info.octets()?;
        info.is_empty().then_some(())
    };
    parts().is_some()
}

/// The certificates of a `SignedData` (RFC 5652 section 5.1), which is what `.p7b` files are.
fn pkcs7(der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut info = Reader::of_sequence(der)?;
    if info.oid()? != SIGNED_DATA {
        return None;
    }
    let mut data = info.tagged(0)?.sequence()?;
    data.integer()?;
    data.set()?;
    data.sequence()?;
    let mut certificates = data.tagged(0)?;
    let mut found = Vec::new();
    while !certificates.is_empty() {
        found.push(certificates.value()?.1.to_vec().into());
    }
    Some(found)
}

/// The contents of a PFX, with its keys open.
pub(super) fn open_pfx(bytes: &[u8], password: Option<&Password>, work: &mut Work) -> Result<Contents, Failure> {
    if pem::is_pem(bytes) {
        return Err(Failure::Other("it is PEM and no PFX (PKCS#12): give it as cert=, and its key as key=".into()));
    }
    if !pfx::is_pfx(bytes) {
        let contents = Contents::of_der(bytes.to_vec());
        let kind = if !contents.certificates.is_empty() {
            "it is a certificate and no PFX (PKCS#12): give it as cert="
        } else {
            "it is no PFX (PKCS#12), or it is damaged"
        };
        return Err(Failure::Other(kind.into()));
    }
    let contents = pfx::open(bytes, password, work)?;
    if contents.certificates.is_empty() && contents.keys.is_empty() {
        return Err(damaged());
    }
    Ok(contents)
}
