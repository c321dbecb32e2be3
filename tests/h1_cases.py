"""The cases of test_h1_conformance.py: the section of RFC 9112 or RFC 9110 that each is about, its name, what must come of it, and
the bytes. Gathered from what public suites ask of a server (h1spec, Http11Probe, http-garden, http-conformance, the corpora of
llhttp and h11, PortSwigger's lists), each with the strictest of their answers."""

from __future__ import annotations

import string
from typing import NamedTuple

BAD, TOO_LARGE, TOO_LONG, EXPECTATION, FIELDS, NOT_IMPLEMENTED, VERSION = 400, 413, 414, 417, 431, 501, 505


class Served(NamedTuple):
    """It is answered; then the next request is, unless it was the last."""

    body: str = ""
    # As the handler sees it; the one that was sent where it is not given.
    target: str | None = None
    last: bool = False


class Waits(NamedTuple):
    """Nothing is answered before the rest is here; then it is."""

    rest: str
    then: Served | int = Served()


OK, LAST = Served(), Served(last=True)
TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
# What ends nothing and has no place in a head but within quotes, if at all.
CONTROLS = [chr(code) for code in (*range(9), *range(11, 13), *range(14, 32), 127)]
DELIMITERS = '"(),/;<=>?@[\\]{}'
BEYOND = ["\x80", "\xa0", "\xe9", "\xff", "\xc3\xab"]


def lines(*head, body=""):
    return "\r\n".join(head) + "\r\n\r\n" + body


def line(start, body=""):
    """With that request line."""
    return lines(start, "Host: h", body=body)


def get(*fields, body="", line="GET / HTTP/1.1"):
    return lines(line, "Host: h", *fields, body=body)


def post(*fields, body=""):
    return get(*fields, body=body, line="POST / HTTP/1.1")


def host(*fields, version="1.1"):
    """With those fields alone."""
    return lines(f"GET / HTTP/{version}", *fields)


def length(value, body="hello"):
    return post(f"Content-Length:{value}", body=body)


def coding(value, body="5\r\nhello\r\n0\r\n\r\n"):
    return post(f"Transfer-Encoding:{value}", body=body)


def chunked(body):
    return post("Transfer-Encoding: chunked", body=body)


def smuggle(*framing, body="0\r\n\r\n", inner="GET /marker HTTP/1.1\r\nHost: h\r\n\r\n"):
    """A request in what one framing takes for body and the other does not."""
    whole = body + inner
    return post(*(field.format(len(whole)) for field in framing), body=whole)


def each(section, name, outcome, wrap, values):
    return [(section, f"{name} {value[:40]!r}", outcome, wrap(value)) for value in values]


