//! The PROXY protocol, versions 1 and 2: what a proxy says, before anything else, of the client for whom it connects
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Bytes only; `opening` reads them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::connection::Address;

/// The least that has to be read to know what else does: every header of either version is as long.
pub const FIRST: usize = 15;
/// The longest header of version 1, with its CRLF.
const MOST_V1: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What stands before the addresses of version 2.
const FIXED: usize = 16;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 1 or 2.
    pub version: u8,
    /// Whether the proxy connects for itself (`LOCAL`), as to see whether this server is well.
    pub local: bool,
    /// The client's address, and the one that it connected to; none where the proxy does not tell.
    pub addresses: Option<(Address, Address)>,
    /// What else version 2 tells.
    pub more: More,
}

/// What version 2 may tell besides addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct More {
    /// The protocol that the client chose by ALPN.
    pub alpn: Option<Bytes>,
    /// The host name that the client asked the proxy for.
    pub authority: Option<String>,
    /// By which the proxy knows the connection.
    pub unique_id: Option<Bytes>,
    /// The client's TLS, where that ends at the proxy.
    pub tls: Option<ProxiedTls>,
}

/// A client's TLS that ends at a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxiedTls {
    /// Whether the client showed a certificate that the proxy found good.
    pub verified: bool,
    /// As `TLSv1.3`.
    pub version: Option<String>,
    /// The cipher suite, as the proxy names it.
    pub cipher: Option<String>,
    /// The common name of the client's certificate. It is worth something where it is `verified`.
    pub common_name: Option<String>,
}

/// How a connection came by a proxy that told so by the PROXY protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// The proxy's end of the connection.
    pub peer: Address,
    /// This end of it.
    pub local: Address,
    /// What the proxy said.
    pub header: Header,
}

/// How a header goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It has that many bytes more.
    Exactly(usize),
    /// It ends with a line's end that is still to come.
    Line,
    /// It is whole.
    Done,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What has to be read after that much of a header, [`FIRST`] bytes or more.
///
/// # Errors
/// It is no header.
pub fn next(read: &[u8]) -> Result<Next, Malformed> {
    if read.starts_with(SIGNATURE) {
        let Some(length) = read.get(14..FIXED) else { return Ok(Next::Exactly(FIXED.saturating_sub(read.len()))) };
        let whole = FIXED + length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        return Ok(match whole.saturating_sub(read.len()) {
            0 => Next::Done,
            missing => Next::Exactly(missing),
        });
    }
    if !read.starts_with(b"PROXY ") {
        return Err(Malformed("there is none: the connection begins with something else"));
    }
    match read.ends_with(b"\n") {
        true => Ok(Next::Done),
        false if read.len() < MOST_V1 => Ok(Next::Line),
        false => Err(Malformed("version 1: longer than 107 bytes")),
    }
}

impl Header {
    /// Reads a whole header, and nothing besides.
    ///
    /// # Errors
    /// It is none, or a malformed one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        match bytes.starts_with(SIGNATURE) {
            true => version_2(bytes),
            false => version_1(bytes),
        }
    }
}

fn version_1(bytes: &[u8]) -> Result<Header, Malformed> {
    let wrong = || Malformed("version 1: the line is malformed");
    let line = bytes.strip_suffix(b"\r\n").filter(|_| bytes.len() <= MOST_V1).ok_or_else(wrong)?;
    let line = std::str::from_utf8(line).map_err(|_| wrong())?.strip_prefix("PROXY ").ok_or_else(wrong)?;
    let header = |addresses| Header { version: 1, local: false, addresses, more: More::default() };
    // Whatever follows it is to be left alone.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(header(None));
    }
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or_else(wrong);
    let family = word()?;
    let ips: [IpAddr; 2] = [word()?.parse().map_err(|_| wrong())?, word()?.parse().map_err(|_| wrong())?];
    let ports = [port(word()?).ok_or_else(wrong)?, port(word()?).ok_or_else(wrong)?];
    let fits = match family {
        "TCP4" => ips.iter().all(IpAddr::is_ipv4),
        "TCP6" => ips.iter().all(IpAddr::is_ipv6),
        _ => false,
    };
    if !fits || words.next().is_some() {
        return Err(wrong());
    }
    let [peer, local] = [0, 1].map(|at| Address::Inet(SocketAddr::new(ips[at], ports[at])));
    Ok(header(Some((peer, local))))
}

