//! PKCS#12 (RFC 7292), which is PFX: as OpenSSL, GnuTLS, NSS, Java and Windows write it, with a MAC by the old scheme, by
//! PBMAC1 (RFC 9579), or without one.

use std::borrow::Cow;
use std::num::NonZeroU32;

use aws_lc_rs::digest::{self, Algorithm};
use aws_lc_rs::{hmac, pbkdf2};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::Oid;
use x509_parser::der_parser::oid;

use super::asn1::Reader;
use super::contents::{Contents, SIGNED_DATA, StoredKey, key_of};
use super::decrypt::{FOR_MAC, Failure, Work, damaged, decrypt, derive};
use super::source::Password;

const DATA: Oid<'static> = oid!(1.2.840.113549.1.7.1);
const ENCRYPTED_DATA: Oid<'static> = oid!(1.2.840.113549.1.7.6);
const KEY_BAG: Oid<'static> = oid!(1.2.840.113549.1.12.10.1.1);
const SHROUDED_KEY_BAG: Oid<'static> = oid!(1.2.840.113549.1.12.10.1.2);
const CERT_BAG: Oid<'static> = oid!(1.2.840.113549.1.12.10.1.3);
const SAFE_CONTENTS_BAG: Oid<'static> = oid!(1.2.840.113549.1.12.10.1.6);
const X509_CERTIFICATE: Oid<'static> = oid!(1.2.840.113549.1.9.22.1);
const PBMAC1: Oid<'static> = oid!(1.2.840.113549.1.5.14);
const PBKDF2: Oid<'static> = oid!(1.2.840.113549.1.5.12);

/// How deep bags may hold bags. None that is in use has any.
const MAX_NESTING: usize = 4;
/// RFC 9579 section 5 wants 20 bytes at least; a shorter key can be guessed.
const PBMAC1_KEY: std::ops::RangeInclusive<u64> = 20..=128;

/// One way to read a password.
struct Reading {
    bytes: Vec<u8>,
    utf16: Vec<u8>,
}

/// The ways to read it: an empty password, or none, may be an empty string or nothing at all.
fn readings(password: Option<&Password>) -> Vec<Reading> {
    let reading = |password: &Password| Reading { bytes: password.bytes().to_vec(), utf16: password.utf16() };
    match password {
        Some(password) if !password.bytes().is_empty() => vec![reading(password)],
        _ => vec![reading(&Password::new("")), Reading { bytes: Vec::new(), utf16: Vec::new() }],
    }
}

pub(super) fn is_pfx(der: &[u8]) -> bool {
    parts(der).is_some()
}

/// Kind and content of what is within, and what follows.
fn parts(der: &[u8]) -> Option<(Oid<'_>, Reader<'_>, Reader<'_>)> {
    let mut pfx = Reader::of_sequence(der)?;
    if pfx.integer()? != 3 {
        return None;
    }
    let mut safe = pfx.sequence()?;
    let kind = safe.oid()?;
    Some((kind, safe.tagged(0)?, pfx))
}

/// Every certificate and key in it.
pub(super) fn open(der: &[u8], password: Option<&Password>, work: &mut Work) -> Result<Contents, Failure> {
    let (kind, mut content, mut after) = parts(der).ok_or_else(|| Failure::Other("it is no PFX (PKCS#12)".into()))?;
    if kind == SIGNED_DATA {
        return Err(Failure::Other("it is signed by a key instead of a password, which is not supported".into()));
    }
    let safe = content.octets().filter(|_| kind == DATA).ok_or_else(damaged)?;
    let wrong = if password.is_some() { Failure::WrongPassword } else { Failure::NoPassword };
    let mac = if after.is_empty() { None } else { Some(Mac::read(&mut after).ok_or_else(damaged)?) };
    for reading in readings(password) {
        match &mac {
            Some(mac) if mac.fits(&safe, &reading, work)? => return contents(&safe, &reading, work).map_err(after_mac),
            Some(_) => {}
            None => match contents(&safe, &reading, work) {
                // Without a MAC, what is damaged and what is decrypted by the wrong key look alike.
                Err(Failure::WrongPassword) => {}
                result => return result,
            },
        }
    }
    Err(wrong)
}

/// The MAC has proved the password right; another one can only be that of a key.
fn after_mac(failure: Failure) -> Failure {
    match failure {
        Failure::WrongPassword => {
            Failure::Other("a key or certificate in it has another password than the file".into())
        }
        failure => failure,
    }
}

