//! What is said of a certificate that can be served, but that clients may refuse. All of the wording is here; the names of
//! errors are those that Chrome shows, `net/base/net_error_list.h`.

use time::{Date, Month, OffsetDateTime};
use x509_parser::asn1_rs::Oid;
use x509_parser::der_parser::oid;
use x509_parser::prelude::{GeneralName, ParsedExtension, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::chain::Parsed;
use super::{date, told};
use crate::tls::certificate::address;

const DAY: i64 = 86_400;
/// The end is near.
const SOON: i64 = 14 * DAY;
/// The longest validity that browsers accept from authorities that they know, by when it began (CA/Browser Forum,
/// Baseline Requirements 6.3.2, ballots SC-31 and SC-081).
const LIMITS: [(i32, Month, u8, i64); 4] = [
    (2020, Month::September, 1, 398),
    (2026, Month::March, 15, 200),
    (2027, Month::March, 15, 100),
    (2029, Month::March, 15, 47),
];
/// Above this many days something is said whoever the authority is: browsers do not tell, but Apple's systems refuse
/// more than 825 from any.
const LONG: i64 = 398;
/// MD2, MD4, MD5 and SHA-1, with RSA, DSA and ECDSA.
const WEAK: [Oid<'static>; 7] = [
    oid!(1.2.840.113549.1.1.2),
    oid!(1.2.840.113549.1.1.3),
    oid!(1.2.840.113549.1.1.4),
    oid!(1.2.840.113549.1.1.5),
    oid!(1.3.14.3.2.29),
    oid!(1.2.840.10040.4.3),
    oid!(1.2.840.10045.4.1),
];
const SCTS: Oid<'static> = oid!(1.3.6.1.4.1.11129.2.4.2);
const CA_ISSUERS: Oid<'static> = oid!(1.3.6.1.5.5.7.48.2);

/// Everything that is to be said about a chain, the leaf first.
pub(super) fn warnings(chain: &[Parsed<'_>], host: Option<&str>, now: i64) -> Vec<String> {
    let Some((leaf, issuers)) = chain.split_first() else { return Vec::new() };
    let mut found = name_warnings(&leaf.x509, host);
    found.extend(trust_warning(leaf, issuers));
    found.extend(usage_warnings(&leaf.x509));
    found.extend(weakness_warnings(chain));
    found.extend(time_warnings(&leaf.x509, now));
    for issuer in issuers.iter().filter(|issuer| issuer.x509.validity().not_after.timestamp() < now) {
        let (subject, end) = (told(&issuer.x509), date(issuer.x509.validity().not_after.timestamp()));
        found.push(format!(
            "the certificate of its chain for {subject} expired at {end}: browsers refuse it (ERR_CERT_DATE_INVALID), \
             unless they know another way"
        ));
    }
    found
}

fn name_warnings(leaf: &X509Certificate<'_>, host: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    let common: Vec<_> = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
    let names = names(leaf);
    if common.len() > 1 {
        found.push(format!(
            "it has {} common names: browsers read none of them, only subjectAltName (RFC 9525 section 2)",
            common.len()
        ));
    }
    if names.is_empty() {
        let name = host.or_else(|| common.first().copied().filter(|name| is_name(name))).unwrap_or("NAME");
        found.push(format!(
            "it names no host in subjectAltName: browsers refuse it whatever its common name says \
             (ERR_CERT_COMMON_NAME_INVALID). Ask its authority for another one: openssl req -new -key KEY -out REQUEST \
             -subj \"/CN={name}\" -addext \"subjectAltName=DNS:{name}\"; for development: portico certs {name}"
        ));
    } else if let Some(host) = host.filter(|host| !covers(&names, host)) {
        let mut listed = names.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        if names.len() > 10 {
            listed.push_str(&format!(" and {} more", names.len() - 10));
        }
        found.push(format!(
            "it does not cover {host}, only {listed}: browsers refuse it (ERR_CERT_COMMON_NAME_INVALID)"
        ));
    }
    found
}

/// Whether a common name looks like that of a host, and can be shown in a command.
fn is_name(text: &str) -> bool {
    text.contains(|character: char| character.is_ascii_alphabetic())
        && text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-*".contains(&byte))
}

fn trust_warning(leaf: &Parsed<'_>, issuers: &[Parsed<'_>]) -> Option<String> {
    if leaf.is_self_signed() {
        return Some(
            "it is self-signed: browsers do not trust it (ERR_CERT_AUTHORITY_INVALID) unless it was put among the \
             certificates that they trust"
                .into(),
        );
    }
    // That it is of a public authority is seen by the logs that it is in, or by the address of its issuer. None of
    // them signs with its root; a private authority may, and a chain of one certificate is complete then.
    let public = leaf.x509.iter_extensions().any(|extension| {
        extension.oid == SCTS
            || matches!(extension.parsed_extension(), ParsedExtension::AuthorityInfoAccess(access)
                if access.accessdescs.iter().any(|description| description.access_method == CA_ISSUERS))
    });
    (issuers.is_empty() && public).then(|| {
        let issuer = super::clean(&leaf.x509.issuer().to_string());
        format!(
            "the certificate of its issuer ({issuer}) is not with it: clients that do not fetch it by themselves, such \
             as curl, Python and some phones, do not trust it. Give the full chain"
        )
    })
}

fn usage_warnings(leaf: &X509Certificate<'_>) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(Some(usage)) = leaf.extended_key_usage()
        && !usage.value.server_auth
        && !usage.value.any
    {
        found.push(
            "its extendedKeyUsage does not allow servers (serverAuth): browsers refuse it (ERR_CERT_INVALID)"
                .to_string(),
        );
    }
    // A self-signed one that OpenSSL makes calls itself an authority, which nobody minds.
    if leaf.is_ca() && leaf.subject() != leaf.issuer() {
        found.push(
            "it is the certificate of an authority (CA), not of a server: some clients refuse it, and whoever gets its \
             key can sign for any name"
                .to_string(),
        );
    }
    found
}

fn weakness_warnings(chain: &[Parsed<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    for (index, parsed) in chain.iter().enumerate() {
        let whose = if index == 0 {
            "it".to_string()
        } else {
            format!("the certificate of its chain for {}", told(&parsed.x509))
        };
        // Nobody checks the signature of a root.
        if WEAK.contains(parsed.x509.signature_algorithm.oid()) && (index == 0 || !parsed.is_self_signed()) {
            found.push(format!(
                "{whose} is signed with SHA-1 or MD5: browsers refuse it (ERR_CERT_WEAK_SIGNATURE_ALGORITHM)"
            ));
        }
        if let Some(bits) = rsa_bits(&parsed.x509).filter(|bits| *bits < 2048) {
            found.push(format!(
                "{whose} has an RSA key of {bits} bits: browsers refuse less than 2048 (ERR_CERT_WEAK_KEY)"
            ));
        }
    }
    found
}

fn time_warnings(leaf: &X509Certificate<'_>, now: i64) -> Vec<String> {
    let mut found = Vec::new();
    let (from, to) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    let (whole, left) = (to.saturating_sub(from), to.saturating_sub(now));
    let days = whole / DAY;
    if days > LONG {
        let limit = limit(from).map_or_else(
            || "and issued before 2020-09-01, when the limit was 825".to_string(),
            |limit| format!("and for one that began at {} the limit is {limit}", date(from)),
        );
        found.push(format!(
            "it is valid for {days} days, {limit}: browsers refuse it from authorities that they know themselves \
             (ERR_CERT_VALIDITY_TOO_LONG), and Apple's systems refuse more than 825 days from any. Limits get shorter: 200 \
             days from 2026-03-15, 100 from 2027-03-15, 47 from 2029-03-15 (CA/Browser Forum SC-081)"
        ));
    }
    if ends_soon(from, to, now) {
        found.push(format!("it expires at {}, in {} days: renew it", date(to), left / DAY));
    }
    found
}

/// Whether a certificate is in its last two weeks. Those that are made for some days only are renewed in their last third.
pub(in crate::tls) fn ends_soon(from: i64, to: i64, now: i64) -> bool {
    to - now < SOON.min((to - from) / 3)
}

/// The limit in days for a certificate that began then.
fn limit(from: i64) -> Option<i64> {
    let begins = OffsetDateTime::from_unix_timestamp(from).ok()?.date();
    let in_force = |(year, month, day, _): &&(i32, Month, u8, i64)| {
        Date::from_calendar_date(*year, *month, *day).is_ok_and(|date| date <= begins)
    };
    LIMITS.iter().rev().find(in_force).map(|(_, _, _, days)| *days)
}

fn rsa_bits(certificate: &X509Certificate<'_>) -> Option<usize> {
    match certificate.public_key().parsed().ok()? {
        PublicKey::RSA(key) => Some(key.key_size()),
        _ => None,
    }
}

/// The kind of a certificate's key, in words.
pub(super) fn kind_of_key(certificate: &X509Certificate<'_>) -> String {
    let info = certificate.public_key();
    let curve = || info.algorithm.parameters.as_ref()?.as_oid().ok().map(|curve| curve.to_id_string());
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA of {} bits", key.key_size()),
        Ok(PublicKey::EC(_)) => {
            format!("ECDSA on the curve {}", curve().unwrap_or_else(|| "that it writes out".into()))
        }
        Ok(PublicKey::DSA(_)) => "DSA".into(),
        _ => format!("the kind {}", info.algorithm.algorithm),
    }
}

/// The names and addresses that a certificate is for (RFC 9525 section 2): those in its subjectAltName.
pub(super) fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(super::clean(&name.to_ascii_lowercase())),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    alternative.value.general_names.iter().filter_map(name).collect()
}

