"""Clients that want to harm: whatever they send, their own connection fails, in time and with a reason, and nobody else
notices."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import ssl
import struct
import threading
from dataclasses import dataclass

import pytest

import portico
from clients import GENEROUS, run, wait_until
from measures import resident
from tls13 import (
    ALERT,
    DATA,
    EARLY_DATA,
    HANDSHAKE,
    Client,
    alert,
    client_hello,
    extension,
    record,
    records,
    server_name,
    sized,
    usual_extensions,
)

PADDING = 21
UNRECOGNIZED_NAME = 112


@dataclass
class Hostile:
    """What a client sends, and what the server makes of it."""

    label: str
    wire: bytes
    reason: str = "protocol"
    told: str = ""
    """What the message says besides the addresses."""
    alert: int | None = None
    """The alert that answers, where one does."""


def named(*names, **more):
    return records(client_hello(server_name(*names, **more), *usual_extensions()))


def with_more(*more):
    return records(client_hello(server_name("localhost"), *usual_extensions(), *more))


HELLO = client_hello()
NO_NAME = "no host name"
OLD = "no version that this host does"

CASES = [
    # The name that is asked for (RFC 6066 section 3).
    *(
        Hostile(f"name of {length} bytes", named("a" * length), told=NO_NAME, alert=47)
        for length in (64, 255, 256, 4096, 65_000)
    ),
    Hostile("name of 253 bytes", named(("a" * 49 + ".") * 5 + "abc"), "unknown_name", "aaa", UNRECOGNIZED_NAME),
    Hostile("name in UTF-8", named("bücher.example"), told=NO_NAME, alert=47),
    Hostile("name in no encoding", named(b"\xff\xfe\xfd"), told=NO_NAME, alert=47),
    Hostile("empty name", named(""), alert=50),
    Hostile("no name in the list", records(client_hello(extension(0, sized(b"")), *usual_extensions()))),
    Hostile("IPv4 address", named("127.0.0.1"), "unknown_name", "for no host name", UNRECOGNIZED_NAME),
    Hostile("IPv6 address", named("::1"), "unknown_name", "for no host name", UNRECOGNIZED_NAME),
    Hostile("IPv6 address in brackets", named("[::1]"), told=NO_NAME),
    Hostile("NUL at the end of the name", named("localhost\0"), told=NO_NAME),
    Hostile("NUL within the name", named("localhost\0.evil.test"), told=NO_NAME),
    Hostile("wildcard for a name", named("*.shop.test"), told=NO_NAME),
    Hostile("name with a port", named("localhost:443"), told=NO_NAME),
    Hostile("only a dot", named("."), told=NO_NAME),
    Hostile("two dots at the end", named("localhost.."), told=NO_NAME),
    Hostile("line end in the name", named("localhost\r\nInjected: log"), told=NO_NAME),
    Hostile("several names", named("localhost", "other.test"), told=NO_NAME, alert=50),
    Hostile("name of another kind", named("localhost", kind=1), told=NO_NAME),
    Hostile("upper case, unknown", named("UNKNOWN.Test"), "unknown_name", '"unknown.test"', UNRECOGNIZED_NAME),
    Hostile("no name, without a default", records(client_hello(*usual_extensions())), "unknown_name", "no host name"),
    # Extensions.
    Hostile("server_name twice", with_more(server_name("localhost")), told="Duplicate", alert=50),
    Hostile("groups twice", with_more(usual_extensions()[0]), told="Duplicate", alert=50),
    Hostile("unknown extension twice", with_more(*[extension(0x1234, b"")] * 2), told="Duplicate", alert=50),
    Hostile("15 000 extensions", with_more(*(extension(0x2000 + n, b"") for n in range(14_900))), "left", "localhost"),
    Hostile("30 000 protocols", with_more(extension(16, sized(b"\1a" * 30_000))), "incompatible", "localhost"),
    Hostile(
        "a key share of zeros",
        records(client_hello(*usual_extensions(share=bytes(32)), server_name("localhost"))),
        told='"localhost"',
        alert=47,
    ),
    Hostile(
        "compression",
        records(client_hello(server_name("localhost"), *usual_extensions(), compression=b"\1\0")),
        told='"localhost"',
        alert=47,
    ),
    Hostile(
        "no cipher suite in common",
        records(client_hello(server_name("localhost"), *usual_extensions(), ciphers=(5,))),
        reason="incompatible",
        told='"localhost"',
        alert=40,
    ),
    # Versions.
    Hostile(
        "SSL 2",
        bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + bytes(16),
        "not_tls",
    ),
    Hostile(
        "SSL 3",
        b"\x16\3\0" + sized(client_hello(server_name("localhost"), version=0x0300)),
        reason="incompatible",
        told=OLD,
        alert=40,
    ),
    Hostile(
        "TLS 1.0",
        records(client_hello(server_name("localhost"), version=0x0301)),
        reason="incompatible",
        told=OLD,
        alert=40,
    ),
    Hostile(
        "TLS 1.1",
        records(client_hello(server_name("localhost"), *usual_extensions(versions=(0x0302, 0x0301)))),
        reason="incompatible",
        told=OLD,
        alert=70,
    ),
    Hostile(
        "TLS 1.4",
        records(client_hello(server_name("localhost"), *usual_extensions(versions=(0x0305,)))),
        reason="incompatible",
        told=OLD,
    ),
    # Records.
    Hostile("garbage", bytes(range(255, 0, -1)), reason="not_tls", told="not TLS", alert=50),
    Hostile("plain HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", reason="not_tls", told="not TLS", alert=50),
    Hostile("a record of 65 535 bytes", b"\x16\3\1\xff\xff" + bytes(65_535)),
    Hostile("a hello of 70 000 bytes", records(b"\1" + sized(bytes(70_000), 3))),
    Hostile("a hello said to have 16 MiB", record(HANDSHAKE, b"\1\xff\xff\xff" + bytes(100))),
    Hostile("64 KiB in records of one byte", records(b"\1\0\xff\xf0" + bytes(65_000), 1)),
    Hostile("20 000 empty records", record(HANDSHAKE) * 20_000),
    Hostile("alerts between two records", record(HANDSHAKE, HELLO[:20]) + alert(90) + record(HANDSHAKE, HELLO[20:])),
    Hostile("20 000 alerts", alert(90) * 20_000),
    Hostile("20 000 alerts after the hello", records(HELLO) + alert(90) * 20_000, told='"localhost"'),
    Hostile("application data first", record(DATA, b"GET / HTTP/1.1\r\n\r\n")),
    Hostile("application data after the hello", records(HELLO) + record(DATA, bytes(40)) * 2_000, told='"localhost"'),
    Hostile("heartbeat", record(24, b"\1\x40\0"), reason="not_tls", told="not TLS"),
    Hostile("ServerHello", record(HANDSHAKE, b"\2" + sized(bytes(40), 3))),
    Hostile("Finished first", record(HANDSHAKE, b"\x14" + sized(bytes(32), 3))),
    Hostile("500 hellos", records(HELLO) * 500, told='"localhost"'),
    # Those who say no more.
    Hostile("silence", b"", "timeout", "handshake_timeout"),
    Hostile("half a hello", records(HELLO)[:60], "timeout"),
    Hostile("half a record head", b"\x16\3", "timeout"),
    Hostile("a record that breaks off", record(HANDSHAKE, HELLO)[:-1], "timeout"),
    Hostile("a hello and no more", records(HELLO), "timeout", '"localhost"'),
]


@pytest.fixture
def served(serve):
    """One thread for everybody: who holds it holds all."""
    return serve(handshake_timeout=1, io_threads=1)


@contextlib.contextmanager
def hostile(port, wire):
    with socket.create_connection(("127.0.0.1", port), GENEROUS) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(wire)
        yield sock


def received(sock):
    """Everything until the server ends the connection in whatever way."""
    came = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            came += data
    return came


@pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
def test_fails_alone_in_time_and_with_a_reason(served, case):
    with served.tls_wire() as friend:
        before = served.stat("handshakes_failed", case.reason)
        with hostile(served.port, case.wire) as sock:
            assert friend.get().status == 200
            assert served.get().status == 200
            name = ":".join(map(str, sock.getsockname()))
            if case.reason == "left":
                sock.shutdown(socket.SHUT_WR)
            came = received(sock)
        exception, request = served.errors.next()
        assert friend.get().status == 200
    assert type(exception) is portico.HandshakeError
    assert (exception.reason, request) == (case.reason, None)
    message = str(exception)
    assert f"with {name}" in message
    assert f"on 127.0.0.1:{served.port}" in message
    assert case.told in message
    assert message.isprintable()
    assert len(message) < 1000
    served.wait_stat("handshakes_failed", case.reason, before + 1)
    if case.alert is not None:
        assert came[-7:] == b"\x15\3\3\0\2\2" + bytes([case.alert])


@pytest.mark.parametrize("name", ["127.0.0.1", "::1"])
def test_an_address_for_a_name_gets_the_default(served, issue, name):
    served.server.add_context(None, **issue("localhost"))
    with hostile(served.port, named(name)) as sock:
        assert sock.recv(1) == b"\x16"


@pytest.mark.parametrize("name", ["LOCALHOST", "localhost.", "LocalHost."])
def test_odd_forms_of_a_name_are_that_name(served, name):
    with Client(served.port) as client:
        client.shake_hands(name).finish()
        client.send(DATA, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.receive()[1].startswith(b"HTTP/1.1 200")


# ---- a hello in pieces, which is allowed


def finish_over(sock, context, hello_in_pieces):
    """Shakes hands as OpenSSL does, but for how its hello is sent; then asks for a page."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, sent, server_hostname="localhost")
    first = True
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            data = sent.read()
            if first:
                hello_in_pieces(data)
            else:
                sock.sendall(data)
            first = False
            received.write(sock.recv(65536))
    tls.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    sock.sendall(sent.read())
    while True:
        try:
            return tls.read()
        except ssl.SSLWantReadError:
            received.write(sock.recv(65536))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("how", ["segments of one byte", "records of one byte", "both", "records of 100 bytes"])
