//! Certificates and their keys in every form that people have them, checked before anybody sees them.
//!
//! A [`source`] is read; [`contents`] sorts out what is in it, by way of [`pem`], [`asn1`], [`pfx`] and [`decrypt`];
//! [`chain`] finds the leaf that belongs to the key and puts those above it in order; [`checks`] says what clients will
//! mind. [`store`] finds an identity in a folder.

mod asn1;
mod chain;
mod checks;
mod contents;
mod decrypt;
mod pem;
mod pfx;
mod source;
mod store;

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::X509Certificate;

use self::contents::{Contents, StoredKey};
use self::decrypt::Work;
use super::certificate::Certificate;
use super::context::provider;
use crate::error::Error;

pub(super) use self::checks::ends_soon;
pub(super) use self::pem::is_pem;
pub use self::source::{Credentials, Form, Password, Source};
pub use self::store::{Found, Wanted, find_certificate};

/// Keys in one file, of which one belongs to the certificate. Each costs a decryption.
const MAX_KEYS: usize = 20;

/// A certificate chain with its private key, known to fit together and to be valid now.
#[derive(Clone)]
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    /// The subject of the certificate, as in RFC 4514.
    pub subject: String,
    /// The host names and IP addresses in its subjectAltName, in lower case.
    pub names: Vec<String>,
    /// When it begins, in seconds since 1970.
    pub not_before: i64,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// Whether no authority has signed it.
    pub(super) self_signed: bool,
    /// What clients may mind, for people; each begins with the certificate's source and subject.
    pub warnings: Vec<String>,
}

impl Identity {
    /// Reads and checks a chain and its key. `host` is the name that it is for, in the form of
    /// [`super::host_name`]; it only matters to the warnings.
    ///
    /// # Errors
    /// [`Error::Certificate`], saying which file is wrong, and how.
    pub fn load(credentials: &Credentials, host: Option<&str>) -> Result<Self, Error> {
        load(credentials, host, &mut Work::new(Work::FOR_A_FILE))
    }

    /// How many certificates its chain has.
    pub(super) fn chain_length(&self) -> usize {
        self.key.cert.len()
    }
}

fn load(credentials: &Credentials, host: Option<&str>, work: &mut Work) -> Result<Identity, Error> {
    let password = credentials.password.as_ref();
    match &credentials.form {
        Form::Pfx(pfx) => {
            let place = format!("PFX {pfx}");
            let wrong = |why: String| Error::Certificate(format!("{place}: {why}"));
            let bytes = pfx.read().map_err(wrong)?;
            let contents = contents::open_pfx(&bytes, password, work).map_err(|failure| wrong(failure.to_string()))?;
            if contents.certificates.is_empty() {
                return Err(wrong("it holds a key, but no certificate".into()));
            }
            if contents.keys.is_empty() {
                return Err(wrong("it holds certificates, but no key: it may be a store of trusted ones".into()));
            }
            let keys = Keys { place: place.clone(), keys: contents.keys };
            let keys = keys.open(password, work, &contents.certificates)?;
            fit(&place, &contents.certificates, keys, &place, host)
        }
        Form::Pair { cert, key } => {
            let (place, mut contents) = read_certificates(cert)?;
            let keys = match key {
                Some(key) => Keys::read(key)?,
                None => Keys::with(&place, &mut contents)?,
            };
            let key_place = keys.place.clone();
            let keys = keys.open(password, work, &contents.certificates)?;
            fit(&place, &contents.certificates, keys, &key_place, host)
        }
    }
}

/// One certificate or more, and what else is in their file.
fn read_certificates(source: &Source) -> Result<(String, Contents), Error> {
    let place = format!("certificate {source}");
    let wrong = |why: String| Error::Certificate(format!("{place}: {why}"));
    let contents = source.read().and_then(Contents::read).map_err(wrong)?;
    if contents.certificates.is_empty() {
        return Err(wrong(contents.no_certificate()));
    }
    Ok((place, contents))
}

/// Keys as they are stored, and where.
struct Keys {
    place: String,
    keys: Vec<StoredKey>,
}

impl Keys {
    fn read(source: &Source) -> Result<Self, Error> {
        let place = format!("key {source}");
        let wrong = |why: String| Error::Certificate(format!("{place}: {why}"));
        let contents = source.read().and_then(Contents::read).map_err(wrong)?;
        if contents.keys.is_empty() {
            return Err(wrong(contents.no_key()));
        }
        Ok(Keys { place, keys: contents.keys })
    }

    /// Those in the certificate's own file.
    fn with(place: &str, contents: &mut Contents) -> Result<Self, Error> {
        if contents.keys.is_empty() {
            return Err(Error::Certificate(format!("{place}: it holds no key: give the key's file as key=")));
        }
        Ok(Keys { place: place.to_string(), keys: std::mem::take(&mut contents.keys) })
    }

