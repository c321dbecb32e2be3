//! Clients that identify themselves by a certificate (RFC 8446 section 4.3.2): who is believed.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use time::OffsetDateTime;
use x509_parser::error::X509Error;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Version};

use super::context::provider;
use super::identity::{Source, date, is_pem};
use crate::error::Error;

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// They are not.
    #[default]
    None,
    /// They are, and may do without; a certificate that is shown has to be good.
    Optional,
    /// They are, and without one the handshake fails.
    Required,
}

/// Who is believed.
pub(super) struct Trust {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// Of the rule and all that it was made of: a session that was begun under another one is not taken up again.
    pub(super) digest: [u8; 32],
    /// When the first of the revocation lists ends, in seconds since 1970.
    pub(super) until: Option<i64>,
}

impl Trust {
    /// Reads authorities and revocation lists, PEM or DER, any number in a file.
    ///
    /// As nginx does, every certificate of a chain is looked up once there is a revocation list: one for each authority
    /// in it is needed. A list that is over says nothing about what was revoked since, and nobody is let in by it.
    pub(super) fn load(mode: ClientAuth, ca: Option<&Source>, crl: Option<&Source>) -> Result<Self, Error> {
        let mut digest = digest::Context::new(&digest::SHA256);
        digest.update(format!("{mode:?}").as_bytes());
        let (lists, until) = match crl {
            Some(crl) => read_lists(crl, &mut digest)?,
            None => (Vec::new(), None),
        };
        let verifier = match (mode, ca) {
            (ClientAuth::None, None) if crl.is_none() => WebPkiClientVerifier::no_client_auth(),
            (ClientAuth::None, _) => {
                return Err(Error::Config(
                    "client_ca and client_crl are for client_auth=\"optional\" or \"required\", and it is \"none\""
                        .into(),
                ));
            }
            (_, None) => {
                return Err(Error::Config(
                    "client_auth needs client_ca: the certificates of those who sign clients' certificates".into(),
                ));
            }
            (_, Some(ca)) => {
                let (roots, authorities) = read_roots(ca, &mut digest)?;
                if let Some(crl) = crl {
                    match_lists(&lists, &authorities).map_err(|why| wrong_crl(crl, &why))?;
                }
                let mut builder =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider().clone()).with_crls(lists);
                if crl.is_some() {
                    builder = builder.enforce_revocation_expiration();
                }
                if mode == ClientAuth::Optional {
                    builder = builder.allow_unauthenticated();
                }
                builder.build().map_err(|error| {
                    let crl = crl.map(|crl| format!(" with client_crl {crl}")).unwrap_or_default();
                    Error::Certificate(format!("client_ca {ca}{crl} cannot be used: {error}"))
                })?
            }
        };
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        Ok(Trust { verifier, digest: bytes, until })
    }
}

fn wrong_crl(source: &Source, why: &str) -> Error {
    Error::Certificate(format!("client_crl {source}: {why}"))
}

/// Of several lists, some may be of authorities below those given, whose certificates clients show. But where none is of
/// one given, nobody would be let in.
fn match_lists(lists: &[CertificateRevocationListDer<'_>], authorities: &[CertificateDer<'_>]) -> Result<(), String> {
    let lists: Vec<_> =
        lists.iter().filter_map(|list| Some(CertificateRevocationList::from_der(list).ok()?.1)).collect();
    let authorities: Vec<_> =
        authorities.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
    let is_of = |list: &CertificateRevocationList<'_>, authority: &X509Certificate<'_>| {
        list.issuer().as_raw() == authority.subject().as_raw()
            && list.verify_signature(authority.public_key()) != Err(X509Error::SignatureVerificationError)
    };
    if lists.iter().any(|list| authorities.iter().any(|authority| is_of(list, authority))) {
        return Ok(());
    }
    let some = |names: Vec<String>| names.into_iter().take(5).collect::<Vec<_>>().join("; ");
    Err(format!(
        "no list in it is signed by an authority in client_ca, so nobody would be let in: the lists are of {}, client_ca \
         has {}",
        some(lists.iter().map(|list| list.issuer().to_string()).collect()),
        some(authorities.iter().map(|authority| authority.subject().to_string()).collect())
    ))
}

/// The authorities, and their certificates.
fn read_roots(
    source: &Source,
    digest: &mut digest::Context,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Error> {
    let wrong = |why: String| Error::Certificate(format!("client_ca {source}: {why}"));
    let bytes = source.read().map_err(wrong)?;
    let certificates: Vec<CertificateDer<'_>> = if is_pem(&bytes) {
        CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(format!("malformed PEM: {error}")))?
    } else {
        vec![CertificateDer::from(bytes.as_slice())]
    };
    if certificates.is_empty() {
        return Err(wrong("PEM without a CERTIFICATE section".into()));
    }
    let mut roots = RootCertStore::empty();
    let certificates: Vec<_> = certificates.into_iter().map(CertificateDer::into_owned).collect();
    for (index, certificate) in certificates.iter().enumerate() {
        digest.update(certificate);
        roots
            .add(certificate.clone())
            .map_err(|error| wrong(format!("number {} in it is no usable certificate: {error}", index + 1)))?;
    }
    Ok((roots, certificates))
}

/// The lists, and when the first of them ends.
fn read_lists(
    source: &Source,
    digest: &mut digest::Context,
) -> Result<(Vec<CertificateRevocationListDer<'static>>, Option<i64>), Error> {
    let wrong = |why: String| wrong_crl(source, &why);
    let bytes = source.read().map_err(wrong)?;
    let lists: Vec<CertificateRevocationListDer<'static>> = if is_pem(&bytes) {
        CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(format!("malformed PEM: {error}")))?
    } else {
        vec![CertificateRevocationListDer::from(bytes)]
    };
    if lists.is_empty() {
        return Err(wrong("PEM without an X509 CRL section".into()));
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut until = None;
    for list in &lists {
        digest.update(list);
        let (_, parsed) = CertificateRevocationList::from_der(list)
            .map_err(|error| wrong(format!("not a revocation list: {error}")))?;
        // rustls takes no others (RFC 5280 sections 5.1.2.1 and 5.2.3), and does not say so.
        let lacks = match (parsed.version(), parsed.crl_number()) {
            (Some(X509Version::V2), Some(_)) => None,
            (Some(X509Version::V2), None) => Some("has no CRL number, which RFC 5280 section 5.2.3 requires"),
            _ => Some("is of version 1, without the CRL number that RFC 5280 section 5.2.3 requires"),
        };
        if let Some(lacks) = lacks {
            return Err(wrong(format!(
                "the list of {} {lacks}: `openssl ca -gencrl` writes it where openssl.cnf has a line \"crlnumber = FILE\"",
                parsed.issuer()
            )));
        }
        if let Some(end) = parsed.next_update().map(|time| time.timestamp()) {
            if end < now {
                return Err(wrong(format!("the list of {} expired at {}", parsed.issuer(), date(end))));
            }
            until = Some(until.map_or(end, |until: i64| until.min(end)));
        }
    }
    Ok((lists, until))
}
