//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): a client brings back the session that the server gave it, sealed.
//!
//! Without `ticket_keys` each context has random keys that rustls rotates. With them, processes and machines that share
//! the secrets open each other's tickets.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{self, HKDF_SHA256, Prk};
use aws_lc_rs::rand;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

use super::identity::Source;
use crate::error::Error;

/// The shortest secret: the strength of what is sealed with it.
const SECRET: usize = 32;
/// Seconds for which a ticket is good: what rustls gives its own.
const LIFETIME: u32 = 12 * 60 * 60;
/// Seconds by which the clocks of machines that share secrets may differ.
const CLOCKS_DIFFER: u64 = 5 * 60;
const NAME: usize = 16;
const SALT: usize = 32;

/// Who seals and opens the tickets of one context. `purpose` is mixed into the keys: a ticket is good only where that is
/// the same, so that a session of one host, or from before a client's certificate was revoked, opens no other door.
pub(super) fn ticketer(secrets: &[Source], purpose: &[u8]) -> Result<Arc<dyn ProducesTickets>, Error> {
    let failed = |error: &dyn fmt::Display| Error::Certificate(format!("session tickets cannot be set up: {error}"));
    if secrets.is_empty() {
        // By AES-GCM instead of rustls's AES-CBC and HMAC, opening one and making one took 0.7 µs less: not worth the code.
        return Ticketer::new().map_err(|error| failed(&error));
    }
    let keys: Result<Vec<_>, Error> = secrets
        .iter()
        .map(|source| {
            let wrong = |why: String| Error::Certificate(format!("ticket key {source}: {why}"));
            let secret = source.read().map_err(wrong)?;
            if secret.len() < SECRET {
                return Err(wrong(format!(
                    "{} bytes long; at least {SECRET} random ones are needed, as from: openssl rand {SECRET}",
                    secret.len()
                )));
            }
            Key::new(&secret, purpose).map_err(|error| failed(&error))
        })
        .collect();
    Ok(Arc::new(Shared { keys: keys? }))
}

/// Keys made of secrets that others have too: the first seals, each one opens.
struct Shared {
    keys: Vec<Key>,
}

/// A ticket is this key's name, a random salt, and what is sealed by a key that is made from both and used once: so there is
/// no nonce that could repeat, however many machines seal with one secret.
struct Key {
    name: [u8; NAME],
    master: Prk,
}

impl Key {
    fn new(secret: &[u8], purpose: &[u8]) -> Result<Self, Unspecified> {
        let extracted = hkdf::Salt::new(HKDF_SHA256, b"portico ticket key 1").extract(secret);
        let mut name = [0; NAME];
        extracted.expand(&[b"name", purpose], Length(NAME))?.fill(&mut name)?;
        let mut master = [0; SECRET];
        extracted.expand(&[b"master", purpose], Length(SECRET))?.fill(&mut master)?;
        Ok(Key { name, master: Prk::new_less_safe(HKDF_SHA256, &master) })
    }

    fn sealing(&self, salt: &[u8]) -> Result<LessSafeKey, Unspecified> {
        let mut key = [0; SECRET];
        self.master.expand(&[salt], Length(SECRET))?.fill(&mut key)?;
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key)?))
    }

    fn seal(&self, plain: &[u8], now: u64) -> Result<Vec<u8>, Unspecified> {
        let mut salt = [0; SALT];
        rand::fill(&mut salt)?;
        let mut sealed = [&now.to_be_bytes(), plain].concat();
        self.sealing(&salt)?.seal_in_place_append_tag(no_nonce(), Aad::from(self.name), &mut sealed)?;
        Ok([&self.name[..], &salt, &sealed].concat())
    }

    fn open(&self, salt: &[u8], sealed: &[u8], now: u64) -> Option<Vec<u8>> {
        let mut sealed = sealed.to_vec();
        let key = self.sealing(salt).ok()?;
        let opened = key.open_in_place(no_nonce(), Aad::from(self.name), &mut sealed).ok()?;
        let (made, plain) = opened.split_first_chunk()?;
        let made = u64::from_be_bytes(*made);
        let fresh = made <= now + CLOCKS_DIFFER && now <= made + u64::from(LIFETIME);
        fresh.then(|| plain.to_vec())
    }
}

/// Always the same, because no key seals twice.
fn no_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ProducesTickets for Shared {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.first()?.seal(plain, now()).ok()
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT>()?;
        // The name is no secret: it stands in every ticket.
        self.keys.iter().find(|key| key.name == *name)?.open(salt, sealed, now())
    }
}

// Not the keys.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shared ticket keys", self.keys.len())
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(secrets: &[&[u8]], purpose: &[u8]) -> Arc<dyn ProducesTickets> {
        let sources: Vec<_> = secrets.iter().map(|secret| Source::Bytes(secret.to_vec())).collect();
        ticketer(&sources, purpose).unwrap()
    }

    #[test]
    fn who_shares_a_secret_opens_the_ticket_and_nobody_else_does() {
        let (old, new) = ([1; 32], [2; 32]);
        let ticket = shared(&[&old], b"a").encrypt(b"session").unwrap();
        assert_eq!(shared(&[&new, &old], b"a").decrypt(&ticket).unwrap(), b"session");
        assert!(shared(&[&new], b"a").decrypt(&ticket).is_none());
        assert!(shared(&[&old], b"b").decrypt(&ticket).is_none(), "another host's");
    }

    #[test]
    fn what_was_changed_on_its_way_is_no_ticket() {
        let keys = shared(&[&[7; 32]], b"");
        let ticket = keys.encrypt(b"session").unwrap();
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert!(keys.decrypt(&changed).is_none(), "byte {index}");
            assert!(keys.decrypt(&ticket[..index]).is_none(), "cut at {index}");
        }
    }

    #[test]
    fn a_ticket_ends() {
        let key = Key::new(&[7; 32], b"").unwrap();
        let ticket = key.seal(b"session", 1_000_000).unwrap();
        let open = |now| key.open(&ticket[NAME..NAME + SALT], &ticket[NAME + SALT..], now);
        assert!(open(1_000_000).is_some() && open(1_000_000 - 200).is_some());
        assert!(open(1_000_000 + u64::from(LIFETIME)).is_some());
        assert!(open(1_000_001 + u64::from(LIFETIME)).is_none());
        assert!(open(1_000_000 - 2 * CLOCKS_DIFFER).is_none(), "from the future");
    }

    #[test]
    fn a_short_secret_is_refused() {
        let error = ticketer(&[Source::Bytes(vec![1; 16])], b"").unwrap_err().to_string();
        assert!(error.contains("16 bytes long"), "{error}");
    }
}
