//! Which certificate a key belongs to, and the order of those above it.

use rustls::pki_types::CertificateDer;
use x509_parser::error::X509Error;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

/// The longest chain: clients give up earlier, OpenSSL's at a hundred, browsers at far less.
const MAX_CHAIN: usize = 10;

/// A certificate, read. `subject` and the like are what it says; `der` is what is sent.
pub(super) struct Parsed<'a> {
    pub(super) der: &'a CertificateDer<'static>,
    pub(super) x509: X509Certificate<'a>,
}

/// Reads every certificate, each once.
pub(super) fn parse<'a>(certificates: &'a [CertificateDer<'static>]) -> Result<Vec<Parsed<'a>>, String> {
    let mut parsed: Vec<Parsed<'_>> = Vec::new();
    for (index, der) in certificates.iter().enumerate() {
        if parsed.iter().any(|known| known.der == der) {
            continue;
        }
        let (rest, x509) = X509Certificate::from_der(der).map_err(|error| match certificates.len() {
            1 => format!("not an X.509 certificate: {error}"),
            _ => format!("number {} in it is not an X.509 certificate: {error}", index + 1),
        })?;
        if !rest.is_empty() {
            return Err(format!("number {} in it has bytes after its end", index + 1));
        }
        parsed.push(Parsed { der, x509 });
    }
    Ok(parsed)
}

/// Algorithm and bits of a public key, whatever its parameters are.
pub(super) type PublicKey = (String, Vec<u8>);

/// The key of a `SubjectPublicKeyInfo`, of which the parameters may be written in two ways.
pub(super) fn key_of(spki: &[u8]) -> Option<PublicKey> {
    let (_, info) = SubjectPublicKeyInfo::from_der(spki).ok()?;
    Some((info.algorithm.algorithm.to_id_string(), info.subject_public_key.data.to_vec()))
}

impl Parsed<'_> {
    /// Whether it has that public key, a whole `SubjectPublicKeyInfo`.
    pub(super) fn has_key(&self, spki: &[u8]) -> bool {
        key_of(spki).is_some_and(|key| key_of(self.x509.public_key().raw) == Some(key))
    }

    /// That it is not where another one has signed it that has the same name, as people do who call both `localhost`.
    pub(super) fn is_self_signed(&self) -> bool {
        self.x509.subject().as_raw() == self.x509.issuer().as_raw()
            && self.x509.verify_signature(None) != Err(X509Error::SignatureVerificationError)
    }

    fn key_id(&self) -> Option<&[u8]> {
        self.x509.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
    }

    fn issuer_key_id(&self) -> Option<&[u8]> {
        self.x509.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        })
    }

    /// How well another one may have issued it: by name, and by the identifier of the key, where both tell it.
    fn issued_by(&self, issuer: &Parsed<'_>) -> Option<u8> {
        if self.x509.issuer().as_raw() != issuer.x509.subject().as_raw() {
            return None;
        }
        match (self.issuer_key_id(), issuer.key_id()) {
            (Some(wanted), Some(id)) if wanted != id => None,
            (Some(_), Some(_)) => Some(2),
            _ => Some(1),
        }
    }
}

/// The leaf, its issuer, the issuer's issuer and so on (RFC 5246 section 7.4.2 wants that order), and what is left over.
pub(super) fn order<'a>(leaf: Parsed<'a>, mut others: Vec<Parsed<'a>>) -> (Vec<Parsed<'a>>, Vec<Parsed<'a>>) {
    let mut chain = vec![leaf];
    while let Some(last) = chain.last().filter(|last| chain.len() < MAX_CHAIN && !last.is_self_signed()) {
        let fits: Vec<_> =
            (0..others.len()).filter_map(|index| Some((last.issued_by(&others[index])?, index))).collect();
        // Authorities change keys and keep their names; and of those that have the key, one is valid longest.
        let best = fits.iter().copied().max_by_key(|(fit, index)| {
            let issuer = &others[*index].x509;
            let signed = fits.len() > 1 && last.x509.verify_signature(Some(issuer.public_key())).is_ok();
            (signed, *fit, issuer.validity().not_after.timestamp())
        });
        let Some((_, index)) = best else { break };
        chain.push(others.swap_remove(index));
    }
    (chain, others)
}