/// Digits without a sign, and without a zero before them.
fn port(text: &str) -> Option<u16> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical)
}

fn version_2(bytes: &[u8]) -> Result<Header, Malformed> {
    let wrong = Malformed("version 2: it is cut off, or longer than it says");
    if next(bytes) != Ok(Next::Done) {
        return Err(wrong);
    }
    let (Some(&command), Some(&family), Some(mut rest)) = (bytes.get(12), bytes.get(13), bytes.get(FIXED..)) else {
        return Err(wrong);
    };
    let length = usize::from(bytes[14]) << 8 | usize::from(bytes[15]);
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("version 2: an unknown version or command")),
    };
    if rest.len() != length {
        return Err(wrong);
    }
    // TCP and UDP look alike here, and so do both kinds of Unix sockets.
    let addresses = match family {
        0x00 => None,
        0x11 | 0x12 => Some(inet::<4>(&mut rest).ok_or(wrong)?),
        0x21 | 0x22 => Some(inet::<16>(&mut rest).ok_or(wrong)?),
        0x31 | 0x32 => Some((unix(&mut rest).ok_or(wrong)?, unix(&mut rest).ok_or(wrong)?)),
        _ => return Err(Malformed("version 2: an unknown family or protocol")),
    };
    // What stands behind an unspecified family, and behind LOCAL, may be anything.
    let more = if local || family == 0 { More::default() } else { More::parse(bytes, rest)? };
    Ok(Header { version: 2, local, addresses: addresses.filter(|_| !local), more })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

fn inet<const N: usize>(rest: &mut &[u8]) -> Option<(Address, Address)>
where
    IpAddr: From<[u8; N]>,
{
    let ips = [array::<N>(rest)?, array::<N>(rest)?];
    let ports = [array::<2>(rest)?, array::<2>(rest)?];
    let [peer, local] =
        [0, 1].map(|at| Address::Inet(SocketAddr::new(IpAddr::from(ips[at]), u16::from_be_bytes(ports[at]))));
    Some((peer, local))
}

fn unix(rest: &mut &[u8]) -> Option<Address> {
    let path = take(rest, 108)?;
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = || String::from_utf8_lossy(path).into_owned();
    Some(Address::Unix((!path.is_empty()).then(text)))
}

// The types of what follows the addresses, section 2.2 of the specification.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
/// The client connected by TLS.
const CLIENT_SSL: u8 = 1;
/// It showed a certificate on this connection, or on an earlier one of the same session.
const CLIENT_CERT: u8 = 2 | 4;

impl More {
    fn parse(whole: &[u8], mut rest: &[u8]) -> Result<Self, Malformed> {
        let (mut more, mut checked) = (More::default(), false);
        while !rest.is_empty() {
            let at = whole.len() - rest.len() + 3;
            let (kind, value) = tlv(&mut rest)?;
            match kind {
                ALPN => more.alpn = Some(Bytes::copy_from_slice(value)),
                AUTHORITY => more.authority = Some(text(value)),
                UNIQUE_ID => more.unique_id = Some(Bytes::copy_from_slice(value)),
                SSL => more.tls = ProxiedTls::parse(value)?,
                // One is enough, and each takes time.
                CRC32C if checked || value != checksum(whole, at).to_be_bytes() => {
                    return Err(Malformed("version 2: its checksum does not match"));
                }
                CRC32C => checked = true,
                _ => {}
            }
        }
        Ok(more)
    }
}

impl ProxiedTls {
    /// None where the client did not use TLS.
    fn parse(mut rest: &[u8]) -> Result<Option<Self>, Malformed> {
        let (Some([client]), Some(verify)) = (array::<1>(&mut rest), array::<4>(&mut rest)) else {
            return Err(Malformed("version 2: what it says of TLS is cut off"));
        };
        let mut tls = ProxiedTls { verified: client & CLIENT_CERT != 0 && verify == [0; 4], ..Self::default() };
        while !rest.is_empty() {
            let (kind, value) = tlv(&mut rest)?;
            match kind {
                SSL_VERSION => tls.version = Some(text(value)),
                SSL_CN => tls.common_name = Some(text(value)),
                SSL_CIPHER => tls.cipher = Some(text(value)),
                _ => {}
            }
        }
        Ok((client & CLIENT_SSL != 0).then_some(tls))
    }
}

