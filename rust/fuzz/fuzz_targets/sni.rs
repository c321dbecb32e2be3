//! From a ClientHello to a host. The first byte of the input says what the rest is: the name alone, the body of the
//! server_name extension (RFC 6066 section 3), the extensions of a ClientHello, or the records themselves; then whatever
//! is chosen must be what the rule of docs/behaviour.md says: the exact name, the wildcard one label up, the default.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use portico_core::tls::development::Authority;
use portico_core::tls::{Choice, Context, Credentials, Form, Rules, Source, Sources, host_name};

const HOSTS: [&str; 8] = [
    "example.com",
    "*.example.com",
    "a.example.com",
    "*.shop.test",
    "localhost",
    "*.a.b.c.test",
    "xn--bcher-kva.example",
    "_odd.under-score.test",
];

fn choice() -> &'static Choice {
    static CHOICE: OnceLock<Choice> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let issued = Authority::new("fuzz").unwrap().issue(&["localhost".to_string()], 3650).unwrap();
        let cert = Source::Bytes(issued.cert_pem.into_bytes());
        let key = Some(Source::Bytes(issued.key_pem.into_bytes()));
        let sources = Sources::from(Credentials { form: Form::Pair { cert, key }, password: None });
        let context = |host| Context::new(host, sources.clone(), Rules::default(), None).unwrap();
        Choice::new(HOSTS.into_iter().map(Some).chain([None]).map(context)).unwrap()
    })
}

/// The rule, by comparing with every host in turn.
fn expected(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let exact = HOSTS.into_iter().find(|host| !host.starts_with('*') && *host == name);
    exact.or_else(|| {
        let (label, rest) = name.split_once('.')?;
        HOSTS.into_iter().find(|host| !label.is_empty() && host.strip_prefix("*.") == Some(rest))
    })
}

/// With a length of two bytes before it, as far as that can say.
fn sized(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(u16::MAX.into());
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes.as_slice()].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), sized(body.to_vec())].concat()
}

/// Extensions that rustls wants to see: signature schemes, groups, a version.
fn usual_extensions() -> Vec<u8> {
    [
        extension(13, &[0, 4, 4, 3, 8, 4]),
        extension(10, &[0, 4, 0, 29, 0, 23]),
        extension(43, &[2, 3, 4]),
        extension(51, &sized([&[0, 29, 0, 32][..], &[9; 32]].concat())),
    ]
    .concat()
}

/// A ClientHello (RFC 8446 section 4.1.2) in as many records as it takes.
fn records(extensions: Vec<u8>) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &[0, 4, 0x13, 0x01, 0xc0, 0x2b],
        &[1, 0],
        &sized(extensions),
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    message.chunks(1 << 14).flat_map(|part| [vec![22, 3, 1], sized(part.to_vec())].concat()).collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let wire = match kind % 4 {
        0 => {
            if let Ok(name) = std::str::from_utf8(rest) {
                assert_eq!(choice().find(name), expected(name), "{name:?}");
                if let Ok(normal) = host_name(name) {
                    assert_eq!(host_name(&normal).unwrap(), normal, "{name:?}");
                    assert!(normal.is_ascii() && !normal.bytes().any(|b| b.is_ascii_uppercase()), "{name:?}");
                }
            }
            let list = [&[0][..], &sized(rest.to_vec())].concat();
            records([usual_extensions(), extension(0, &sized(list))].concat())
        }
        1 => records([usual_extensions(), extension(0, rest)].concat()),
        2 => records([usual_extensions(), rest.to_vec()].concat()),
        _ => rest.to_vec(),
    };
    let Some(chosen) = choice().of_hello(&wire) else { return };
    let host = chosen.host.expect("there is a default");
    assert_eq!(host.as_deref(), chosen.sni.as_deref().and_then(expected), "{:?}", chosen.sni);
    assert!(chosen.sni.is_none_or(|name| name.len() <= 255 && name.is_ascii()));
});
