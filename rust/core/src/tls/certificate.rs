//! What stands in a certificate, for people.

use std::net::{Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate's fields. Subject and issuer are written as in RFC 4514.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it names.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// Its subject alternative names (RFC 5280 section 4.2.1.6), by kind: `DNS`, `IP Address`, `email` or `URI`.
    pub names: Vec<(&'static str, String)>,
    /// When it begins, in seconds since 1970.
    pub not_before: i64,
    /// When it ends.
    pub not_after: i64,
    /// SHA-256 over the whole, in hexadecimal digits.
    pub fingerprint: String,
}

impl Certificate {
    /// Reads DER; none where it is no X.509 certificate.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten();
        Some(Certificate {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: format!("{:X}", parsed.serial),
            names: names.map_or_else(Vec::new, |names| names.value.general_names.iter().filter_map(name).collect()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            fingerprint: hex(digest::digest(&digest::SHA256, der).as_ref()),
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<(&'static str, String)> {
    Some(match name {
        GeneralName::DNSName(name) => ("DNS", (*name).to_string()),
        GeneralName::RFC822Name(name) => ("email", (*name).to_string()),
        GeneralName::URI(name) => ("URI", (*name).to_string()),
        GeneralName::IPAddress(bytes) => ("IP Address", address(bytes)?),
        _ => return None,
    })
}

/// An `iPAddress` (RFC 5280 section 4.2.1.6).
pub(super) fn address(bytes: &[u8]) -> Option<String> {
    <[u8; 4]>::try_from(bytes)
        .map(|bytes| Ipv4Addr::from(bytes).to_string())
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).to_string()))
        .ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