def test_hello_in_pieces_is_understood(serve, version, how):
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), GENEROUS) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def in_pieces(hello):
            wire = hello if how == "segments of one byte" else records(hello[5:], 100 if "100" in how else 1)
            step = 1 if how in ("segments of one byte", "both") else len(wire)
            for at in range(0, len(wire), step):
                sock.sendall(wire[at : at + step])

        context = served.context(minimum=version, maximum=version)
        assert finish_over(sock, context, in_pieces).startswith(b"HTTP/1.1 200")


def test_a_hello_of_sixty_thousand_bytes_is_understood(served):
    with hostile(served.port, with_more(extension(PADDING, bytes(60_000)))) as sock:
        assert sock.recv(1) == b"\x16"


def test_a_hello_that_drips_is_cut_in_time(serve):
    """Each byte comes in time, the whole does not."""
    served = serve(handshake_timeout=0.5)
    with hostile(served.port, b"") as sock:
        sock.settimeout(0.05)
        wire, cut = records(HELLO), False
        for at in range(len(wire)):
            try:
                cut = sock.recv(1) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                cut = True
            if cut:
                break
            with contextlib.suppress(ConnectionError):  # The next look sees that it was cut.
                sock.sendall(wire[at : at + 1])
        assert cut
    served.wait_stat("handshakes_failed", "timeout")