REQUEST_LINE = [
    ("9112-3", "plain", OK, get()),
    *each("9112-3", "request line", BAD, line, [
        "GET", "GET ", "GET /", "GET / ", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ", "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1", "GET / HTTP/1.1\t", " GET / HTTP/1.1", "\tGET / HTTP/1.1", "GET /a b HTTP/1.1", "GET / a HTTP/1.1",
        "GET HTTP/1.1", " / HTTP/1.1", "/ HTTP/1.1", "HTTP/1.1", "HTTP/1.1 200 OK", "hello", "GET/ HTTP/1.1", "GET /HTTP/1.1",
        "GET / HTTP/1.1 HTTP/1.1", "GET / HTTP/1.1\r", "GET / HTTP/1.1\x00", "GET\x00/ HTTP/1.1", "GET\x0b/ HTTP/1.1",
        "GET\x0c/ HTTP/1.1", "GET\xa0/ HTTP/1.1", "GET /\x85HTTP/1.1", "GET\r/ HTTP/1.1", "GET /\rHTTP/1.1",
        "GET / HTTP/1.1, HTTP/1.1", "Extra lineGET / HTTP/1.1", "\ufeffGET / HTTP/1.1".encode().decode("latin-1"),
    ]),
    ("9112-2.2", "line feeds alone", BAD, "GET / HTTP/1.1\nHost: h\n\n"),
    ("9112-2.2", "line feed behind the request line", BAD, "GET / HTTP/1.1\nHost: h\r\n\r\n"),
    ("9112-2.2", "line feed behind a field", BAD, "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"),
    ("9112-2.2", "line feed at the end", BAD, "GET / HTTP/1.1\r\nHost: h\r\n\n"),
    ("9112-2.2", "line feed for an end", BAD, "GET / HTTP/1.1\r\nHost: h\n\r\n"),
    ("9112-2.2", "carriage returns alone", BAD, "GET / HTTP/1.1\rHost: h\r\r\n\r\n"),
    ("9112-2.2", "carriage return behind the request line", BAD, "GET / HTTP/1.1\rHost: h\r\n\r\n"),
    ("9112-2.2", "CR CR LF", BAD, "GET / HTTP/1.1\r\r\nHost: h\r\n\r\n"),
    ("9112-2.2", "LF CR", BAD, "GET / HTTP/1.1\n\rHost: h\n\r\n\r"),
    ("9112-2.2", "CR before a field", BAD, "GET / HTTP/1.1\r\nHost: h\r\n\rX: y\r\n\r\n"),
    ("9112-2.2", "CR CR LF at the end", BAD, "GET / HTTP/1.1\r\nHost: h\r\n\r\r\n"),
    ("9112-2.2", "an empty line first", OK, "\r\n" + get()),
    ("9112-2.2", "two empty lines first", BAD, "\r\n\r\n" + get()),
    ("9112-2.2", "a line feed first", BAD, "\n" + get()),
    ("9112-2.2", "white space before the first field", BAD, "GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
    ("9112-2.2", "a line of white space before the first field", BAD, "GET / HTTP/1.1\r\n \r\nHost: h\r\n\r\n"),
    ("9112-2.2", "a line of white space", BAD, "   \r\n\r\n"),
    ("9112-2.2", "an empty line behind a body", Served("hello"), length(" 5", "hello\r\n")),
    ("9112-3", "a TLS handshake", BAD, "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"),
    ("9112-3", "garbage", BAD, "".join(chr((n * 37 + 200) % 256) for n in range(256))),
    ("9112-3", "a proxy's header", BAD, "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + get()),
    ("9112-3", "a target of 8000 bytes", OK, line(f"GET /{'a' * 7900} HTTP/1.1")),
    ("9112-3", "a target of 60 000 bytes", OK, line(f"GET /{'a' * 60_000} HTTP/1.1")),
    ("9110-15.5.15", "a target of 100 000 bytes", TOO_LONG, line(f"GET /{'a' * 100_000} HTTP/1.1")),
    ("9110-15.5.15", "a query of 100 000 bytes", TOO_LONG, line(f"GET /?{'a' * 100_000} HTTP/1.1")),
    ("9110-15.5.15", "a target of 100 000 bytes and no end", TOO_LONG, f"GET /{'a' * 100_000}"),
    ("9112-3", "a method of 100 000 bytes", BAD, line(f"{'A' * 100_000} / HTTP/1.1")),
]  # fmt: skip

METHODS = [
    *each("9110-9.1", "method", OK, lambda method: line(f"{method} / HTTP/1.1"), [
        "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH", "QUERY", "FOOBAR", "get", "Get", "G",
        "GETGET", "HEADS", "connect-not", "A" * 1000,
    ]),
    *each("9110-9.1", "in a method", OK, lambda char: line(f"G{char}T / HTTP/1.1"), TOKEN[62:]),
    *each("9110-9.1", "in a method", BAD, lambda char: line(f"G{char}T / HTTP/1.1"), [*CONTROLS, *DELIMITERS, ":", *BEYOND]),
    ("9110-9.3.2", "HEAD", OK, line("HEAD / HTTP/1.1")),
    ("9110-9.3.2", "HEAD with a body", Served("hello"), get("Content-Length: 5", body="hello", line="HEAD / HTTP/1.1")),
    ("9110-9.3.1", "GET with a body", Served("hello"), get("Content-Length: 5", body="hello")),
    ("9110-9.3.5", "DELETE with a body", Served("a"), get("Content-Length: 1", body="a", line="DELETE / HTTP/1.1")),
    ("9110-9.3.7", "OPTIONS with a body", Served("a"), get("Content-Length: 1", body="a", line="OPTIONS / HTTP/1.1")),
    ("9110-9.3.8", "TRACE with a body", BAD, get("Content-Length: 5", body="hello", line="TRACE / HTTP/1.1")),
    ("9110-9.3.8", "TRACE with chunks", BAD, get("Transfer-Encoding: chunked", body="0\r\n\r\n", line="TRACE / HTTP/1.1")),
    *each("9110-9.3.6", "CONNECT", NOT_IMPLEMENTED, lambda target: line(f"CONNECT {target} HTTP/1.1"), [
        "h:443", "h", "/", "*", "http://h/", "[::1]:443", "h:99999", "user@h:1", "127.0.0.1:22",
    ]),
    ("9110-9.3.6", "CONNECT with a body", NOT_IMPLEMENTED, get("Content-Length: 3", body="abc", line="CONNECT h:1 HTTP/1.1")),
]  # fmt: skip

VERSIONS = [
    *each("9110-15.6.6", "version", VERSION, lambda version: line(f"GET / {version}"), [
        "HTTP/0.0", "HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/2.1", "HTTP/3.0", "HTTP/5.6", "HTTP/9.9",
    ]),
    *each("9112-2.3", "version", BAD, lambda version: line(f"GET / {version}"), [
        "http/1.1", "Http/1.1", "HTTp/1.1", "HTTP/1", "HTTP/2", "HTTP/", "HTTP", "HTTP/.1", "HTTP/1.", "HTTP/1.1.", "HTTP/1.1.1",
        "HTTP/01.1", "HTTP/1.01", "HTTP/01.01", "HTTP/1.10", "HTTP/11.1", "HTTP/10.0", "HTTP/1,1", "HTTP/1:1", "HTTP/-1.1", "HTTP/+1.1",
        "HTTP/1.-1", "HTTP/1.+1", "HTTP/1.1a", "HTTP/a.b", "HTTP/1.x", "HTTP /1.1", "HTTP/ 1.1", "HTTP/1 .1", "HTTP/1. 1", "HTTP\\1.1",
        "HTTP 1.1", "HTTP-1.1", "HTTPS/1.1", "XHTTP/1.1", "SIP/2.0", "ICE/1.0", "RTSP/1.0", "1.1", "HTTP/1\x00.1", "HTTP/1.1;a",
        "HTTP/\xb9.1", "H/1.1", "FTP/1.1",
    ]),
    ("9112-2.3", "HTTP/0.9", BAD, "GET /\r\n"),
    ("9112-2.3", "HTTP/0.9 with an empty line", BAD, "GET /\r\n\r\n"),
    ("9112-2.3", "HTTP/0.9 with a field", BAD, "GET /\r\nHost: h\r\n\r\n"),
    ("9113-3.4", "half a preface of HTTP/2", VERSION, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
]  # fmt: skip

TARGETS = [
    *each("9112-3.2.1", "in a path", OK, lambda char: line(f"GET /a{char}b HTTP/1.1"), "!\"$%&'()*+,-./:;<=>@[]^_`{|}~"),
    *each("9112-3.2.1", "in a query", OK, lambda char: line(f"GET /a?b{char}c HTTP/1.1"), "\"%+/:?@[\\]^`{|}"),
    *each("9112-3.2", "in a target", BAD, lambda char: line(f"GET /a{char}b HTTP/1.1"), [*CONTROLS, *BEYOND, "#", "\\", "\xc0\xaf", "\t"]),
    *each("9112-3.2", "in a query", BAD, lambda char: line(f"GET /?{char} HTTP/1.1"), ["\0", "\t", "\x7f", "#", "\xe9"]),
    *each("9112-3.2", "target", OK, lambda target: line(f"GET {target} HTTP/1.1"), [
        "/a?b=c", "//", "//h/a", "/./..//a", "/a%20b", "/%", "/%zz", "/%00", "/path%0d%0aX:%20y", "/a;b=c", "/:80", "/@h", "/http://h/",
        "/a?http://h/", "/a??", "/%2e%2e/%2e%2e/etc/passwd", "/%c0%af", "/*",
    ]),
    *[("9112-3.2.2", f"target {sent!r}", Served(target=seen), line(f"GET {sent} HTTP/1.1")) for sent, seen in [
        ("http://h/", "/"), ("http://h", "/"), ("http://h/a?b", "/a?b"), ("http://h?b", "/?b"), ("HTTP://H/", "/"), ("https://h/", "/"),
        ("http://other/", "/"), ("http://h:80/", "/"), ("/?", "/"), ("http://h:/", "/"), ("http://[::1]/", "/"), ("http://127.0.0.1:8080/a", "/a"),
    ]],
    *each("9112-3.2", "target", BAD, lambda target: line(f"GET {target} HTTP/1.1"), [
        "a", "a/b", "*", "h:80", "h:443", "?", "?a", ".", "..", "../a", ":80", "@", "h", "www.example.com", "ftp://h/", "ws://h/", "file:///etc",
        "javascript:1", "http:", "http:/", "http://", "http:///", "http:///a", "http:h", "http:/h/", "http://?a", "http://:80/",
        "http://h:x/", "http://h:65536/", "http://h:-1/", "http://u@h/", "http://u:p@h/", "http://h@/", "http://h#f", "http://h/#f", "http://h/a\\b",
        "http://h\\a/", "http://%68/", "http://a,b/", "http://[::1/", "http://[::g]/", "http://::1/", "http://h:1:2/", "**", "*/", "*?a", "http://h\xe9/",
    ]),
    ("9112-3.2.4", "OPTIONS *", Served(), line("OPTIONS * HTTP/1.1")),
    ("9112-3.2.4", "OPTIONS * with a body", Served("abc"), get("Content-Length: 3", body="abc", line="OPTIONS * HTTP/1.1")),
    *each("9112-3.2.4", "asterisk", BAD, lambda start: line(f"{start} HTTP/1.1"), [
        "GET *", "HEAD *", "POST *", "PUT *", "DELETE *", "TRACE *", "PATCH *", "options *", "OPTIONS *?a", "OPTIONS */", "OPTIONS **",
    ]),
    *each("9112-3.2.3", "authority", BAD, lambda start: line(f"{start} HTTP/1.1"), [
        "GET h:443", "POST h:443", "OPTIONS h:443", "HEAD 127.0.0.1:80", "GET [::1]:80", "connect h:443",
    ]),
]  # fmt: skip

HOSTS = [
    *each("9112-3.2", "Host", OK, lambda value: host(f"Host:{value}"), [
        " h", "h", "\th", " \t h \t ", " H", " h:80", " h:", " h:0", " h:65535", " h.", " a-b.c", " a_b", " 127.0.0.1", " 127.0.0.1:80", " [::1]",
        " [::1]:80", " xn--bcher-kva.example", " 1", " " + "a" * 255,
    ]),
    *each("9112-3.2", "Host", BAD, lambda value: host(f"Host:{value}"), [
        "", " ", "\t", " :", " :80", " h:x", " h:8a", " h:+80", " h:-80", " h: 80", " h :80", " h:65536", " h:999999", " h:080808", " h:1:2", " a b",
        " a\tb", " a,b", " a, b", " h, h", " a;b", " a/b", " h/", " /", " http://h", " h?a", " h#f", " u@h", " u:p@h", " @h", " h@", " \"h\"", " 'h'", " <h>",
        " (h)", " {h}", " h|i", " h^", " h`", " h=i", " *", " a\\b", " %68", " h%00", " h\0", " h\x01", " h\x7f", " h\xe9", " h\xc3\xbc", " [", " []",
        " [::1", " ::1]", " ::1", " [::g]", " [1.2.3.4]", " [::1]x", " x[::1]", " [::1]:x", " [fe80::1%25eth0]", " [fe80::1%eth0]", " [v1.a]",
        " localhost:80:80", " h\r", " h\ri",
    ]),
    ("9112-3.2", "no Host", BAD, host()),
    ("9112-3.2", "no Host but a body", BAD, host("Content-Length: 5")),
    ("9112-3.2", "Host twice", BAD, host("Host: h", "Host: h")),
    ("9112-3.2", "Host twice, differing", BAD, host("Host: h", "Host: i")),
    ("9112-3.2", "Host twice, in other letters", BAD, host("Host: h", "hOST: h")),
    ("9112-3.2", "Host three times", BAD, host("Host: h", "X: y", "Host: h", "Host: h")),
    ("9112-3.2", "Host twice, one empty", BAD, host("Host: h", "Host:")),
    ("9112-3.2", "Host twice with a target in absolute form", BAD, lines("GET http://h/ HTTP/1.1", "Host: h", "Host: h")),
    ("9112-3.2", "no Host with a target in absolute form", BAD, lines("GET http://h/ HTTP/1.1")),
    ("9112-3.2", "odd Host with a target in absolute form", BAD, lines("GET http://h/ HTTP/1.1", "Host: a b")),
    ("9112-3.2", "folded Host", BAD, host("Host:", " h")),
    ("9112-3.2", "folded second Host", BAD, host("Host: h", " Host: i")),
    ("9112-3.2", "space before the colon of Host", BAD, host("Host : h")),
    ("9112-3.2", "space before Host", BAD, host("X: y", " Host: h")),
    ("9112-3.2", "X-Forwarded-Host", OK, get("X-Forwarded-Host: i", "Forwarded: host=i", "X-Host: i")),
    ("9112-3.2", "Host_ and H_ost", OK, get("Host_: i", "H_ost: j")),
    ("9112-3.2", "no Host in HTTP/1.0", LAST, host(version="1.0")),
    ("9112-3.2", "Host in HTTP/1.0", LAST, host("Host: h", version="1.0")),
    ("9112-3.2", "Host twice in HTTP/1.0", BAD, host("Host: h", "Host: h", version="1.0")),
    ("9112-3.2", "odd Host in HTTP/1.0", BAD, host("Host: a b", version="1.0")),
    ("9112-3.2", "empty Host in HTTP/1.0", BAD, host("Host:", version="1.0")),
]  # fmt: skip

FIELD_LINES = [
    *each("9112-5", "in a name", OK, lambda char: get(f"X{char}Y: z"), TOKEN[52:]),
    *each("9112-5", "in a name", BAD, lambda char: get(f"X{char}Y: z"), [*CONTROLS, *DELIMITERS, " ", "\t", "\r", "\n", *BEYOND]),
    *each("9112-5", "at the end of a name", BAD, lambda char: get(f"X{char}: z"), [*CONTROLS, *DELIMITERS, " ", "\t", "\r", "\n", "\xa0"]),
    *each("9112-5", "at the start of a name", BAD, lambda char: get(f"{char}X: z"), [*CONTROLS, *DELIMITERS, " ", "\t", "\n", ":", "\xa0"]),
    *each("9110-5.5", "in a value", BAD, lambda char: get(f"X: a{char}b"), [*CONTROLS, "\r", "\n", "\r\r\n"]),
    *each("9110-5.5", "as a value", BAD, lambda char: get(f"X:{char}"), [*CONTROLS, "\r"]),
    *each("9110-5.5", "value", OK, lambda value: get(f"X:{value}"), [
        "", " ", "\t", "y", " y ", "\t y \t", " a b", " a\tb", ' "', " :", " a: b", " \\", " \x80\xff", " \xc3\xa9", " ,", " ;", " GET / HTTP/1.1", "y" * 8000,
    ]),
    *each("9112-5", "line", BAD, get, ["X", "X y", ":", ": y", " : y", "=", "GET / HTTP/1.1", "X;y", "\x00", "X\x00", "X\r", "\xef\xbb\xbfX: y"]),
    *each("9112-5.2", "folded by", BAD, lambda fold: get("X: a", f"{fold}b"), [" ", "\t", "  ", " \t", "\t\t\t"]),
    ("9112-5.2", "folded empty line", BAD, get("X: a", " ")),
    ("9112-5.2", "folded twice", BAD, get("X: a", " b", " c")),
    ("9112-5.2", "folded at once", BAD, get("X:", " a")),
    ("9112-5.2", "folded last line", BAD, get("X: a", " b: c")),
    ("9110-5.3", "one name three times", OK, get("X: 1", "x: 2", "X: 3")),
    ("9110-5.3", "Content-Type twice", Served("hello"), post("Content-Length: 5", "Content-Type: a/b", "Content-Type: c/d", body="hello")),
    ("9110-5.1", "names in any letters", Served("hello"), lines("POST / HTTP/1.1", "hOsT: h", "cOnTeNt-LeNgTh: 5", body="hello")),
    ("9110-5.1", "underscores are no hyphens", OK, get("Content_Length: 99", "Transfer_Encoding: chunked")),
    ("9110-5.1", "an underscore beside a length", Served("hello"), post("Content-Length: 5", "Content_Length: 99", body="hello")),
    ("9110-5.1", "a tab for a hyphen", BAD, post("Content-Length: 5", "Content\tLength: 99", body="hello")),
    ("9110-5.4", "100 lines", OK, get(*["X: y"] * 99)),
    ("6585-5", "101 lines", FIELDS, get(*["X: y"] * 100)),
    ("6585-5", "10 000 lines", FIELDS, get(*(f"X-{n}: value" for n in range(10_000)))),
    ("6585-5", "a value of 100 000 bytes", FIELDS, get("X: " + "y" * 100_000)),
    ("6585-5", "a name of 100 000 bytes", FIELDS, get("X" * 100_000 + ": y")),
    ("6585-5", "spaces of 100 000 bytes", FIELDS, get("X:" + " " * 100_000)),
    ("6585-5", "99 lines of 1000 bytes", FIELDS, get(*["X: " + "y" * 1000] * 99)),
]  # fmt: skip

LENGTHS = [
    *each("9112-6.2", "Content-Length", Served("hello"), length, ["5", " 5", "\t5", " 5 ", "  5", " \t 5\t "]),
    ("9112-6.3", "Content-Length of 0", OK, length(" 0", "")),
    ("9112-6.3", "no length", OK, post()),
    *each("9110-8.6", "Content-Length", BAD, length, [
        "", " ", "\t", " a", " abc", " +5", " -5", " -1", " -0", " +0", " --5", " 5a", " a5", " 5 5", " 5\t5", " 5,5", " 5, 5", " 5, 5, 5", " 5, 10", " 5,", " ,5", " ,",
        " 5;a", " 5; 5", " 5:5", " 5.0", " 5.", " .5", " 5e0", " 5e1", " 0x5", " 0X5", " 0o5", " 0b1", " 5h", " 05", " 005", " 00", " 0200", " 1_0", " 1'0", " 1 0", ' "5"', " '5'",
        " (5)", " 5%", " 5\0", " \x005", " 5\x0b", " \x0b5", " 5\x0c", " \xa05", " 5\xa0", " \xb5", " \xef\xbc\x95", " 5\r", " \r5", " 5\n", " 99999999999999999999",
        " 18446744073709551616", " 18446744073709551621", " 4294967301" * 2, " -18446744073709551611", " 9" * 3, " " + "9" * 1000, " 00000000000000000005",
        " -123456789123456789123456789", " Infinity", " NaN", " null", " undefined", " 5\x00\r\nX: y",
    ]),
    *each("9110-15.5.14", "Content-Length", TOO_LARGE, length, [
        " 10485761", " 999999999", " 4294967301", " 9223372036854775807", " 9223372036854775808", " 9999999999999999999",
    ]),
    *[("9112-6.3", f"{' and '.join(fields)}", BAD, post(*fields, body="helloworld")) for fields in [
        ("Content-Length: 5", "Content-Length: 5"), ("Content-Length: 5", "Content-Length: 10"), ("Content-Length: 10", "Content-Length: 5"),
        ("Content-Length: 5", "content-length: 5"), ("Content-Length: 5", "X: y", "Content-Length: 6"), ("Content-Length: 0", "Content-Length: 5"),
        ("Content-Length: 5", "Content-Length:"), ("Content-Length:", "Content-Length: 5"), ("Content-Length: 5", "Content-Length: 5", "Content-Length: 5"),
        ("Content-Length: 5", "Content-Length: +5"), ("Content-Length: 5", "Content-Length : 5"), ("Content-Length : 5",), ("Content-Length\t: 5",),
        ("Content-Length:", " 5"), ("Content-Length: 5", " 5"), ("Content-Length: 5", "\t0"), (" Content-Length: 5",), ("Content-Length 5",), ("\0Content-Length: 5",),
        ("Content-Length\0: 5",), ("Content Length: 5",), ("X: y\nContent-Length: 5",), ("X: y\rContent-Length: 5",), ("X: y\r\r\nContent-Length: 5",),
    ]],
    ("9112-6.3", "two lengths and a request in the second", BAD, smuggle("Content-Length: 4", "Content-Length: {}", body="PING")),
    ("9112-6.3", "two lengths the other way round", BAD, smuggle("Content-Length: {}", "Content-Length: 4", body="PING")),
    ("9112-6.3", "a body that is a request", Served("GET /marker HTTP/1.1\r\nHost: h\r\n\r\n"), smuggle("Content-Length: {}", body="")),
    ("9112-6.3", "GET whose body is a request", Served(get()), get(f"Content-Length: {len(get())}", body=get())),
    ("9112-6.3", "GET whose body begins one", Served("GET / HTTP/1.1\r\nHost: h\r\n"), get("Content-Length: 25", body="GET / HTTP/1.1\r\nHost: h\r\n")),
    ("9112-6.3", "lengths in other fields", Served(""), get("X-Content-Length: 5", "Content-Length-X: 5", "Contentlength: 5", "Content.Length: 5")),
]  # fmt: skip

BOTH = [(f"{first.format('N')}, {second.format('N')}", first, second) for one in ["Content-Length: {}", "Content-Length: 4", "Content-Length: 0", "content-length:{}"]
        for other in ["Transfer-Encoding: chunked", "transfer-encoding:CHUNKED", "Transfer-Encoding: chunked ", "Transfer-Encoding:\tchunked"]
        for first, second in [(one, other), (other, one)]]  # fmt: skip
CODINGS = [
    *each("9112-7", "Transfer-Encoding", Served("hello"), coding, ["chunked", " chunked", "\tchunked", " chunked ", " Chunked", " CHUNKED", " cHuNkEd\t"]),
    *each("9112-6.1", "Transfer-Encoding", BAD, coding, [
        "", " ", " identity", " gzip", " deflate", " compress", " x", " pigeons", " xchunked", " chunkedx", " chunk", " chunke", " x-chunked", " chunked-x", " chunked, chunked",
        " chunked,chunked", " chunked, identity", " chunked, gzip", " chunked, deflate", " gzip, chunked, gzip", " , chunked", " ,chunked", " chunked,", " chunked, ", " ,", " chunked,,",
        " gzip,, chunked", " chunked;q=1", " chunked; a=b", " chunked;", " chunked x", " chunked chunked", " x chunked", ' "chunked"', " 'chunked'", " chunked\0", " \0chunked", " chun\0ked",
        " \x0bchunked", " chunked\x0b", " \x0cchunked", " \x08chunked", " \x1fchunked", " chunked\x7f", " \xa0chunked", " chunked\xa0", " \xffchunked", " chunked\r", " \rchunked", " \nchunked",
        " chunked\n", " [chunked]", " (chunked)", " chunked=1", " chunked:", " :chunked", " chunked/1", " 5", " true", " false", " \xe2\x84\xaahunked", " chun\xe2\x84\xaaed", " chu ked",
    ]),
    *each("9112-6.1", "Transfer-Encoding", NOT_IMPLEMENTED, coding, [" gzip, chunked", " gzip,chunked", " deflate, chunked", " identity, chunked", " x, chunked", " gzip, deflate, chunked"]),
    *[("9112-6.1", f"{' and '.join(fields)}", BAD, post(*fields, body="0\r\n\r\n")) for fields in [
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), ("Transfer-Encoding: chunked", "transfer-encoding: identity"),
        ("Transfer-Encoding: identity", "Transfer-Encoding: chunked"), ("Transfer-Encoding: chunked", "Transfer-Encoding: gzip"),
        ("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"), ("Transfer-Encoding:", "Transfer-Encoding: chunked"), ("Transfer-Encoding: chunked", "Transfer-Encoding:"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: x"), ("Transfer-Encoding : chunked",), ("Transfer-Encoding\t: chunked",), (" Transfer-Encoding: chunked",),
        ("Transfer-Encoding:", " chunked"), ("Transfer-Encoding:", "\tchunked"), ("Transfer-Encoding: chunked", " , identity"), ("X: y\nTransfer-Encoding: chunked",),
        ("X: y\rTransfer-Encoding: chunked",), ("X: y\r\rTransfer-Encoding: chunked",), ("Transfer-Encoding\0: chunked",), ("Transfer-Encoding\x01: chunked",),
        ("Transfer Encoding: chunked",), ("Transfer-Encoding",), ("Transfer-Encoding chunked",), ("\xffTransfer-Encoding: chunked",), ("Transfer-Encoding\n: chunked",),
        ("Transfer\r-Encoding: chunked",), (":Transfer-Encoding: chunked",), ('"Transfer-Encoding": chunked',), ("Transfer-Encoding: chunked\nX: y",),
    ]],
    *[("9112-6.3", both, BAD, smuggle(first, second)) for both, first, second in BOTH],
    *[("9112-6.3", f"{' and '.join(fields)}", BAD, smuggle(*fields)) for fields in [
        ("Content-Length: +{}", "Transfer-Encoding: chunked"), ("Content-Length: {}x", "Transfer-Encoding: chunked"), ("Transfer-Encoding:\r\n chunked", "Content-Length: {}"),
        ("Content-Length: {}", "Transfer-Encoding: , chunked"), ("Content-Length: {}", "Transfer-Encoding: xchunked"), ("Content-Length: {}", "Transfer-Encoding: identity"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Content-Length: {}"), ("Content-Length: {}", "Transfer-Encoding:"), ("Content-Length: {}", "Transfer-Encoding: chunked, chunked"),
        ("Content-Length: {}", "Transfer-Encoding : chunked"), ("Content-Length: {}", "Transfer-Encoding: chunked;a"), ("Content-Length: {}", "Transfer-Encoding: \x0bchunked"),
    ]],
    ("9112-6.3", "two framings, and HEAD within", BAD, smuggle("Content-Length: {}", "Transfer-Encoding: chunked", inner="HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")),
    ("9112-6.3", "two framings with GET", BAD, get("Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n")),
    ("9112-6.3", "two framings with OPTIONS", BAD, get("Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n", line="OPTIONS / HTTP/1.1")),
    ("9112-6.3", "a request in the first chunk", BAD, post("Transfer-Encoding: chunked", "Content-Length: 4", body="22\r\nGET /marker HTTP/1.1\r\nHost: h\r\n\r\n\r\n0\r\n\r\n")),
    ("9112-6.1", "chunks in HTTP/1.0", BAD, get("Transfer-Encoding: chunked", body="0\r\n\r\n", line="POST / HTTP/1.0")),
    ("9112-6.1", "chunks in HTTP/1.0 that stays", BAD, get("Connection: keep-alive", "Transfer-Encoding: chunked", body="0\r\n\r\n", line="POST / HTTP/1.0")),
    ("9112-6.1", "two framings in HTTP/1.0", BAD, get("Content-Length: 5", "Transfer-Encoding: chunked", body="hello", line="POST / HTTP/1.0")),
    ("9112-7.4", "TE", OK, get("Connection: TE", "TE: trailers, chunked, deflate;q=0.5")),
    ("9112-6.1", "names that look like it", OK, get("Transfer_Encoding: chunked", "X-Transfer-Encoding: chunked", "TransferEncoding: chunked", "Transfer-Encodings: chunked")),
]  # fmt: skip

CHUNKS = [
    *[("9112-7.1", f"chunks {body!r}", Served(whole), chunked(body)) for body, whole in [
        ("0\r\n\r\n", ""), ("5\r\nhello\r\n0\r\n\r\n", "hello"), ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world"), ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"), ("005\r\nhello\r\n000\r\n\r\n", "hello"), ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"), ("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
        ("1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", "abc"), ("00000000000000a\r\n0123456789\r\n0\r\n\r\n", "0123456789"), ("64\r\n" + "x" * 100 + "\r\n0\r\n\r\n", "x" * 100),
    ]],
    *each("9112-7.1", "chunk size", BAD, lambda size: chunked(f"{size}\r\nhello\r\n0\r\n\r\n"), [
        "", " ", "\t", "g", "-5", "+5", "-0", "+0", "-1", "0x5", "0X5", "5h", "x5", "05x", "5_0", "1_0", "0_5", "5.0", "5,", "5,5", "5 5", " 5", "\t5", "5 ", "5\t", "5  ", "\r5", "\n5", "5\n", "5\r",
        "5\0", "\x005", "5\x0b", "\x0b5", "5\x0c", "5\xa0", "\xa05", "\xb5", "'5'", '"5"', "5=", "5:", "5#", "#5", "5\\", "$5", "0o5", "0000000000000005", "10000000000000000", "ffffffffffffffff",
        "FFFFFFFFFFFFFFFF0", "100000000000000005", "fffffffffffffffff", "f" * 1000, "0" * 1000, "0" * 20 + "5", "\ufffd".encode().decode("latin-1"),
    ]),
    *each("9112-7.1", "chunk", BAD, chunked, [
        "5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r\n0\n\r\n", "5\r\nhello\r\n0\r\n\n", "5\rhello\r\n0\r\n\r\n", "5\r\nhello\r0\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello!!\r\n0\r\n\r\n", "5\r\nhell\r\n0\r\n\r\n", "5\r\n\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n\r\n0\r\n\r\n", "5\r\nhello\n\r0\r\n\r\n", "5\r\nhello\n\n0\r\n\r\n", "5\r\nhello \r\n0\r\n\r\n",
        "5\n\rhello\r\n0\r\n\r\n", "5\r\r\nhello\r\n0\r\n\r\n", "0\r\nX\r\n", "0\r\n\rX", "0\r\n\nX", "0\r0\r\n\r\n", "\r\n0\r\n\r\n", "\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "0\r\n \r\n\r\n", "hello", "-0\r\n\r\n", "+0\r\n\r\nX",
        "5\r\nhello\r\n-0\r\n\r\n", "5\r\nhello\r\n 0\r\n\r\n", "5\r\nhello\r\n0 \r\n\r\n", "5\r\nhello\r\n0x0\r\n\r\n", "5\r\nhello\r\n;\r\n\r\n",
    ]),
    *each("9112-7.1.1", "extension", Served("hello"), lambda more: chunked(f"5{more}\r\nhello\r\n0{more}\r\n\r\n"), [
        ";a", ";a=b", ';a="b"', ';a=""', ';a="b;c=d"', ';a="\\""', ";a=b;c=d", ";a;b", ";a=b;c", ";a; b", "; a", ";a =b", ";a= b", ";\ta\t=\tb", ';a="b" ;c', ";" + "a" * 250, ";!#$%&'*+-.^_`|~=1", ';a="\xe9\t "',
    ]),
    *each("9112-7.1.1", "extension", BAD, lambda more: chunked(f"5{more}\r\nhello\r\n0\r\n\r\n"), [
        ";", "; ", ";;", ";;a", ";a;", ";=", ";=b", ";a=", ";a= ", ";a=;b", ";a b", ";a=b c", ";a ", ";a=b ", ';a="b', ';a="b"c', ';a="b" "c"', ';a="\\', ';"a"=b', ";a[=b", ";bad[=x", ";a=b[", ";a=(b)", ";a/b", ";a,b", ";a:b", ";a=b,c",
        ";a\0", ";\0a", ";a=\0", ';a="\0"', ';a="\x01"', ";a\x7f", ";a\x0b", ";\xe9", ";a=\xe9", ";\n", ";a\n", ";a=b\n", ';a="\n"', ";\r", ";a\rX", ";a=b\rX", ';a="\r"', ';a="\r\n"', ';a="\r\n5', " ;a", "\t;a", " a", ",a", ":a",
        ";" + "a" * 257, ";" + "a" * 65_536, ";a=" + '"' + "b" * 300 + '"', ";a" * 200,
    ]),
    ("9112-7.1.1", "many short extensions", BAD, chunked(f"1;{'a' * 250}\r\nx\r\n" * 300 + "0\r\n\r\n")),
    *each("9112-7.1.2", "trailer", Served("hello"), lambda trailer: chunked(f"5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"), [
        "X: y", "X:", "X:y", "X: \xe9", "X: y\r\nZ: w", "X-Checksum: abc", "Trailer: X", "Digest: sha-256=", "Content-Length-X: 1", "Content_Length: 1",
    ]),
    *each("9112-7.1.2", "trailer", BAD, lambda trailer: chunked(f"5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"), [
        "X", ": y", "X : y", " X: y", "X: a\r\n b", "X: a\r\n\tb", "X: a\0", "X: \x01", "X: a\rb", "X: a\nb", "X\0: y", "X Y: z", "X[: y", "\xe9: y", "X: y\r", "X: y\n", "GET / HTTP/1.1", "Content-Length: 50", "content-length: 0",
        "Transfer-Encoding: chunked", "TRANSFER-ENCODING: identity", "Host: other", "host:", "Authorization: Bearer a", "Content-Type: text/evil", "Content-Encoding: gzip", "Content-Range: bytes 0-1/2", "Cookie: a=b",
        "Connection: close", "Expect: 100-continue", "If-Match: *", "Range: bytes=0-", "X: y\r\nHost: other",
    ]),
    ("6585-5", "trailers of 100 000 bytes", FIELDS, chunked("0\r\n" + "X: y\r\n" * 17_000 + "\r\n")),
    ("6585-5", "a trailer of 100 000 bytes", FIELDS, chunked("0\r\nX: " + "y" * 100_000 + "\r\n\r\n")),
    ("9110-15.5.14", "a chunk that is too large", TOO_LARGE, chunked("a00001\r\n" + "x" * 10_485_761 + "\r\n0\r\n\r\n")),
]  # fmt: skip

CONNECTIONS = [
    *each("9112-9.3", "Connection", OK, lambda value: get(f"Connection:{value}"), [
        "", " ", " keep-alive", " Keep-Alive", " x", " closed", " xclose", " close-x", " Upgrade", " TE", " ,", " , x ,", " Host", " Content-Length", " X, Host", ' "close"', " close;x", "\tkeep-alive",
    ]),
    *each("9112-9.6", "Connection", LAST, lambda value: get(f"Connection:{value}"), [
        "close", " close", " Close", " CLOSE", "\tclose\t", " close, x", " x, close", " x,close,y", " ,close", " close,", " keep-alive, close", " close, keep-alive", " close , TE",
    ]),
    ("9112-9.6", "Connection twice", LAST, get("Connection: keep-alive", "Connection: close")),
    ("9112-9.6", "close with a body", Served("hello", last=True), post("Connection: close", "Content-Length: 5", body="hello")),
    ("9112-9.6", "close with chunks", Served("a", last=True), post("Connection: close", "Transfer-Encoding: chunked", body="1\r\na\r\n0\r\n\r\n")),
    ("9112-9.3", "Proxy-Connection", OK, get("Proxy-Connection: close")),
    ("9112-9.3", "Keep-Alive", OK, get("Keep-Alive: timeout=5, max=1")),
    *each("9112-9.3", "HTTP/1.0 and Connection", LAST, lambda value: get(f"Connection:{value}", line="GET / HTTP/1.0"), [
        "", " close", " x", " keep-alive, close", " close, keep-alive", " keepalive", " Upgrade",
    ]),
    *each("9112-9.3", "HTTP/1.0 and Connection", OK, lambda value: get(f"Connection:{value}", line="GET / HTTP/1.0"), [" keep-alive", " Keep-Alive", " KEEP-ALIVE", " x, keep-alive"]),
    ("9112-9.3", "HTTP/1.0 that stays, with a body", Served("hello"), get("Connection: keep-alive", "Content-Length: 5", body="hello", line="POST / HTTP/1.0")),
    ("9112-9.3", "HTTP/1.0 with a body", Served("hello", last=True), get("Content-Length: 5", body="hello", line="POST / HTTP/1.0")),
    ("9112-9.3", "HTTP/1.0 without a length", LAST, get(line="POST / HTTP/1.0")),
    *each("9110-10.1.1", "Expect", Served("hello"), lambda value: post(f"Expect:{value}", "Content-Length: 5", body="hello"), [" 100-continue", " 100-Continue", "\t100-CONTINUE "]),
    *each("9110-10.1.1", "Expect", EXPECTATION, lambda value: post(f"Expect:{value}", "Content-Length: 5", body="hello"), [
        "", " 200-ok", " x", " 100", " 100 continue", " 100-continue, x", " x, 100-continue", " 100-continue;a", ' "100-continue"', " 100-continue 100-continue", " y 100-continue", " 100-continue=1", " \xff",
    ]),
    ("9110-10.1.1", "folded Expect", BAD, post("Expect:", " 100-continue", "Content-Length: 5", body="hello")),
    ("9110-10.1.1", "Expect without a body", OK, get("Expect: 100-continue")),
    ("9110-10.1.1", "Expect with chunks", Served("a"), post("Expect: 100-continue", "Transfer-Encoding: chunked", body="1\r\na\r\n0\r\n\r\n")),
    ("9110-10.1.1", "Expect in HTTP/1.0", Served("hello", last=True), get("Expect: 100-continue", "Content-Length: 5", body="hello", line="POST / HTTP/1.0")),
    ("9110-15.5.14", "Expect with a length that is too large", TOO_LARGE, post("Expect: 100-continue", "Content-Length: 10485761")),
    *each("9110-7.8", "Upgrade", OK, lambda value: get("Connection: Upgrade", f"Upgrade:{value}"), [
        "", " h2c", " h2", " HTTP/2.0", " TLS/1.0", " websocket", " totally-made-up/1.0", " a, b", " ,", " foo/1, bar", " \xff",
    ]),
    ("9110-7.8", "Upgrade with HTTP2-Settings", OK, get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")),
    ("9110-7.8", "Upgrade with a body", Served("hello"), post("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 5", body="hello")),
    ("9110-7.8", "Upgrade without Connection", OK, get("Upgrade: websocket")),
    ("9110-7.8", "Upgrade in HTTP/1.0", LAST, get("Connection: Upgrade", "Upgrade: websocket", line="GET / HTTP/1.0")),
]  # fmt: skip

UNFINISHED = [
    *[("9112-2.2", f"ends in {sent[-40:]!r}", Waits(rest, then), sent) for sent, rest, then in [
        ("G", "ET / HTTP/1.1\r\nHost: h\r\n\r\n", OK), ("GET ", "/ HTTP/1.1\r\nHost: h\r\n\r\n", OK), ("GET /hello", " HTTP/1.1\r\nHost: h\r\n\r\n", Served(target="/hello")),
        ("GET /hello ", "HTTP/1.1\r\nHost: h\r\n\r\n", Served(target="/hello")), ("GET / HTTP", "/1.1\r\nHost: h\r\n\r\n", OK), ("GET / HTTP/1.", "1\r\nHost: h\r\n\r\n", OK),
        ("GET / HTTP/1.1", "\r\nHost: h\r\n\r\n", OK), ("GET / HTTP/1.1\r", "\nHost: h\r\n\r\n", OK), ("GET / HTTP/1.1\r\n", "Host: h\r\n\r\n", OK), ("GET / HTTP/1.1\r\nHos", "t: h\r\n\r\n", OK),
        ("GET / HTTP/1.1\r\nHost:", " h\r\n\r\n", OK), ("GET / HTTP/1.1\r\nHost: ", "h\r\n\r\n", OK), ("GET / HTTP/1.1\r\nHost: h", "\r\n\r\n", OK), ("GET / HTTP/1.1\r\nHost: h\r", "\n\r\n", OK),
        ("GET / HTTP/1.1\r\nHost: h\r\n", "\r\n", OK), ("GET / HTTP/1.1\r\nHost: h\r\n\r", "\n", OK), ("\r", "\n" + get(), OK), ("\r\n", get(), OK), ("GET / HTTP/1.1\r\nX: y\r\nHost: h\r\n", "\r\n", OK),
        (length(" 10", "hello"), "world", Served("helloworld")), (length(" 10", ""), "helloworld", Served("helloworld")), (chunked(""), "0\r\n\r\n", OK), (chunked("5"), "\r\nhello\r\n0\r\n\r\n", Served("hello")),
        (chunked("5\r"), "\nhello\r\n0\r\n\r\n", Served("hello")), (chunked("5;a"), "=b\r\nhello\r\n0\r\n\r\n", Served("hello")), (chunked("5\r\nhel"), "lo\r\n0\r\n\r\n", Served("hello")),
        (chunked("5\r\nhello"), "\r\n0\r\n\r\n", Served("hello")), (chunked("5\r\nhello\r\n"), "0\r\n\r\n", Served("hello")), (chunked("5\r\nhello\r\n0"), "\r\n\r\n", Served("hello")),
        (chunked("5\r\nhello\r\n0\r\n"), "\r\n", Served("hello")), (chunked("5\r\nhello\r\n0\r\nX: y\r\n"), "\r\n", Served("hello")), (chunked("5\r\nhello\r\n0\r\n\r"), "\n", Served("hello")),
        (chunked("8000000\r\n"), "x" * 11_000_000, TOO_LARGE), ("GET / HTTP/1.1\r\nHost: h\r\nX: y", "\nZ: w\r\n\r\n", BAD),
    ]],
]  # fmt: skip

GROUPS = {
    "request line": REQUEST_LINE,
    "methods": METHODS,
    "versions": VERSIONS,
    "targets": TARGETS,
    "Host": HOSTS,
    "field lines": FIELD_LINES,
    "lengths": LENGTHS,
    "codings": CODINGS,
    "chunks": CHUNKS,
    "connections": CONNECTIONS,
    "unfinished": UNFINISHED,
}
