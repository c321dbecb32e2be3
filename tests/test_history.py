"""What went wrong in systems like this one: one test for each, named for it."""

import asyncio
import re
import threading
import time
from pathlib import Path

import pytest
import trustme

import portico
from certificates import pair
from clients import Wire, curl, openssl, request, trusting
from measures import resident

DOCS = Path(__file__).parent.parent / "docs"


def test_the_listen_call_blocked_the_programs_event_loop(issue, ca_pem, gate):
    async def main():
        async with portico.Server(gate) as server:
            server.add_context("localhost", **issue("localhost"))
            port = server.listen(0).port
            asked = asyncio.create_task(asyncio.to_thread(request, port, context=trusting(ca_pem)))
            # Only a loop that goes on, while the server listens and its handler blocks, opens the gate.
            await asyncio.to_thread(gate.wait_for)
            gate.opened.set()
            return await asked

    assert asyncio.run(main()).status == 200


def test_an_error_in_a_handler_ended_the_program_and_could_not_be_caught(serve):
    def failing(request):
        raise (SystemExit if request.path == "/exit" else KeyError)(request.path)

    served = serve(failing)
    for path, kind in (("/", KeyError), ("/exit", SystemExit), ("/", KeyError)):
        assert served.get(path).status == 500
        exception, request = served.errors.next(BaseException)
        assert isinstance(exception, kind)
        assert request.path == path


def test_an_error_in_a_handshake_ended_the_program_and_could_not_be_caught(serve):
    served = serve()
    with Wire(served.port) as wire:
        wire.send(b"\x16\x03\x01\x00\x05junk!").cut()
    exception, request = served.errors.next()
    assert isinstance(exception, portico.HandshakeError)
    assert request is None
    assert served.get().status == 200


def test_memory_grew_to_gigabytes_under_load(serve):
    served = serve(lambda request: {"statusCode": 200, "body": request.body})
    megabyte = bytes(2**20)
    with served.wire() as wire:
        asking = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {len(megabyte)}\r\n\r\n".encode() + megabyte
        for _ in range(20):
            assert wire.send(asking).read().body == megabyte
        before = resident()
        for _ in range(400):
            assert wire.send(asking).read().body == megabyte
        grown = resident() - before
    assert grown < 50 * 2**20, f"{grown} bytes more after 400 MiB in each direction"


def test_add_context_accepted_a_server_that_was_closed(make_server, issue):
    server = make_server()
    server.close()
    with pytest.raises(portico.ClosedError):
        server.add_context("localhost", **issue("localhost"))


def test_add_context_accepted_an_empty_host_name(make_server, issue):
    server = make_server()
    with pytest.raises(portico.ConfigError, match="empty host name"):
        server.add_context("", **issue("localhost"))
    assert list(server.contexts) == []


def test_the_same_mistake_gave_different_texts_in_different_calls(make_server, issue):
    server = make_server()
    context = server.add_context("localhost", **issue("localhost"))
    wrong = {"cert": pair()[0], "key": pair()[1]}
    texts = []
    for call in (lambda: server.add_context("b.test", **wrong), lambda: context.replace(**wrong)):
        with pytest.raises(portico.CertificateError) as caught:
            call()
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_an_empty_response_dict_crashed_the_process(serve):
    served = serve(lambda request: {})
    assert served.get().status == 500
    exception, _ = served.errors.next()
    assert isinstance(exception, portico.ResponseError)
    assert served.get().status == 500


def test_closing_tls_connections_one_by_one_made_everything_five_times_slower(serve):
    served = serve(io_threads=1)
    # Told to close, yet they neither answer the close_notify nor leave.
    lingering = [served.tls_wire() for _ in range(40)]
    try:
        for wire in lingering:
            assert wire.get(headers="Connection: close\r\n").status == 200
        began = time.monotonic()
        for _ in range(40):
            assert served.get().status == 200
        assert time.monotonic() - began < 10, "new connections wait for those that are being closed"
    finally:
        for wire in lingering:
            wire.close()


def test_the_next_request_on_a_kept_alive_connection_could_not_be_handled_asynchronously(serve):
    async def handler(request):
        woken = asyncio.Event()
        asyncio.get_running_loop().call_later(0.001, woken.set)
        await woken.wait()
        return {"statusCode": 200, "body": request.path}

    served = serve(handler)
    with served.tls_wire() as wire:
        assert [wire.get(f"/{n}").text for n in range(20)] == [f"/{n}" for n in range(20)]


