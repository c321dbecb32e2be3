//! The proxies whose word about clients counts.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::connection::Address;

/// Addresses of proxies, as the setting `trusted_proxies` lists them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies {
    networks: Vec<IpNet>,
    unix: bool,
}

impl Proxies {
    /// Reads IP addresses, networks in CIDR notation (RFC 4632 section 3.1) and the word `unix`.
    ///
    /// # Errors
    /// What is wrong with the first that is none of these.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut proxies = Proxies::default();
        for word in words {
            if word == "unix" {
                proxies.unix = true;
                continue;
            }
            let network = word.parse::<IpNet>().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from));
            let network = network.ok_or_else(|| format!("{word:?}, which is none of these"))?;
            if network.trunc() != network {
                return Err(format!("{word:?}: did you mean \"{}\" or \"{}\"?", network.trunc(), network.addr()));
            }
            proxies.networks.push(network);
        }
        Ok(proxies)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether one of them is at that end of a connection.
    pub fn has(&self, address: &Address) -> bool {
        match address {
            Address::Inet(address) => self.has_ip(address.ip()),
            Address::Unix(_) => self.unix,
        }
    }

    /// Whether one of them has that address.
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        // A socket for IPv6 may show clients of IPv4 as ::ffff:192.0.2.1.
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_networks_and_unix_sockets() {
        let proxies = Proxies::parse(["192.0.2.1", "10.0.0.0/8", "2001:db8::/32", "unix"]).unwrap();
        for ip in ["192.0.2.1", "10.255.0.1", "2001:db8::5", "::ffff:10.1.1.1"] {
            assert!(proxies.has_ip(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["192.0.2.2", "11.0.0.1", "2001:db9::", "::1", "127.0.0.1"] {
            assert!(!proxies.has_ip(ip.parse().unwrap()), "{ip}");
        }
        assert!(proxies.has(&Address::Unix(None)));
        assert!(!Proxies::parse(["127.0.0.1"]).unwrap().has(&Address::Unix(None)));
        assert!(Proxies::default().is_empty() && !Proxies::default().has(&Address::Unix(None)));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for word in ["", "localhost", "10.0.0.0/33", "10.0.0/8", "*", "10.0.0.1:80", "Unix", "fe80::1%eth0"] {
            assert!(Proxies::parse([word]).is_err(), "{word}");
        }
        let meant = Proxies::parse(["10.1.2.3/8"]).unwrap_err();
        assert_eq!(meant, "\"10.1.2.3/8\": did you mean \"10.0.0.0/8\" or \"10.1.2.3\"?");
    }
}
