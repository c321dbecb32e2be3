//! One host's certificate and rules.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedCipherSuite};
use time::OffsetDateTime;

use super::client_auth::{ClientAuth, Trust};
use super::hosts::host_name;
use super::identity::{Credentials, Identity, Source};
use super::ocsp::Staple;
use super::tickets::ticketer;
use super::watch::{Stamp, Watched};
use crate::dispatch::Handler;
use crate::error::Error;
use crate::locks::{Mutex, RwLock};

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// A host's rules: what its handshakes may agree on, and with whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The oldest version.
    pub min_version: Version,
    /// The newest version.
    pub max_version: Version,
    /// Protocols offered by ALPN, the preferred one first.
    pub alpn: Vec<Vec<u8>>,
    /// Whether clients are asked for a certificate.
    pub client_auth: ClientAuth,
    /// Whether to reload when the files change.
    pub watch: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            client_auth: ClientAuth::None,
            watch: false,
        }
    }
}

/// What a context is made of: read together, and together again on every reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The certificate chain and its key.
    pub credentials: Credentials,
    /// The authority's word that the certificate is not revoked (RFC 6960), DER.
    pub ocsp: Option<Source>,
    /// Who signs clients' certificates.
    pub client_ca: Option<Source>,
    /// Which of those are revoked.
    pub client_crl: Option<Source>,
    /// Secrets for session tickets, the one that seals first; random ones where there is none.
    pub ticket_keys: Vec<Source>,
}

/// What of a context's [`Sources`] is to be replaced.
#[derive(Debug, Default)]
pub struct Changes {
    /// See [`Sources::credentials`]. The OCSP response goes with them.
    pub credentials: Option<Credentials>,
    /// See [`Sources::ocsp`].
    pub ocsp: Option<Source>,
    /// See [`Sources::client_ca`].
    pub client_ca: Option<Source>,
    /// See [`Sources::client_crl`].
    pub client_crl: Option<Source>,
    /// See [`Sources::ticket_keys`].
    pub ticket_keys: Option<Vec<Source>>,
}

impl Changes {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        let Changes { credentials, ocsp, client_ca, client_crl, ticket_keys } = self;
        credentials.is_none() && ticket_keys.is_none() && [ocsp, client_ca, client_crl].iter().all(|it| it.is_none())
    }

    fn apply(self, sources: &mut Sources) {
        if let Some(credentials) = self.credentials {
            sources.credentials = credentials;
            sources.ocsp = None;
        }
        sources.ocsp = self.ocsp.or(sources.ocsp.take());
        sources.client_ca = self.client_ca.or(sources.client_ca.take());
        sources.client_crl = self.client_crl.or(sources.client_crl.take());
        if let Some(keys) = self.ticket_keys {
            sources.ticket_keys = keys;
        }
    }
}

impl From<Credentials> for Sources {
    fn from(credentials: Credentials) -> Self {
        Sources { credentials, ocsp: None, client_ca: None, client_crl: None, ticket_keys: Vec::new() }
    }
}

impl Sources {
    /// Every file among them.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let more = [&self.ocsp, &self.client_ca, &self.client_crl].into_iter().flatten().chain(&self.ticket_keys);
        let more = more.filter_map(|source| match source {
            Source::File(path) => Some(path.as_path()),
            Source::Bytes(_) => None,
        });
        self.credentials.files().into_iter().chain(more)
    }
}

/// A host name with a certificate, a key, rules and maybe a handler. The certificate can be replaced while
/// connections are open: those finish on the one they began with.
pub struct Context {
    host: Option<String>,
    handler: RwLock<Option<Arc<dyn Handler>>>,
    rules: Rules,
    current: RwLock<Current>,
    /// Held while something new is loaded: who began last has the last word.
    changing: Mutex<()>,
    pub(super) watched: Mutex<Watched>,
}

struct Current {
    sources: Sources,
    identity: Identity,
    config: Arc<ServerConfig>,
    tickets: Tickets,
    /// What the files were like when they were read.
    stamp: Stamp,
    ends: Ends,
}

/// When parts of a context end, in seconds since 1970; of the certificate when it begins too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) certificate: (i64, i64),
    pub(super) staple: Option<i64>,
    pub(super) revocation_list: Option<i64>,
}