/// `MacData`.
struct Mac<'a> {
    algorithm: &'a [u8],
    digest: Vec<u8>,
    salt: Vec<u8>,
    iterations: u64,
}

impl<'a> Mac<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let mut mac = reader.sequence()?;
        let mut info = mac.sequence()?;
        let (_, algorithm) = info.value()?;
        let digest = info.octets()?.into_owned();
        let salt = mac.octets()?.into_owned();
        let iterations = if mac.is_empty() { 1 } else { mac.integer()? };
        Some(Mac { algorithm, digest, salt, iterations })
    }

    fn fits(&self, safe: &[u8], password: &Reading, work: &mut Work) -> Result<bool, Failure> {
        let mut algorithm = Reader::of_sequence(self.algorithm).ok_or_else(damaged)?;
        let oid = algorithm.oid().ok_or_else(damaged)?;
        let (hash, key) = if oid == PBMAC1 {
            pbmac1_key(&mut algorithm, password, work)?
        } else {
            let hash = Hash::of_digest(&oid)?;
            work.spend(self.iterations)?;
            let length = hash.digest.output_len();
            (hash, derive(hash.digest, &password.utf16, &self.salt, FOR_MAC, self.iterations, length))
        };
        Ok(hmac::verify(&hmac::Key::new(hash.hmac, &key), safe, &self.digest).is_ok())
    }
}

/// RFC 9579: a key by PBKDF2 from the password's bytes.
fn pbmac1_key(
    parameters: &mut Reader<'_>,
    password: &Reading,
    work: &mut Work,
) -> Result<(&'static Hash, Vec<u8>), Failure> {
    let mut parameters = parameters.sequence().ok_or_else(damaged)?;
    let mut derivation = parameters.sequence().ok_or_else(damaged)?;
    if derivation.oid() != Some(PBKDF2) {
        return Err(Failure::Other("its MAC (PBMAC1) is not by PBKDF2, and so not supported".into()));
    }
    let mut pbkdf2 = derivation.sequence().ok_or_else(damaged)?;
    let salt = pbkdf2.octets().ok_or_else(damaged)?;
    let iterations = pbkdf2.integer().ok_or_else(damaged)?;
    let length = pbkdf2.integer().filter(|length| PBMAC1_KEY.contains(length)).ok_or_else(|| {
        Failure::Other("the key of its MAC (PBMAC1) has no length, or one that RFC 9579 forbids".into())
    })?;
    let prf = if pbkdf2.is_empty() { &HASHES[0] } else { Hash::of_hmac(&mut pbkdf2)? };
    let hash = Hash::of_hmac(&mut parameters)?;
    work.spend(iterations.saturating_mul(length.div_ceil(prf.digest.output_len() as u64)))?;
    let iterations = u32::try_from(iterations).ok().and_then(NonZeroU32::new).ok_or_else(damaged)?;
    let mut key = vec![0; length as usize];
    pbkdf2::derive(prf.pbkdf2, iterations, &salt, &password.bytes, &mut key);
    Ok((hash, key))
}