REQUEST_KEYS = """httpMethod url version path rawPath queryString queryStringParameters
    multiValueQueryStringParameters headers multiValueHeaders cookies body isBase64Encoded pathParameters""".split()  # noqa: SIM905
RESPONSE_KEYS = "statusCode headers multiValueHeaders body isBase64Encoded".split()  # noqa: SIM905
SETTINGS = [setting["name"] for setting in portico.settings()]


@pytest.mark.parametrize("names", [SETTINGS, REQUEST_KEYS, RESPONSE_KEYS], ids=["settings", "request", "response"])
def test_the_keys_of_settings_request_and_response_were_documented_nowhere(names):
    pages = [page.read_text() for page in DOCS.glob("**/*.md")]
    # One page has a table with a line for each of them.
    missing = [[name for name in names if not re.search(rf"^\|[^|]*`{name}`", page, re.MULTILINE)] for page in pages]
    assert [] in missing, missing


def test_only_the_leaf_certificate_was_sent_without_its_chain(make_server):
    root = trustme.CA()
    leaf = root.create_child_ca().issue_cert("localhost")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    server = make_server()
    server.add_context("localhost", cert=chain, key=leaf.private_key_pem.bytes())
    port = server.listen(0).port
    # It knows the root alone, so it needs the intermediate from the server.
    assert request(port, context=trusting(root.cert_pem.bytes())).status == 200
    assert openssl(port, "-showcerts").count("BEGIN CERTIFICATE") == chain.count(b"BEGIN CERTIFICATE") == 2


def test_host_names_were_compared_case_sensitively(make_server, issue, ca_pem):
    server = make_server(None)
    server.add_context("Shop.TEST", **issue("shop.test"), handler=lambda request: {"statusCode": 200, "body": "shop"})
    port = server.listen(0).port
    for name in ("shop.test", "SHOP.test"):
        # OpenSSL sends the name as it is given; a hostname that is checked must be in lower case.
        lenient = trusting(ca_pem)
        lenient.check_hostname = False
        assert request(port, host=name, context=lenient).text == "shop"


def test_one_certificates_failure_freed_another_servers(make_server, issue, ca_pem):
    good, bad = make_server(), make_server()
    good.add_context("localhost", **issue("localhost"))
    port = good.listen(0).port
    for _ in range(20):
        with pytest.raises(portico.CertificateError):
            bad.add_context("localhost", cert=pair()[0], key=pair()[1])
        with pytest.raises(portico.CertificateError):
            good.add_context("localhost", cert=b"junk", key=b"junk")
    bad.close()
    assert request(port, context=trusting(ca_pem)).status == 200


def test_head_got_a_body(serve):
    served = serve()
    with served.wire() as wire:
        wire.send(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n")
        head = wire.read("HEAD")
        assert (head.status, head.header("content-length")) == (200, str(len("hello /a")))
        assert wire.read().text == "hello /b", "what follows the head of the answer to HEAD is the next answer"


def test_an_oversized_request_was_closed_without_a_413(serve):
    served = serve(max_request_read_bytes=1000)
    assert served.ask("POST", body=bytes(5 * 2**20)).status == 413


def test_pipelined_bytes_were_dropped(serve):
    served = serve()
    with served.wire() as wire:
        wire.send("".join(f"GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n" for n in range(50)))
        assert [wire.read().text for _ in range(50)] == [f"hello /{n}" for n in range(50)]


@pytest.mark.parametrize("value", ["a b  c", "{x}", "}{", '"', "'", "\\", "$x [y]", "a;b", "<%= 1 %>", "\u00e9\u4e2d"])
def test_a_query_value_with_spaces_braces_or_quotes_corrupted_the_request(serve, value):
    served = serve(lambda request: {"statusCode": 200, "body": "|".join(request.queryStringParameters.values())})
    given = ["--get", "--data-urlencode", f"a={value}", "--data-urlencode", "b=after"]
    assert curl(served.clear, "/p", *given) == f"{value}|after"


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("", id="no Host"),
        pytest.param("Host: a\r\nHost: a\r\n", id="Host twice"),
        pytest.param("Host: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", id="malformed chunk"),
        pytest.param("Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", id="both lengths"),
    ],
)
def test_missing_or_repeated_host_malformed_chunk_or_both_lengths_were_accepted(serve, head):
    called = threading.Event()
    served = serve(lambda request: called.set() or {"statusCode": 200})
    with served.wire() as wire:
        wire.send(f"POST / HTTP/1.1\r\n{head}\r\n")
        assert wire.read().status == 400
        assert wire.rest() == b""
    assert not called.is_set()