# ---- within a handshake, and after it


def test_early_data_is_not_taken(serve):
    """Nothing was resumed, so nothing may be early (RFC 8446 section 4.2.10)."""
    asked = []

    def handler(request):
        asked.append(request.path)
        return {"statusCode": 200}

    served = serve(handler, handshake_timeout=0.5)
    wire = with_more(extension(EARLY_DATA, b"")) + record(DATA, bytes(300))
    with hostile(served.port, wire) as sock:
        assert b"HTTP" not in received(sock)
    exception, _ = served.errors.next(portico.HandshakeError)
    assert '"localhost"' in str(exception)
    assert asked == []


def test_a_wrong_finished_is_refused(served):
    with Client(served.port) as client:
        client.shake_hands()
        client.send(HANDSHAKE, b"\x14" + sized(bytes(32), 3))
        received(client.sock)
    exception, _ = served.errors.next(portico.HandshakeError)
    assert exception.reason == "protocol"
    assert '"localhost"' in str(exception)


def test_a_record_that_does_not_decrypt_is_refused(served):
    with Client(served.port) as client:
        client.shake_hands()
        client.sock.sendall(record(DATA, bytes(60)))
        received(client.sock)
    exception, _ = served.errors.next(portico.HandshakeError)
    assert exception.reason == "protocol"


def test_renegotiation_is_refused(serve):
    served = serve(header_timeout=1)
    done = run(
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{served.port}",
        "-servername",
        "localhost",
        "-tls1_2",
        input="R\n",
    )
    assert "RENEGOTIATING" in done.stdout + done.stderr
    assert "no renegotiation" in (done.stdout + done.stderr).lower()
    assert served.get().status == 200