/// A hash in its three parts.
struct Hash {
    digest_oid: Oid<'static>,
    hmac_oid: Oid<'static>,
    digest: &'static Algorithm,
    hmac: hmac::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

static HASHES: [Hash; 4] = [
    Hash {
        digest_oid: oid!(1.3.14.3.2.26),
        hmac_oid: oid!(1.2.840.113549.2.7),
        digest: &digest::SHA1_FOR_LEGACY_USE_ONLY,
        hmac: hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        pbkdf2: pbkdf2::PBKDF2_HMAC_SHA1,
    },
    Hash {
        digest_oid: oid!(2.16.840.1.101.3.4.2.1),
        hmac_oid: oid!(1.2.840.113549.2.9),
        digest: &digest::SHA256,
        hmac: hmac::HMAC_SHA256,
        pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256,
    },
    Hash {
        digest_oid: oid!(2.16.840.1.101.3.4.2.2),
        hmac_oid: oid!(1.2.840.113549.2.10),
        digest: &digest::SHA384,
        hmac: hmac::HMAC_SHA384,
        pbkdf2: pbkdf2::PBKDF2_HMAC_SHA384,
    },
    Hash {
        digest_oid: oid!(2.16.840.1.101.3.4.2.3),
        hmac_oid: oid!(1.2.840.113549.2.11),
        digest: &digest::SHA512,
        hmac: hmac::HMAC_SHA512,
        pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512,
    },
];

impl Hash {
    fn of_digest(oid: &Oid<'_>) -> Result<&'static Self, Failure> {
        HASHES.iter().find(|hash| hash.digest_oid == *oid).ok_or_else(|| unsupported(oid))
    }

    fn of_hmac(reader: &mut Reader<'_>) -> Result<&'static Self, Failure> {
        let oid = reader.sequence().and_then(|mut algorithm| algorithm.oid()).ok_or_else(damaged)?;
        HASHES.iter().find(|hash| hash.hmac_oid == oid).ok_or_else(|| unsupported(&oid))
    }
}

fn unsupported(oid: &Oid<'_>) -> Failure {
    Failure::Other(format!(
        "its MAC ({oid}) is not supported; convert it with: openssl pkcs12 -in OLD -out both.pem (one file for cert=)"
    ))
}

/// `AuthenticatedSafe`.
fn contents(safe: &[u8], password: &Reading, work: &mut Work) -> Result<Contents, Failure> {
    let mut contents = Contents::default();
    let mut infos = Reader::of_sequence(safe).ok_or_else(damaged)?;
    while !infos.is_empty() {
        let mut info = infos.sequence().ok_or_else(damaged)?;
        let kind = info.oid().ok_or_else(damaged)?;
        let mut content = info.tagged(0).ok_or_else(damaged)?;
        if kind == DATA {
            bags(&content.octets().ok_or_else(damaged)?, password, work, MAX_NESTING, &mut contents)?;
        } else if kind == ENCRYPTED_DATA {
            let (algorithm, data) = encrypted(&mut content).ok_or_else(damaged)?;
            let opened = decrypt(algorithm, &data, &password.bytes, &password.utf16, work)?;
            // One wrong password of 256 leaves something that looks padded.
            Reader::of_sequence(&opened).ok_or(Failure::WrongPassword)?;
            bags(&opened, password, work, MAX_NESTING, &mut contents)?;
        } else {
            return Err(Failure::Other(
                "it is encrypted for a key instead of a password, which is not supported".into(),
            ));
        }
    }
    Ok(contents)
}

/// `EncryptedData` (RFC 5652 section 8): its algorithm and octets.
fn encrypted<'a>(content: &mut Reader<'a>) -> Option<(&'a [u8], Cow<'a, [u8]>)> {
    let mut data = content.sequence()?;
    data.integer()?;
    let mut info = data.sequence()?;
    info.oid()?;
    let (_, algorithm) = info.value()?;
    Some((algorithm, info.tagged_octets(0)?))
}

/// `SafeContents`. Lists of revoked certificates, secrets and attributes are passed over: what belongs together is seen
/// by the public keys, which cannot be wrong as `localKeyId` can.
fn bags(bytes: &[u8], password: &Reading, work: &mut Work, depth: usize, found: &mut Contents) -> Result<(), Failure> {
    let mut safe = Reader::of_sequence(bytes).ok_or_else(damaged)?;
    while !safe.is_empty() {
        let mut bag = safe.sequence().ok_or_else(damaged)?;
        let kind = bag.oid().ok_or_else(damaged)?;
        let mut value = bag.tagged(0).ok_or_else(damaged)?;
        if kind == CERT_BAG {
            let mut cert = value.sequence().ok_or_else(damaged)?;
            if cert.oid() == Some(X509_CERTIFICATE) {
                let der = cert.tagged(0).and_then(|mut cert| cert.octets()).ok_or_else(damaged)?;
                found.certificates.push(CertificateDer::from(der.into_owned()));
            }
        } else if kind == KEY_BAG {
            let (_, key) = value.value().ok_or_else(damaged)?;
            found.keys.push(StoredKey::Plain(key_of(key.to_vec()).ok_or_else(damaged)?));
        } else if kind == SHROUDED_KEY_BAG {
            let mut key = value.sequence().ok_or_else(damaged)?;
            let (_, algorithm) = key.value().ok_or_else(damaged)?;
            let data = key.octets().ok_or_else(damaged)?;
            let opened = decrypt(algorithm, &data, &password.bytes, &password.utf16, work)?;
            found.keys.push(StoredKey::Plain(key_of(opened).ok_or(Failure::WrongPassword)?));
        } else if kind == SAFE_CONTENTS_BAG {
            let (_, within) = value.value().ok_or_else(damaged)?;
            bags(within, password, work, depth.checked_sub(1).ok_or_else(damaged)?, found)?;
        }
    }
    Ok(())
}
