//! One host's certificate and rules.

use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage};
use rustls::sign::SingleCertAndKey;
use rustls::{ServerConfig, SupportedCipherSuite};

use super::hosts::host_name;
use super::identity::{Credentials, Identity};
use crate::dispatch::Handler;
use crate::error::Error;

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// What a host's handshakes may agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The oldest version.
    pub min_version: Version,
    /// The newest version.
    pub max_version: Version,
    /// Protocols offered by ALPN, the preferred one first.
    pub alpn: Vec<Vec<u8>>,
}

/// What a context is made of: read together, and together again on every reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The certificate chain and its key.
    pub credentials: Credentials,
}

/// A host name with a certificate, a key, rules and maybe a handler. The certificate can be replaced while
/// connections are open: those finish on the one they began with.
pub struct Context {
    host: Option<String>,
    handler: RwLock<Option<Arc<dyn Handler>>>,
    rules: Rules,
    current: RwLock<Current>,
}

struct Current {
    sources: Sources,
    identity: Identity,
    config: Arc<ServerConfig>,
}

impl Context {
    /// Loads and checks everything.
    ///
    /// # Errors
    /// [`Error::Config`] for a malformed host or rules that exclude everything, [`Error::Certificate`] for the rest.
    pub fn new(
        host: Option<&str>,
        sources: Sources,
        rules: Rules,
        handler: Option<Arc<dyn Handler>>,
    ) -> Result<Self, Error> {
        let host = host.map(host_name).transpose()?;
        if rules.min_version > rules.max_version {
            return Err(Error::Config("min_version is above max_version: no handshake could succeed".into()));
        }
        let current = Current::load(sources, host.as_deref(), &rules)?;
        Ok(Context { host, handler: RwLock::new(handler), rules, current: RwLock::new(current) })
    }

    /// The host name in lower case, `*.` before it for a wildcard; none for the default.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    pub(crate) fn handler(&self) -> Option<Arc<dyn Handler>> {
        self.handler.read().clone()
    }

    /// Lets the handler go when the server has ended: it may hold, in its language, what holds this context.
    pub(crate) fn forget_handler(&self) {
        // Dropped outside the lock, because dropping it may run anything.
        let _handler = self.handler.write().take();
    }

    /// Puts another certificate and key in place, after they proved usable.
    ///
    /// # Errors
    /// [`Error::Certificate`]; what was there stays.
    pub fn replace(&self, sources: Sources) -> Result<(), Error> {
        let new = Current::load(sources, self.host(), &self.rules)?;
        *self.current.write() = new;
        Ok(())
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// [`Error::Certificate`]; what was there stays.
    pub fn reload(&self) -> Result<(), Error> {
        let sources = self.current.read().sources.clone();
        self.replace(sources)
    }

    /// What it presents now.
    pub fn identity(&self) -> Identity {
        self.current.read().identity.clone()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().config.clone()
    }

    /// Whether the client offers what this context's key can sign: in TLS 1.3 a signature scheme, before that a cipher
    /// suite with that scheme.
    pub(super) fn suits(&self, hello: &ClientHello<'_>) -> bool {
        let key = self.current.read().identity.key.key.clone();
        let offered = hello.signature_schemes();
        let suites = || provider().cipher_suites.iter().filter(|suite| hello.cipher_suites().contains(&suite.suite()));
        if self.rules.max_version == Version::Tls13 && suites().any(|suite| suite.tls13().is_some()) {
            return key.choose_scheme(offered).is_some();
        }
        let signs = |suite: &&SupportedCipherSuite| match suite {
            SupportedCipherSuite::Tls12(suite) => {
                let both: Vec<_> = suite.sign.iter().copied().filter(|scheme| offered.contains(scheme)).collect();
                key.choose_scheme(&both).is_some()
            }
            _ => false,
        };
        suites().any(|suite| signs(&suite))
    }
}

impl Current {
    fn load(sources: Sources, host: Option<&str>, rules: &Rules) -> Result<Self, Error> {
        let identity = Identity::load(&sources.credentials, host)?;
        let config = server_config(&identity, rules)?;
        Ok(Current { sources, identity, config: Arc::new(config) })
    }
}

fn server_config(identity: &Identity, rules: &Rules) -> Result<ServerConfig, Error> {
    let unusable = |error: rustls::Error| Error::Certificate(format!("TLS cannot be set up: {error}"));
    let versions: Vec<_> = [(Version::Tls13, &rustls::version::TLS13), (Version::Tls12, &rustls::version::TLS12)]
        .into_iter()
        .filter(|(version, _)| (rules.min_version..=rules.max_version).contains(version))
        .map(|(_, supported)| supported)
        .collect();
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&versions)
        .map_err(unusable)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.clone())));
    config.alpn_protocols = rules.alpn.clone();
    if rules.alpn.iter().any(|name| name == b"http/1.1") {
        // Some clients, curl --http1.0 for one, offer only this; it is the same engine.
        config.alpn_protocols.push(b"http/1.0".to_vec());
    }
    // Our order of cipher suites, see `provider`.
    config.ignore_client_order = true;
    // Tickets hold the session, so no memory is kept for clients that do not come back; one is enough for those that
    // do: each costs a signature's worth of CPU (a resumed handshake 102 µs with two, 99 with one).
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // By AES-GCM instead of rustls's AES-CBC and HMAC, opening one and making one took 0.7 µs less: not worth the code.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(unusable)?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// rustls with aws-lc-rs. TLS_AES_128_GCM_SHA256 comes first: SHA-384 has no hardware path in aws-lc on x86-64, and the
/// order alone saved 31 % of the CPU of a full handshake, 20 % of a resumed one.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Arc::new(provider)
    })
}
