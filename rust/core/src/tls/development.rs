//! Certificates for development and tests: a certificate authority of one's own, and what it signs. Never for a server
//! that strangers use.

use std::net::IpAddr;
use std::str::FromStr;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use time::{Duration, OffsetDateTime};

use super::context::provider;
use super::hosts::host_name;
use crate::error::Error;

/// A certificate authority that exists on this machine only.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate and the authority's, in this order.
    pub cert_pem: String,
    /// The PKCS#8 private key.
    pub key_pem: String,
}

/// The longest common name (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

impl Authority {
    /// Makes one that is valid for ten years and may sign for every name.
    ///
    /// # Errors
    /// [`Error::Certificate`]: the machine has no random numbers to give.
    pub fn new(name: &str) -> Result<Self, Error> {
        Self::make(name, None)
    }

    /// Makes one that may sign for these domains, with all below them, and these networks (`10.0.0.0/8`) only, by
    /// critical name constraints (RFC 5280 section 4.2.1.10): who steals its key is nobody else to those who trust it.
    ///
    /// # Errors
    /// [`Error::Config`] for what is neither a domain nor a network.
    pub fn constrained(name: &str, permitted: &[String]) -> Result<Self, Error> {
        let permitted_subtrees = permitted.iter().map(|part| subtree(part)).collect::<Result<_, _>>()?;
        Self::make(name, Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() }))
    }

    fn make(name: &str, name_constraints: Option<NameConstraints>) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        // It signs certificates of servers: no further authorities, no people, no code.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = name_constraints;
        (params.not_before, params.not_after) = validity(3650);
        let key = KeyPair::generate().map_err(failed)?;
        let cert_pem = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), cert_pem })
    }

    /// Takes up one that was kept.
    ///
    /// # Errors
    /// [`Error::Certificate`]: the PEM is not an authority's.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key_pem).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(failed)?;
        Ok(Authority { issuer, cert_pem: cert_pem.to_string() })
    }

    /// Its certificate, for clients to trust.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Its private key.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Signs a certificate for some names or IP addresses, valid for so many days.
    ///
    /// # Errors
    /// [`Error::Config`] for what is no host name, [`Error::Certificate`] where the authority may not sign for a name.
    pub fn issue(&self, names: &[String], days: u32) -> Result<Issued, Error> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
        // Never an address: where there is no DNS name OpenSSL takes this for one, and the authority may not sign for it.
        let short = names.iter().find(|name| name.len() <= MAX_COMMON_NAME && name.parse::<IpAddr>().is_err());
        params.distinguished_name = common_name(short.map_or("portico development certificate", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(days);
        let key = KeyPair::generate().map_err(failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        self.check(cert.der(), names)?;
        Ok(Issued { cert_pem: format!("{}{}", cert.pem(), self.cert_pem), key_pem: key.serialize_pem() })
    }

    /// Looks at a certificate as a client does that trusts this authority.
    fn check(&self, cert: &CertificateDer<'_>, names: &[String]) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).map_err(refused)?;
        roots.add(authority).map_err(refused)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider().clone());
        let verifier = verifier.build().map_err(refused)?;
        for name in names {
            // A name that the wildcard covers.
            let name = name.replacen('*', "any", 1);
            let name = ServerName::try_from(name.as_str()).map_err(refused)?;
            match verifier.verify_server_cert(cert, &[], &name, &[], UnixTime::now()) {
                Ok(_) => {}
                Err(rustls::Error::InvalidCertificate(CertificateError::Other(why)))
                    if why.to_string().contains("NameConstraintViolation") =>
                {
                    return Err(Error::Certificate(format!(
                        "the authority that is to sign may not sign for all of {}: {why}",
                        names.join(", ")
                    )));
                }
                Err(why) => return Err(refused(why)),
            }
        }
        Ok(())
    }
}

fn subtree(given: &str) -> Result<GeneralSubtree, Error> {
    if given.contains('/') {
        let network = CidrSubnet::from_str(given);
        return network.map(GeneralSubtree::IpAddress).map_err(|()| {
            Error::Config(format!("network {given:?}: not an IP address, a slash and a number of bits"))
        });
    }
    Ok(GeneralSubtree::DnsName(host_name(given)?))
}

fn alternative_name(given: &str) -> Result<SanType, Error> {
    if let Ok(address) = given.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let name = host_name(given)?;
    if name.strip_prefix("*.").is_some_and(|domain| !domain.contains('.')) {
        return Err(Error::Config(format!(
            "host {given:?}: clients take a wildcard only for a domain of two labels or more, as in *.shop.test"
        )));
    }
    Ok(SanType::DnsName(name.try_into().map_err(failed)?))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From yesterday, because clocks differ.
fn validity(days: u32) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - Duration::DAY, now + Duration::days(i64::from(days)))
}

fn failed(error: rcgen::Error) -> Error {
    Error::Certificate(format!("cannot make a development certificate: {error}"))
}

fn refused(why: impl std::fmt::Display) -> Error {
    Error::Certificate(format!("cannot make a development certificate: no client would take it: {why}"))
}

#[cfg(test)]
mod tests {
    use super::Authority;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_constrained_authority_signs_for_what_it_may() {
        let permitted = names(&["localhost", "test", "127.0.0.0/8", "::1/128"]);
        let authority = Authority::constrained("local", &permitted).unwrap();
        let kept = Authority::from_pem(authority.cert_pem(), &authority.key_pem()).unwrap();
        for authority in [authority, kept] {
            authority.issue(&names(&["localhost", "*.shop.test", "a.localhost", "127.0.0.1", "::1"]), 1).unwrap();
            for outside in ["example.com", "nottest", "localhost.com", "8.8.8.8", "::2"] {
                let error = authority.issue(&names(&["localhost", outside]), 1).unwrap_err().to_string();
                assert!(error.contains("may not sign for"), "{error}");
                assert!(error.contains(outside), "{error}");
            }
        }
    }

    #[test]
    fn names_of_every_length_fit() {
        let long = format!("{0}.{0}.{0}.test", "a".repeat(60));
        Authority::new("any").unwrap().issue(&names(&[&long]), 1).unwrap();
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let authority = Authority::new("any").unwrap();
        for given in ["", "a b", "https://a", "a:1", "b\u{fc}cher.example", "*.localhost"] {
            let error = authority.issue(&names(&[given]), 1).unwrap_err();
            assert!(matches!(error, crate::Error::Config(_)), "{error}");
        }
        assert!(Authority::constrained("local", &names(&["10.0.0.0/x"])).is_err());
    }
}