/// Whether a host, or all hosts of a wildcard, are among the names: a `*` stands for one whole first label (RFC 9525
/// section 6.3). Both are in lower case.
pub(super) fn covers(names: &[String], host: &str) -> bool {
    let wildcard = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    names.iter().any(|name| {
        let name = name.strip_suffix('.').unwrap_or(name);
        name == host || wildcard.as_deref() == Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::{covers, limit};

    #[test]
    fn names_and_wildcards() {
        let names = ["a.test".to_string(), "*.b.test".to_string()];
        for host in ["a.test", "x.b.test", "*.b.test"] {
            assert!(covers(&names, host), "{host}");
        }
        for host in ["b.test", "x.y.b.test", "x.a.test", "*.a.test", "test", "*.test"] {
            assert!(!covers(&names, host), "{host}");
        }
    }

    #[test]
    fn limits_by_date() {
        let day = 86_400;
        // 2020-08-31, 2020-09-01, 2026-03-14, 2026-03-15, 2027-03-15, 2029-03-15.
        for (date, days) in [
            (18_505, None),
            (18_506, Some(398)),
            (20_526, Some(398)),
            (20_527, Some(200)),
            (20_892, Some(100)),
            (21_623, Some(47)),
        ] {
            assert_eq!(limit(date * day), days, "{date}");
        }
    }
}