    /// Decrypts them all and makes them ready to sign. One that cannot be used is an error only if none can.
    fn open(
        self,
        password: Option<&Password>,
        work: &mut Work,
        certificates: &[CertificateDer<'static>],
    ) -> Result<Vec<Arc<dyn SigningKey>>, Error> {
        let wrong = |why: String| Error::Certificate(format!("{}: {why}", self.place));
        if self.keys.len() > MAX_KEYS {
            return Err(wrong(format!("it holds {} keys, and {MAX_KEYS} at most are tried", self.keys.len())));
        }
        let (mut usable, mut first_error) = (Vec::new(), None);
        for key in self.keys {
            let key = key.open(password, work).map_err(|failure| failure.to_string());
            let key =
                key.and_then(|key| provider().key_provider.load_private_key(key).map_err(|_| unusable(certificates)));
            match key {
                Ok(key) => usable.push(key),
                Err(why) => first_error = first_error.or(Some(why)),
            }
        }
        match first_error {
            Some(why) if usable.is_empty() => Err(wrong(why)),
            _ => Ok(usable),
        }
    }
}

/// Why a key that was read is no use; of what kind it is, its certificate knows.
fn unusable(certificates: &[CertificateDer<'static>]) -> String {
    let parsed = chain::parse(certificates).ok();
    let first = parsed.as_ref().and_then(|parsed| parsed.first());
    let kind = first.map(|leaf| format!(" (the certificate's is {})", checks::kind_of_key(&leaf.x509)));
    format!(
        "it cannot be used: TLS takes RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, and Ed25519{}",
        kind.unwrap_or_default()
    )
}

/// Finds the certificate of a key, checks it, and puts those above it in order.
fn fit(
    place: &str,
    certificates: &[CertificateDer<'static>],
    keys: Vec<Arc<dyn SigningKey>>,
    key_place: &str,
    host: Option<&str>,
) -> Result<Identity, Error> {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut parsed = chain::parse(certificates).map_err(|why| Error::Certificate(format!("{place}: {why}")))?;
    let mut fitting: Vec<(usize, Arc<dyn SigningKey>)> = Vec::new();
    for key in keys {
        let Some(public) = key.public_key() else { continue };
        let indices = (0..parsed.len()).filter(|index| parsed[*index].has_key(&public));
        fitting.extend(indices.map(|index| (index, key.clone())));
    }
    // Of several the one for this host, then one that is valid now, then the one that is valid longest.
    let rank = |index: usize| {
        let x509 = &parsed[index].x509;
        let (from, to) = (x509.validity().not_before.timestamp(), x509.validity().not_after.timestamp());
        let covers = host.is_some_and(|host| checks::covers(&checks::names(x509), host));
        (covers, (from..=to).contains(&now), to)
    };
    let Some((index, key)) = fitting.iter().max_by_key(|(index, _)| rank(*index)).cloned() else {
        let subject = parsed.first().map(|leaf| told(&leaf.x509)).unwrap_or_default();
        return Err(Error::Certificate(if place == key_place {
            format!("{place}: no key in it matches a certificate in it (the first is for {subject})")
        } else {
            format!("{key_place} does not match {place} (subject {subject})")
        }));
    };
    let choices = fitting.len();
    let leaf = parsed.swap_remove(index);
    check_validity(place, &leaf.x509, now)?;
    let (subject, names) = (told(&leaf.x509), checks::names(&leaf.x509));
    let validity = leaf.x509.validity().clone();
    let about = Certificate::from_der(leaf.der);
    let (serial, fingerprint) = about.map(|about| (about.serial, about.fingerprint)).unwrap_or_default();
    let (chain, left_over) = chain::order(leaf, parsed);
    let self_signed = chain.first().is_some_and(chain::Parsed::is_self_signed);
    let mut warnings = Vec::new();
    if choices > 1 {
        warnings.push(format!("{choices} certificates in its source have their key; this one was taken"));
    }
    if !left_over.is_empty() {
        let named: Vec<_> = left_over.iter().take(5).map(|other| told(&other.x509)).collect();
        let number = left_over.len();
        warnings.push(format!(
            "{number} other certificates do not belong to its chain and are not sent: {}",
            named.join("; ")
        ));
    }
    warnings.extend(checks::warnings(&chain, host, now));
    let whose = format!("{place} (subject {subject}, valid until {})", date(validity.not_after.timestamp()));
    Ok(Identity {
        key: Arc::new(CertifiedKey::new(chain.iter().map(|parsed| parsed.der.clone()).collect(), key)),
        subject,
        names,
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        serial,
        fingerprint,
        self_signed,
        warnings: warnings.into_iter().map(|warning| format!("{whose}: {warning}")).collect(),
    })
}

/// Reads a certificate, checks that it is valid now, and says its subject and when it ends in seconds since 1970.
///
/// # Errors
/// [`Error::Certificate`].
pub fn read_certificate(source: &Source) -> Result<(String, i64), Error> {
    let (place, contents) = read_certificates(source)?;
    let parsed = chain::parse(&contents.certificates).map_err(|why| Error::Certificate(format!("{place}: {why}")))?;
    let x509 = &parsed[0].x509;
    check_validity(&place, x509, OffsetDateTime::now_utc().unix_timestamp())?;
    Ok((told(x509), x509.validity().not_after.timestamp()))
}

fn check_validity(place: &str, certificate: &X509Certificate<'_>, now: i64) -> Result<(), Error> {
    let (from, to) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    let subject = told(certificate);
    if now > to {
        return Err(Error::Certificate(format!("{place} (subject {subject}) expired at {}", date(to))));
    }
    if now < from {
        return Err(Error::Certificate(format!("{place} (subject {subject}) is not valid before {}", date(from))));
    }
    Ok(())
}

pub(super) fn date(timestamp: i64) -> String {
    OffsetDateTime::from_unix_timestamp(timestamp)
        .ok()
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| timestamp.to_string())
}

/// The subject of a certificate, for people.
fn told(certificate: &X509Certificate<'_>) -> String {
    clean(&certificate.subject().to_string())
}

/// What an authority has written, fit for one line of a log.
fn clean(text: &str) -> String {
    text.chars().take(500).map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}
