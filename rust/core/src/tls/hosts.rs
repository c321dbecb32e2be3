//! From a host name to its contexts: the exact name, then the wildcard one label up, then the default.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::server::ClientHello;

use super::client_auth::ClientAuth;
use super::context::Context;
use crate::dispatch::Handler;
use crate::error::Error;

/// Checks a host name and brings it into the form in which names are compared: lower case (RFC 4343), no final dot.
///
/// # Errors
/// [`Error::Config`] for anything that no client can ask for.
pub fn host_name(given: &str) -> Result<String, Error> {
    let wrong = |why: &str| Err(Error::Config(format!("host {given:?}: {why}")));
    if given.is_empty() {
        return wrong("an empty host name; use None for the default certificate");
    }
    if given.trim_matches(['[', ']', '.']).parse::<IpAddr>().is_ok() {
        return wrong("clients send no server name for an IP address; use None for the default certificate");
    }
    if !given.is_ascii() {
        return wrong("give the ASCII form of an international name (xn--...)");
    }
    let name = given.strip_suffix('.').unwrap_or(given).to_ascii_lowercase();
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    if labels.contains('*') {
        return wrong("a wildcard stands for one whole first label, as in *.example.com");
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !labels.split('.').all(label_ok) {
        return wrong("not a host name (RFC 1123): letters, digits, hyphens and dots only, no port, no scheme");
    }
    Ok(name)
}

/// The contexts of one host name.
pub(crate) struct Host {
    name: Option<Arc<str>>,
    contexts: Vec<Arc<Context>>,
}

impl Host {
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn shared_name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }

    /// Whether clients are asked for a certificate, which is the same in all its contexts.
    pub(crate) fn client_auth(&self) -> ClientAuth {
        self.contexts.first().map_or_else(ClientAuth::default, |context| context.rules().client_auth)
    }

    /// The handler of the first context that has one.
    pub(crate) fn handler(&self) -> Option<Arc<dyn Handler>> {
        self.contexts.iter().find_map(|context| context.handler())
    }

    /// The first context that this client can use; where there is none, the first, so that the handshake says why.
    pub(super) fn choose(&self, hello: &ClientHello<'_>) -> Option<Arc<Context>> {
        self.contexts.iter().find(|context| context.suits(hello)).or(self.contexts.first()).cloned()
    }
}

/// Every host of a server.
#[derive(Default)]
pub(crate) struct Hosts {
    /// By [`key`]: `example.com`, and `.example.com` for its wildcard.
    named: HashMap<String, Host>,
    default: Option<Host>,
    /// Who answers where a host has no handler of its own.
    fallback: Option<Arc<dyn Handler>>,
}

/// A wildcard's key is what a name has from its first dot on, so that looking one up copies nothing.
fn key(name: &str) -> &str {
    name.strip_prefix('*').unwrap_or(name)
}

impl Hosts {
    pub(crate) fn new(fallback: Option<Arc<dyn Handler>>) -> Self {
        Hosts { fallback, ..Hosts::default() }
    }

    pub(crate) fn set_fallback(&mut self, handler: Option<Arc<dyn Handler>>) {
        self.fallback = handler;
    }

    pub(crate) fn fallback(&self) -> Option<Arc<dyn Handler>> {
        self.fallback.clone()
    }

    /// Adds a context beside those of the same host.
    ///
    /// # Errors
    /// [`Error::Config`]: those treat clients otherwise. The client's offer picks among them, and must not pick the
    /// rules.
    pub(crate) fn add(&mut self, context: Arc<Context>) -> Result<(), Error> {
        let differs = |other: &Arc<Context>| other.rules().client_auth != context.rules().client_auth;
        if self.of(context.host()).is_some_and(|host| host.contexts.iter().any(differs)) {
            return Err(Error::Config(format!(
                "client_auth: every context of {} has to have the same",
                context.whose()
            )));
        }
        let name: Option<Arc<str>> = context.host().map(Arc::from);
        let new = || Host { name: name.clone(), contexts: Vec::new() };
        let host = match &name {
            None => self.default.get_or_insert_with(new),
            Some(name) => self.named.entry(key(name).to_string()).or_insert_with(new),
        };
        host.contexts.push(context);
        Ok(())
    }

    /// Removes every context of a host; how many there were.
    pub(crate) fn remove(&mut self, host: Option<&str>) -> usize {
        let removed = match host {
            None => self.default.take(),
            Some(name) => self.named.remove(key(name)),
        };
        removed.map_or(0, |host| host.contexts.len())
    }

    /// The host that a client means by that name, in any case; not the default.
    pub(crate) fn find(&self, name: &str) -> Option<&Host> {
        let lower;
        let name = name.trim_end_matches('.');
        let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        match name.find('.') {
            Some(0) => None,
            Some(dot) => self.named.get(name).or_else(|| self.named.get(&name[dot..])),
            None => self.named.get(name),
        }
    }

    pub(crate) fn default_host(&self) -> Option<&Host> {
        self.default.as_ref()
    }

    /// The handler that belongs to a context's host.
    pub(crate) fn handler(&self, host: Option<&str>) -> Option<Arc<dyn Handler>> {
        self.of(host).and_then(Host::handler)
    }

    /// The host of contexts that were added for exactly this one.
    fn of(&self, host: Option<&str>) -> Option<&Host> {
        host.map_or(self.default.as_ref(), |name| self.named.get(key(name)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.default.is_none()
    }

    /// Every context, by host name, the default last.
    pub(crate) fn contexts(&self) -> Vec<Arc<Context>> {
        let mut named: Vec<_> = self.named.values().collect();
        named.sort_by(|a, b| a.name.cmp(&b.name));
        named.into_iter().chain(&self.default).flat_map(|host| host.contexts.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn names_are_brought_into_one_form() {
        for (given, name) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("*.Shop.test", "*.shop.test"),
            ("localhost", "localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(host_name(given).unwrap(), name);
        }
    }

    #[test]
    fn names_that_no_client_asks_for() {
        let long = "a".repeat(64);
        for given in [
            "",
            ".",
            "a..b",
            "a b",
            "a:443",
            "https://a",
            "*",
            "a.*.b",
            "*.*.b",
            "-a.b",
            "a-.b",
            "127.0.0.1",
            "127.0.0.1.",
            "::1",
            "[::1]",
            "b\u{fc}cher.example",
            "a/b",
            &long,
        ] {
            assert!(host_name(given).is_err(), "{given}");
        }
    }
}