/// Who seals session tickets, and for what they are good.
#[derive(Clone)]
struct Tickets {
    purpose: Vec<u8>,
    ticketer: Arc<dyn ProducesTickets>,
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
        if rules.watch && sources.files().next().is_none() {
            return Err(Error::Config("watch: there is no file to watch, only bytes were given".into()));
        }
        let current = Current::load(sources, &rules, host.as_deref(), None)?;
        Ok(Context {
            host,
            handler: RwLock::new(handler),
            rules,
            current: RwLock::new(current),
            changing: Mutex::default(),
            watched: Mutex::default(),
        })
    }

    /// The host name in lower case, `*.` before it for a wildcard; none for the default.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Its host, in words.
    pub(super) fn whose(&self) -> String {
        self.host().map_or_else(|| "the default host".into(), |host| format!("host {host}"))
    }

    /// Its rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn handler(&self) -> Option<Arc<dyn Handler>> {
        self.handler.read().clone()
    }

    /// Lets the handler go when the server has ended: it may hold, in its language, what holds this context.
    pub(crate) fn forget_handler(&self) {
        // Dropped outside the lock, because dropping it may run anything.
        let _handler = self.handler.write().take();
    }

    /// Puts something else in place, after it proved usable.
    ///
    /// # Errors
    /// [`Error::Certificate`]; what was there stays.
    pub fn replace(&self, changes: Changes) -> Result<(), Error> {
        let _changing = self.changing.lock();
        let new = {
            let current = self.current.read();
            let (mut sources, tickets) = (current.sources.clone(), current.tickets.clone());
            drop(current);
            let keeps = changes.ticket_keys.is_none() && sources.ticket_keys.is_empty();
            changes.apply(&mut sources);
            Current::load(sources, &self.rules, self.host(), keeps.then_some(tickets))?
        };
        *self.current.write() = new;
        Ok(())
    }

    /// Puts other secrets for session tickets in place, and reads nothing else again.
    ///
    /// # Errors
    /// [`Error::Certificate`]; what was there stays.
    pub fn replace_ticket_keys(&self, keys: Vec<Source>) -> Result<(), Error> {
        let _changing = self.changing.lock();
        let purpose = self.current.read().tickets.purpose.clone();
        let ticketer = ticketer(&keys, &purpose)?;
        let mut current = self.current.write();
        let mut config = ServerConfig::clone(&current.config);
        config.ticketer = ticketer.clone();
        current.config = Arc::new(config);
        current.tickets = Tickets { purpose, ticketer };
        current.sources.ticket_keys = keys;
        Ok(())
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// [`Error::Certificate`]; what was there stays.
    pub fn reload(&self) -> Result<(), Error> {
        self.replace(Changes::default())
    }

    /// When the certificate ends, in seconds since 1970.
    pub(crate) fn not_after(&self) -> i64 {
        self.current.read().identity.not_after
    }

    /// The certificate's subject, and when it ends in seconds since 1970.
    pub fn describe(&self) -> (String, i64) {
        let current = self.current.read();
        (current.identity.subject.clone(), current.identity.not_after)
    }

    /// What it presents now.
    pub fn identity(&self) -> Identity {
        self.current.read().identity.clone()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().config.clone()
    }

    pub(super) fn ends(&self) -> Ends {
        self.current.read().ends
    }

    /// What the files were like when they were read, and what they are like now.
    pub(super) fn stamps(&self) -> (Stamp, Stamp) {
        let (read, sources) = {
            let current = self.current.read();
            (current.stamp.clone(), current.sources.clone())
        };
        (read, Stamp::of(&sources))
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
    /// `tickets` go on being good where they serve the same purpose.
    fn load(sources: Sources, rules: &Rules, host: Option<&str>, tickets: Option<Tickets>) -> Result<Self, Error> {
        // Before they are read: a change while they are is seen as one.
        let stamp = if rules.watch { Stamp::of(&sources) } else { Stamp::default() };
        let identity = Identity::load(&sources.credentials, host)?;
        let staple = match (&sources.ocsp, identity.key.cert.first()) {
            (Some(ocsp), Some(leaf)) => Some(Staple::load(ocsp, leaf)?),
            _ => None,
        };
        let trust = Trust::load(rules.client_auth, sources.client_ca.as_ref(), sources.client_crl.as_ref())?;
        let purpose = [host.unwrap_or_default().as_bytes(), &trust.digest].concat();
        let tickets = match tickets.filter(|tickets| tickets.purpose == purpose) {
            Some(tickets) => tickets,
            None => Tickets { ticketer: ticketer(&sources.ticket_keys, &purpose)?, purpose },
        };
        let ends = Ends {
            certificate: (identity.not_before, identity.not_after),
            staple: staple.as_ref().and_then(|staple| staple.until),
            revocation_list: trust.until,
        };
        let presented = Presented::new(identity.key.clone(), staple);
        let config = server_config(presented, rules, trust, tickets.ticketer.clone())?;
        Ok(Current { sources, identity, config: Arc::new(config), tickets, stamp, ends })
    }
}

/// The certificate, with its staple as long as that is good.
#[derive(Debug)]
struct Presented {
    plain: Arc<CertifiedKey>,
    stapled: Option<(Arc<CertifiedKey>, Option<i64>)>,
}

impl Presented {
    fn new(plain: Arc<CertifiedKey>, staple: Option<Staple>) -> Self {
        let stapled = staple.map(|staple| {
            let mut with = CertifiedKey::clone(&plain);
            with.ocsp = Some(staple.der);
            (Arc::new(with), staple.until)
        });
        Presented { plain, stapled }
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_good = |until: Option<i64>| until.is_none_or(|end| OffsetDateTime::now_utc().unix_timestamp() <= end);
        match &self.stapled {
            Some((stapled, until)) if is_good(*until) => Some(stapled.clone()),
            _ => Some(self.plain.clone()),
        }
    }
}

fn server_config(
    presented: Presented,
    rules: &Rules,
    trust: Trust,
    ticketer: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, Error> {
    let unusable = |error: rustls::Error| Error::Certificate(format!("TLS cannot be set up: {error}"));
    let versions: Vec<_> = [(Version::Tls13, &rustls::version::TLS13), (Version::Tls12, &rustls::version::TLS12)]
        .into_iter()
        .filter(|(version, _)| (rules.min_version..=rules.max_version).contains(version))
        .map(|(_, supported)| supported)
        .collect();
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&versions)
        .map_err(unusable)?
        .with_client_cert_verifier(trust.verifier)
        .with_cert_resolver(Arc::new(presented));
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
    config.ticketer = ticketer;
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
