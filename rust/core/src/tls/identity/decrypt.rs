//! Encryption by password: PKCS#5 (RFC 8018), PKCS#12's own (RFC 7292 appendix B and C), and that of the old PEM form.
//!
//! A file says itself how much work its password takes, so the work for one file, or for one search, is bounded.

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::digest::{self, Algorithm};
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt, InnerIvInit, KeyInit};
use des::{Des, TdesEde3};
use md5::{Digest, Md5};
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::pkcs5::{EncryptionScheme, Error as Pkcs5Error};
use rc2::Rc2;
use x509_parser::asn1_rs::Oid;
use x509_parser::der_parser::oid;

use super::asn1::Reader;
use super::pem::Section;
use super::source::Password;

const PKCS12_3DES: Oid<'static> = oid!(1.2.840.113549.1.12.1.3);
const PKCS12_2DES: Oid<'static> = oid!(1.2.840.113549.1.12.1.4);
const PKCS12_RC2_128: Oid<'static> = oid!(1.2.840.113549.1.12.1.5);
const PKCS12_RC2_40: Oid<'static> = oid!(1.2.840.113549.1.12.1.6);
const PBES1_MD5_DES: Oid<'static> = oid!(1.2.840.113549.1.5.3);
const PBES1_SHA1_DES: Oid<'static> = oid!(1.2.840.113549.1.5.10);
const PBES2: Oid<'static> = oid!(1.2.840.113549.1.5.13);

/// RFC 7292 appendix B.3: what a key is derived for.
pub(super) const FOR_KEY: u8 = 1;
const FOR_IV: u8 = 2;
pub(super) const FOR_MAC: u8 = 3;

/// What scrypt may take: 128 bytes for each unit of its cost times its block size, so 256 MiB.
const MAX_SCRYPT_BLOCKS: u64 = 1 << 21;

/// Why something cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is encrypted, and no password was given.
    NoPassword,
    WrongPassword,
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoPassword => f.write_str("it is encrypted: give its password="),
            Failure::WrongPassword => f.write_str("wrong password"),
            Failure::Other(why) => f.write_str(why),
        }
    }
}

pub(super) fn damaged() -> Failure {
    Failure::Other("it is damaged: malformed ASN.1".into())
}

/// How many iterations may still be done. Five million took 0.6 to 4.7 s by kind, and 6.6 s of the costliest scrypt, on
/// one busy core; Java refuses more too (OpenSSL writes 2 048, OWASP recommends 600 000).
pub(super) struct Work {
    left: u64,
    most: u64,
}

impl Work {
    pub(super) const FOR_A_FILE: u64 = 5_000_000;

    pub(super) fn new(iterations: u64) -> Self {
        Work { left: iterations, most: iterations }
    }

    pub(super) fn spend(&mut self, iterations: u64) -> Result<(), Failure> {
        if iterations == 0 {
            return Err(Failure::Other("it asks for 0 iterations of its key derivation".into()));
        }
        self.left = self.left.checked_sub(iterations).ok_or_else(|| {
            let most = self.most;
            Failure::Other(format!("it asks for too many iterations of its key derivation (more than {most} in all)"))
        })?;
        Ok(())
    }
}

/// What is in an `EncryptedPrivateKeyInfo` (RFC 5958 section 3).
pub(super) fn decrypt_key(der: &[u8], password: Option<&Password>, work: &mut Work) -> Result<Vec<u8>, Failure> {
    let password = password.ok_or(Failure::NoPassword)?;
    let mut reader = Reader::of_sequence(der).ok_or_else(damaged)?;
    let (_, algorithm) = reader.value().ok_or_else(damaged)?;
    let data = reader.octets().ok_or_else(damaged)?;
    decrypt(algorithm, &data, password.bytes(), &password.utf16(), work)
}

