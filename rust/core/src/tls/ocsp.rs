//! An OCSP staple (RFC 6066 section 8): an authority's word, sent with the certificate, that it is not revoked.

use aws_lc_rs::digest;
use der::Decode;
use time::OffsetDateTime;
use x509_ocsp::{BasicOcspResponse, CertStatus, OcspResponse, OcspResponseStatus, SingleResponse};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::{Source, date};
use crate::error::Error;

/// Seconds by which the clocks of authority and server may differ.
const CLOCKS_DIFFER: i64 = 5 * 60;

/// A response that is good for the certificate it is sent with.
#[derive(Debug, Clone)]
pub(super) struct Staple {
    pub(super) der: Vec<u8>,
    /// When it ends, in seconds since 1970; some do not.
    pub(super) until: Option<i64>,
}

impl Staple {
    /// Reads one for a certificate, DER. One that clients would refuse is refused here: a connection without any goes on,
    /// one with a wrong one does not.
    pub(super) fn load(source: &Source, leaf: &[u8]) -> Result<Self, Error> {
        let wrong = |why: String| Error::Certificate(format!("OCSP response {source}: {why}"));
        let der = source.read().map_err(wrong)?;
        let until = check(&der, leaf, OffsetDateTime::now_utc().unix_timestamp()).map_err(wrong)?;
        Ok(Staple { der, until })
    }
}

fn check(der: &[u8], leaf: &[u8], now: i64) -> Result<Option<i64>, String> {
    let malformed =
        |error: der::Error| format!("it is no response in DER (as `openssl ocsp -respout` writes it): {error}");
    let response = OcspResponse::from_der(der).map_err(malformed)?;
    if response.response_status != OcspResponseStatus::Successful {
        return Err(format!("the responder answered {:?}", response.response_status));
    }
    let bytes = response.response_bytes.ok_or("it is empty")?;
    let basic = BasicOcspResponse::from_der(bytes.response.as_bytes()).map_err(malformed)?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let is_ours = |single: &&SingleResponse| {
        let strip = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
        strip(single.cert_id.serial_number.as_bytes()) == strip(leaf.raw_serial())
    };
    let single =
        basic.tbs_response_data.responses.iter().find(is_ours).ok_or_else(|| {
            format!("it is for another certificate than {} (serial {:X})", leaf.subject(), leaf.serial)
        })?;
    match &single.cert_status {
        CertStatus::Good(_) => {}
        CertStatus::Revoked(_) => return Err(format!("it says that {} is revoked", leaf.subject())),
        CertStatus::Unknown(_) => return Err(format!("its responder does not know {}", leaf.subject())),
    }
    if !names_issuer(single, &leaf) {
        return Err(format!("it is for a certificate of another authority than {}", leaf.issuer()));
    }
    let seconds =
        |time: &x509_ocsp::OcspGeneralizedTime| i64::try_from(time.0.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    let from = seconds(&single.this_update);
    if from > now + CLOCKS_DIFFER {
        return Err(format!("it begins in the future, at {}: is the clock right?", date(from)));
    }
    let until = single.next_update.as_ref().map(seconds);
    match until {
        Some(until) if until < now => Err(format!("it expired at {}", date(until))),
        until => Ok(until),
    }
}

/// Whether the name of the issuer in a response is that of the certificate's, by the hashes that are used (RFC 5019 section
/// 2.1.1, RFC 9654). Others are let pass.
fn names_issuer(single: &SingleResponse, leaf: &X509Certificate<'_>) -> bool {
    let algorithm = match single.cert_id.hash_algorithm.oid.to_string().as_str() {
        "1.3.14.3.2.26" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        "2.16.840.1.101.3.4.2.1" => &digest::SHA256,
        _ => return true,
    };
    digest::digest(algorithm, leaf.issuer().as_raw()).as_ref() == single.cert_id.issuer_name_hash.as_bytes()
}
