//! Clients that identify themselves by a certificate (RFC 8446 section 4.3.2): who is believed.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

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
                let roots = read_roots(ca, &mut digest)?;
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

fn read_roots(source: &Source, digest: &mut digest::Context) -> Result<RootCertStore, Error> {
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
    for (index, certificate) in certificates.into_iter().enumerate() {
        digest.update(&certificate);
        roots
            .add(certificate.into_owned())
            .map_err(|error| wrong(format!("number {} in it is no usable certificate: {error}", index + 1)))?;
    }
    Ok(roots)
}

/// The lists, and when the first of them ends.
fn read_lists(
    source: &Source,
    digest: &mut digest::Context,
) -> Result<(Vec<CertificateRevocationListDer<'static>>, Option<i64>), Error> {
    let wrong = |why: String| Error::Certificate(format!("client_crl {source}: {why}"));
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
        if let Some(end) = parsed.next_update().map(|time| time.timestamp()) {
            if end < now {
                return Err(wrong(format!("the list of {} expired at {}", parsed.issuer(), date(end))));
            }
            until = Some(until.map_or(end, |until: i64| until.min(end)));
        }
    }
    Ok((lists, until))
}