fn tlv<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), Malformed> {
    let cut_off = || Malformed("version 2: a field behind the addresses is cut off");
    let [kind] = array::<1>(rest).ok_or_else(cut_off)?;
    let length = array::<2>(rest).map(u16::from_be_bytes).ok_or_else(cut_off)?;
    Ok((kind, take(rest, usize::from(length)).ok_or_else(cut_off)?))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// CRC-32C (RFC 3720 appendix B.4) of a header, in which the four bytes at that place count as zero.
fn checksum(header: &[u8], at: usize) -> u32 {
    !header.iter().enumerate().fold(!0u32, |crc, (index, byte)| {
        let byte = if (at..at + 4).contains(&index) { 0 } else { *byte };
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn field(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 1, 10, 0, 0, 1, 0xc8, 0x22, 0x01, 0xbb];

    fn inet(text: &str) -> Address {
        Address::Inet(text.parse().unwrap())
    }

    #[test]
    fn version_1_as_proxies_write_it() {
        let header = Header::parse(b"PROXY TCP4 192.0.2.1 10.0.0.1 51234 443\r\n").unwrap();
        assert_eq!(header.addresses, Some((inet("192.0.2.1:51234"), inet("10.0.0.1:443"))));
        let header = Header::parse(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n").unwrap();
        assert_eq!(header.addresses, Some((inet("[2001:db8::1]:1"), inet("[::1]:65535"))));
        for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n"] {
            assert_eq!(Header::parse(line).unwrap().addresses, None);
        }
    }

    #[test]
    fn version_1_malformed() {
        for line in [
            "PROXY TCP4 192.0.2.1 10.0.0.1 51234 443\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 51234 443",
            "PROXY TCP4 192.0.2.1 10.0.0.1 51234 443 \r\n",
            "PROXY  TCP4 192.0.2.1 10.0.0.1 51234 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 51234 65536\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +1234 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 01234 443\r\n",
            "PROXY TCP4 192.0.2 10.0.0.1 1234 443\r\n",
            "PROXY TCP4 ::1 ::1 1234 443\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.1 1234 443\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 1234 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "proxy TCP4 192.0.2.1 10.0.0.1 51234 443\r\n",
        ] {
            assert!(Header::parse(line.as_bytes()).is_err(), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        assert!(Header::parse(long.as_bytes()).is_err());
    }

    #[test]
    fn version_2_of_every_family() {
        let header = Header::parse(&v2(0x21, 0x11, V4)).unwrap();
        assert_eq!(header.addresses, Some((inet("192.0.2.1:51234"), inet("10.0.0.1:443"))));
        let six: Vec<u8> = [[1; 32].as_slice(), &[0, 1, 0, 2]].concat();
        for family in [0x21, 0x22] {
            let (peer, local) = Header::parse(&v2(0x21, family, &six)).unwrap().addresses.unwrap();
            assert_eq!([peer, local], [1, 2].map(|port| inet(&format!("[101:101:101:101:101:101:101:101]:{port}"))));
        }
        let mut paths = [0; 216];
        paths[..6].copy_from_slice(b"/a.sok");
        let (peer, local) = Header::parse(&v2(0x21, 0x31, &paths)).unwrap().addresses.unwrap();
        assert_eq!((peer, local), (Address::Unix(Some("/a.sok".into())), Address::Unix(None)));
        assert_eq!(Header::parse(&v2(0x21, 0x00, b"whatever")).unwrap().addresses, None);
        let own = Header::parse(&v2(0x20, 0x11, V4)).unwrap();
        assert!(own.local && own.addresses.is_none());
    }

    #[test]
    fn version_2_tells_more() {
        let tls = [&[7, 0, 0, 0, 0][..], &field(SSL_VERSION, b"TLSv1.3"), &field(SSL_CN, b"ada")].concat();
        let rest = [
            V4,
            &field(ALPN, b"h2"),
            &field(AUTHORITY, b"example.com"),
            &field(0x04, b"padding"),
            &field(UNIQUE_ID, b"\xff1"),
            &field(SSL, &tls),
        ]
        .concat();
        let more = Header::parse(&v2(0x21, 0x11, &rest)).unwrap().more;
        assert_eq!((more.alpn.as_deref(), more.authority.as_deref()), (Some(&b"h2"[..]), Some("example.com")));
        assert_eq!(more.unique_id.as_deref(), Some(&b"\xff1"[..]));
        let tls = more.tls.unwrap();
        assert!(tls.verified);
        assert_eq!((tls.version.as_deref(), tls.common_name.as_deref()), (Some("TLSv1.3"), Some("ada")));
        for (client, verify, verified) in [(7, 1, Some(false)), (1, 0, Some(false)), (0, 0, None)] {
            let rest = [V4, &field(SSL, &[client, 0, 0, 0, verify])].concat();
            let tls = Header::parse(&v2(0x21, 0x11, &rest)).unwrap().more.tls;
            assert_eq!(tls.map(|tls| tls.verified), verified);
        }
    }

    #[test]
    fn a_checksum_has_to_match() {
        // The check value of CRC-32C.
        assert_eq!(checksum(b"123456789", 100), 0xe306_9283);
        let mut header = v2(0x21, 0x11, &[V4, &field(CRC32C, &[0; 4])].concat());
        assert!(Header::parse(&header).is_err());
        let at = header.len() - 4;
        let sum = checksum(&header, at).to_be_bytes();
        header[at..].copy_from_slice(&sum);
        assert!(Header::parse(&header).is_ok());
        header[16] ^= 1;
        assert!(Header::parse(&header).is_err());
        assert!(Header::parse(&v2(0x21, 0x11, &[V4, &field(CRC32C, &[0; 3])].concat())).is_err());
    }

    #[test]
    fn version_2_malformed() {
        for header in [
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x21, V4),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x13, V4),
            v2(0x21, 0x41, V4),
            v2(0x22, 0x11, V4),
            v2(0x11, 0x11, V4),
            v2(0x21, 0x11, &[V4, &[ALPN, 0, 3, b'h']].concat()),
            v2(0x21, 0x11, &[V4, &[ALPN, 0]].concat()),
            v2(0x21, 0x11, &[V4, &field(SSL, &[1, 0, 0])].concat()),
            v2(0x21, 0x11, &[V4, &field(SSL, &[1, 0, 0, 0, 0, SSL_CN, 9, 9])].concat()),
            [v2(0x21, 0x11, V4), vec![0]].concat(),
        ] {
            assert!(Header::parse(&header).is_err(), "{header:?}");
        }
        for end in 0..28 {
            assert!(Header::parse(&v2(0x21, 0x11, V4)[..end]).is_err());
        }
    }

    #[test]
    fn how_a_header_goes_on() {
        assert_eq!(next(b"PROXY UNKNOWN\r\n"), Ok(Next::Done));
        assert_eq!(next(b"PROXY TCP4 1.1."), Ok(Next::Line));
        assert_eq!(next(&v2(0x21, 0x11, V4)[..FIRST]), Ok(Next::Exactly(1)));
        assert_eq!(next(&v2(0x21, 0x11, V4)[..16]), Ok(Next::Exactly(12)));
        assert_eq!(next(&v2(0x21, 0x11, V4)), Ok(Next::Done));
        assert!(next(b"GET / HTTP/1.1\r").is_err());
        assert!(next(&[b"PROXY ".as_slice(), &[b'1'; 101]].concat()).is_err());
    }
    proptest::proptest! {
        #[test]
        fn whatever_comes_reading_it_ends(
            start in proptest::sample::select(vec![&b"PROXY "[..], b"PROXY TCP4 1.2.3.4 ", &SIGNATURE[..], b"\r\n\r\n\0\r\nQUIT\n!\x11\0", b""]),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
        ) {
            let bytes = [start, &rest].concat();
            let _ = Header::parse(&bytes);
            let mut end = FIRST;
            while let Some(read) = bytes.get(..end) {
                match next(read) {
                    Ok(Next::Exactly(more)) => {
                        proptest::prop_assert!(more > 0 && end + more <= FIXED + usize::from(u16::MAX));
                        end += more;
                    }
                    Ok(Next::Line) => {
                        proptest::prop_assert!(end < MOST_V1);
                        end += 1;
                    }
                    Ok(Next::Done) => {
                        let header = Header::parse(read);
                        proptest::prop_assert!(header.is_err() || Header::parse(&[read, &b"x"[..]].concat()).is_err());
                        break;
                    }
                    Err(_) => {
                        proptest::prop_assert!(Header::parse(read).is_err());
                        break;
                    }
                }
            }
        }
    }
}