/// Decrypts what an `AlgorithmIdentifier` describes. `utf16` is the password for PKCS#12's own derivations.
pub(super) fn decrypt(
    algorithm: &[u8],
    data: &[u8],
    password: &[u8],
    utf16: &[u8],
    work: &mut Work,
) -> Result<Vec<u8>, Failure> {
    let mut reader = Reader::of_sequence(algorithm).ok_or_else(damaged)?;
    let oid = reader.oid().ok_or_else(damaged)?;
    if oid == PBES2 {
        return pbes2(algorithm, data, password, work);
    }
    let mut parameters = reader.sequence().ok_or_else(|| unsupported(&oid))?;
    let salt = parameters.octets().ok_or_else(damaged)?;
    let iterations = parameters.integer().ok_or_else(damaged)?;
    let mut pkcs12 = |key_bytes: usize| -> Result<(Vec<u8>, Vec<u8>), Failure> {
        work.spend(iterations.saturating_mul(2 + u64::from(key_bytes > 20)))?;
        let derive =
            |purpose, length| derive(&digest::SHA1_FOR_LEGACY_USE_ONLY, utf16, &salt, purpose, iterations, length);
        Ok((derive(FOR_KEY, key_bytes), derive(FOR_IV, 8)))
    };
    if oid == PKCS12_3DES {
        let (key, iv) = pkcs12(24)?;
        cbc_decrypt::<TdesEde3>(&key, &iv, data)
    } else if oid == PKCS12_2DES {
        let (key, iv) = pkcs12(16)?;
        cbc_decrypt::<TdesEde3>(&[&key[..], &key[..8]].concat(), &iv, data)
    } else if oid == PKCS12_RC2_128 {
        let (key, iv) = pkcs12(16)?;
        cbc_decrypt_with(Rc2::new_with_eff_key_len(&key, 128), &iv, data)
    } else if oid == PKCS12_RC2_40 {
        let (key, iv) = pkcs12(5)?;
        cbc_decrypt_with(Rc2::new_with_eff_key_len(&key, 40), &iv, data)
    } else if oid == PBES1_MD5_DES || oid == PBES1_SHA1_DES {
        work.spend(iterations)?;
        let hash = if oid == PBES1_MD5_DES { md5 } else { sha1 };
        // PBKDF1, RFC 8018 section 5.1.
        let made = (1..iterations).fold(hash(&[password, &salt].concat()), |made, _| hash(&made));
        cbc_decrypt::<Des>(&made[..8], &made[8..16], data)
    } else {
        Err(unsupported(&oid))
    }
}

fn unsupported(what: &impl fmt::Display) -> Failure {
    Failure::Other(format!(
        "its encryption ({what}) is not supported; convert a key with: openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out \
         NEW, a PFX with: openssl pkcs12 -legacy -in OLD -out both.pem (one file for cert=)"
    ))
}

fn pbes2(algorithm: &[u8], data: &[u8], password: &[u8], work: &mut Work) -> Result<Vec<u8>, Failure> {
    use pkcs8::der::Decode;
    let scheme = EncryptionScheme::from_der(algorithm)
        .map_err(|_| unsupported(&"a cipher, hash or parameter of PBES2 that is not known here"))?;
    let EncryptionScheme::Pbes2(parameters) = &scheme else { return Err(damaged()) };
    match &parameters.kdf {
        Kdf::Pbkdf2(pbkdf2) => work.spend(u64::from(pbkdf2.iteration_count))?,
        Kdf::Scrypt(scrypt) => {
            let blocks = scrypt.cost_parameter.saturating_mul(u64::from(scrypt.block_size));
            if blocks > MAX_SCRYPT_BLOCKS {
                return Err(Failure::Other("it asks for more than 256 MiB of memory for its key derivation".into()));
            }
            work.spend(blocks.saturating_mul(u64::from(scrypt.parallelization)))?;
        }
        _ => return Err(unsupported(&"a key derivation that is not known here")),
    }
    scheme.decrypt(password, data).map_err(|error| match error {
        Pkcs5Error::DecryptFailed => Failure::WrongPassword,
        error => unsupported(&error),
    })
}