def ends(client):
    """Reads until the server has ended that connection."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            client.receive()


def flood(client, send, count=20_000):
    """Sends until the server has had enough; how often that was."""
    for number in range(count):
        try:
            send()
        except ConnectionError:
            return number
    return count


FLOODS = {
    "KeyUpdates": lambda client: client.update_keys(),
    "KeyUpdates that want no answer": lambda client: client.update_keys(ask=False),
    "empty records": lambda client: client.send(DATA, b""),
    "warnings": lambda client: client.send(ALERT, b"\1\x5a"),
    "records that nobody can decrypt": lambda client: client.sock.sendall(record(DATA, bytes(40))),
    "hellos": lambda client: client.send(HANDSHAKE, HELLO),
    "ChangeCipherSpecs": lambda client: client.sock.sendall(record(20, b"\1")),
}


@pytest.mark.parametrize("what", FLOODS)
def test_a_flood_after_the_handshake_ends_its_connection(serve, what):
    served = serve()
    with Client(served.port) as client, served.tls_wire() as friend:
        client.shake_hands().finish()
        assert flood(client, lambda: FLOODS[what](client)) < 20_000
        ends(client)
        assert friend.get().status == 200
    assert served.get().status == 200
    wait_until(lambda: served.stat("connections_open") == 0, "every connection to end")


def test_key_updates_between_requests_are_answered(serve):
    """Not every one that sends them is hostile."""
    served = serve()
    with Client(served.port) as client:
        client.shake_hands().finish()
        for _ in range(40):
            client.update_keys()
            client.send(DATA, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while not (answer := client.receive()[1]).startswith(b"HTTP/1.1 200"):
                assert answer[0] == 24


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("stage", ["before the hello", "within the hello", "after the hello", "before Finished"])
def test_reset_in_each_stage_is_a_client_that_left(serve, stage):
    served = serve()
    if stage == "before Finished":
        client = Client(served.port).shake_hands()
        client.file.close()
        sock = client.sock
    else:
        sock = socket.create_connection(("127.0.0.1", served.port), GENEROUS)
        wire = {"before the hello": b"", "within the hello": records(HELLO)[:50], "after the hello": records(HELLO)}
        sock.sendall(wire[stage])
        if stage == "after the hello":
            assert sock.recv(1)
    wait_until(lambda: served.stat("connections_accepted") == 1, "the connection to be accepted")
    reset(sock)
    exception, _ = served.errors.next(portico.HandshakeError)
    assert exception.reason == "left"
    assert ('"localhost"' in str(exception)) == (stage in ("after the hello", "before Finished"))
    served.wait_stat("handshakes_failed", "left")
    assert served.get().status == 200


def test_good_clients_are_served_under_a_flood_of_bad_ones(served):
    stop, attacks = threading.Event(), []

    def attack():
        while not stop.is_set():
            for case in CASES:
                with contextlib.suppress(OSError), hostile(served.port, case.wire):
                    attacks.append(case.label)
                if stop.is_set():
                    return

    threads = [threading.Thread(target=attack) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with served.tls_wire() as friend:
            for _ in range(30):
                assert friend.get().status == 200
                assert served.get().status == 200
            wait_until(lambda: len(attacks) > 100, "a hundred attacks")
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_two_hundred_leave_nothing_behind(serve):
    """`test_memory.py` watches a server alone, over more; here are more kinds of clients."""
    served = serve(handshake_timeout=0.2, io_threads=1, on_error=None)

    def all_kinds(times):
        before = sum(served.stat("handshakes_failed").values())
        for _ in range(times):
            for case in CASES:
                with contextlib.suppress(ConnectionError), hostile(served.port, case.wire) as sock:
                    if case.reason not in ("timeout", "left"):
                        received(sock)
        done = before + times * len(CASES)
        wait_until(lambda: sum(served.stat("handshakes_failed").values()) == done, "all to fail")
        wait_until(lambda: served.stat("connections_open") == 0, "all to end")
        gc.collect()
        return resident(), len(os.listdir("/proc/self/fd"))

    for _ in range(2):
        memory, descriptors = all_kinds(4)
    after, descriptors_after = all_kinds(4)
    assert 4 * len(CASES) >= 200
    assert descriptors_after <= descriptors
    assert after - memory < 2**20, f"{(after - memory) / 1024:.0f} KiB more"


def test_wires_hold_less_than_the_limit_of_a_hello(served):
    """What a client can make a handshake hold is bounded: 64 KiB and the buffers of rustls and the kernel."""
    before = resident()
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), GENEROUS))
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.send(b"\x16\3\1\x40\0\1\0\xff\xf0" + bytes(60_000))
        wait_until(lambda: served.stat("connections_accepted") == 50, "fifty to be accepted")
        assert resident() - before < 50 * 512 * 1024
