"""What is UTF-8 and what is not, after Markus Kuhn's list, as the Autobahn test suite asks for it in its sections 6.5 to
6.23: pairs of whether it is, and the bytes."""

import itertools

_GREEK = "κόσμε".encode()


def _is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lead(first, last):
    return b"".join(bytes([byte, 0x20]) for byte in range(first, last))


_CUT = [
    *(b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"),
    *(b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"),
]
_HIGH, _LOW = [b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf"], [b"\xed\xb0\x80", b"\xed\xbf\xbf"]
# The last two of each plane: no characters, and UTF-8 all the same.
_LAST = [chr(plane << 16 | 0xFFFE | last).encode() for plane in range(17) for last in (0, 1)]

_VALID = [
    *(b"hello$world", "hello¢world".encode(), "hello€world".encode(), "hello\U00024b62world".encode(), _GREEK),
    # The first and the last of each length, and the neighbours of what is none.
    *(b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"),
    *(b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"),
    *(b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd"),
    *_LAST,
    *(b"\xef\xbf\xb9", b"\xef\xbf\xba", b"\xef\xbf\xbb", b"\xef\xbf\xbc"),
]
_INVALID = [
    # Beyond Unicode.
    *(b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xf4\x90\x80\x80"),
    *(b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"),
    # What continues nothing, what nothing continues, and what breaks off.
    *((b"\x80\xbf" * 3)[:length] for length in range(1, 7)),
    *(b"\xbf", b"\x80\xbf\x80\xbf\x80\xbf\x80", bytes(range(0x80, 0xBF))),
    *(_lead(0xC0, 0xDF), _lead(0xE0, 0xEF), _lead(0xF0, 0xF7), _lead(0xF8, 0xFB), _lead(0xFC, 0xFD)),
    *_CUT,
    b"".join(_CUT),
    *(b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"),
    # More bytes than it needs.
    *(b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"),
    *(b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"),
    *(b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"),
    # Halves of characters of UTF-16, alone and in pairs.
    *_HIGH,
    *_LOW,
    b"\xed\xbe\x80",
    *(high + low for high, low in itertools.product(_HIGH, _LOW)),
]

UTF8 = [
    *((True, payload) for payload in _VALID),
    *((False, payload) for payload in _INVALID),
    # All beginnings of a text.
    *((_is_utf8(_GREEK[:length]), _GREEK[:length]) for length in range(1, len(_GREEK))),
]