/// The body of an old PEM key, `Proc-Type: 4,ENCRYPTED` (RFC 1421, and OpenSSL's `PEM_read_bio_PrivateKey`).
pub(super) fn decrypt_old_pem(section: &Section, password: Option<&Password>) -> Result<Vec<u8>, Failure> {
    let password = password.ok_or(Failure::NoPassword)?.bytes();
    let malformed = || Failure::Other("it is encrypted in the old PEM form, with a malformed DEK-Info".into());
    let (cipher, iv) = section.header("DEK-Info").and_then(|info| info.split_once(',')).ok_or_else(malformed)?;
    let iv = hex(iv.trim()).filter(|iv| iv.len() >= 8).ok_or_else(malformed)?;
    let key = |length| bytes_to_key(password, &iv[..8], length);
    match cipher.trim() {
        "AES-256-CBC" => cbc_decrypt::<Aes256>(&key(32), &iv, &section.der),
        "AES-192-CBC" => cbc_decrypt::<Aes192>(&key(24), &iv, &section.der),
        "AES-128-CBC" => cbc_decrypt::<Aes128>(&key(16), &iv, &section.der),
        "DES-EDE3-CBC" => cbc_decrypt::<TdesEde3>(&key(24), &iv, &section.der),
        "DES-CBC" => cbc_decrypt::<Des>(&key(8), &iv, &section.der),
        other => Err(unsupported(&other.chars().filter(char::is_ascii_graphic).take(40).collect::<String>())),
    }
}

/// OpenSSL's `EVP_BytesToKey` with MD5 and one round.
fn bytes_to_key(password: &[u8], salt: &[u8], length: usize) -> Vec<u8> {
    let mut key = Vec::new();
    let mut last = Vec::new();
    while key.len() < length {
        last = md5(&[&last, password, salt].concat());
        key.extend_from_slice(&last);
    }
    key.truncate(length);
    key
}

fn md5(data: &[u8]) -> Vec<u8> {
    Md5::digest(data).to_vec()
}

fn sha1(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, data).as_ref().to_vec()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect();
    Some(digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

fn cbc_decrypt<C: BlockCipherDecrypt + KeyInit>(key: &[u8], iv: &[u8], data: &[u8]) -> Result<Vec<u8>, Failure> {
    cbc_decrypt_with(C::new_from_slice(key).map_err(|_| damaged())?, iv, data)
}

/// What ends in no padding was decrypted by the wrong key.
fn cbc_decrypt_with<C: BlockCipherDecrypt>(cipher: C, iv: &[u8], data: &[u8]) -> Result<Vec<u8>, Failure> {
    let iv = iv.try_into().map_err(|_| damaged())?;
    Decryptor::inner_iv_init(cipher, iv).decrypt_padded_vec::<Pkcs7>(data).map_err(|_| Failure::WrongPassword)
}

/// PKCS#12's derivation of keys (RFC 7292 appendix B.2). `password` is UTF-16 with its zero.
pub(super) fn derive(
    hash: &'static Algorithm,
    password: &[u8],
    salt: &[u8],
    purpose: u8,
    iterations: u64,
    length: usize,
) -> Vec<u8> {
    let block = hash.block_len();
    let filled =
        |part: &[u8]| -> Vec<u8> { part.iter().copied().cycle().take(part.len().div_ceil(block) * block).collect() };
    let mut input = [filled(salt), filled(password)].concat();
    let mut key = Vec::new();
    while key.len() < length {
        let first = digest::digest(hash, &[&vec![purpose; block], &input[..]].concat());
        let made = (1..iterations).fold(first, |made, _| digest::digest(hash, made.as_ref()));
        key.extend_from_slice(made.as_ref());
        let addend: Vec<u8> = made.as_ref().iter().copied().cycle().take(block).collect();
        input.chunks_mut(block).for_each(|chunk| add_and_one(chunk, &addend));
    }
    key.truncate(length);
    key
}

/// Adds a number and one, both big-endian, letting go what does not fit.
fn add_and_one(sum: &mut [u8], addend: &[u8]) {
    let mut carry = 1u16;
    for (digit, more) in sum.iter_mut().zip(addend).rev() {
        carry += u16::from(*digit) + u16::from(*more);
        *digit = (carry & 0xff) as u8;
        carry >>= 8;
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, Work, add_and_one};

    #[test]
    fn work_is_counted_over_all_that_is_done() {
        let mut work = Work::new(10);
        assert_eq!(work.spend(6), Ok(()));
        assert!(matches!(work.spend(6), Err(Failure::Other(why)) if why.contains("more than 10 in all")));
        assert_eq!(work.spend(4), Ok(()));
        assert!(work.spend(0).is_err() && work.spend(1).is_err());
    }

    #[test]
    fn what_does_not_fit_is_let_go() {
        let mut sum = [0xff, 0xff];
        add_and_one(&mut sum, &[0x00, 0x01]);
        assert_eq!(sum, [0x00, 0x01]);
    }
}
