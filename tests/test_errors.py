"""Exceptions: their tree, their texts, and where those go that nobody could catch."""

import errno
import threading

import pytest

import portico
from clients import Wire, request


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("ConfigError", (ValueError,)),
        ("CertificateError", (portico.ConfigError, ValueError)),
        ("ListenError", (OSError,)),
        ("ClosedError", (RuntimeError,)),
        ("HandshakeError", (ConnectionError, OSError)),
        ("RequestError", (ValueError,)),
        ("IncompleteRequest", (portico.RequestError,)),
        ("LimitError", (portico.RequestError,)),
        ("ResponseError", (ValueError,)),
    ],
)
def test_tree(name, bases):
    kind = getattr(portico, name)
    assert issubclass(kind, (portico.Error, *bases))
    assert all(issubclass(kind, base) for base in (portico.Error, *bases))
    assert kind.__doc__


def text_of(call, kind=portico.Error):
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_the_same_mistake_gives_the_same_text_in_different_calls(make_server, issue, tmp_path):
    one, two = make_server(), make_server()
    identity = issue("localhost")
    context = one.add_context("localhost", **identity)
    missing = tmp_path / "missing.pem"
    assert text_of(lambda: one.add_context("a b", **identity)) == text_of(lambda: one.remove_context("a b"))
    assert (
        text_of(lambda: one.add_context("x.test", cert=missing, key=missing))
        == text_of(lambda: two.add_context("y.test", cert=str(missing), key=missing))
        == text_of(lambda: context.replace(cert=missing, key=missing))
    )
    assert text_of(lambda: portico.Server(max_headers=0)) == text_of(lambda: portico.Server(config={"max_headers": 0}))
    one.close()
    two.close()
    assert text_of(lambda: one.listen(0)) == text_of(lambda: two.listen(0, tls=False))
    assert text_of(lambda: one.add_context("a.test", **identity)) == text_of(
        lambda: two.add_context("b.test", **identity)
    )


def test_address_in_use_is_an_os_error_that_names_it(make_server):
    port = make_server().listen(0, tls=False).port
    with pytest.raises(portico.ListenError) as caught:
        make_server().listen(port, tls=False)
    assert caught.value.errno == errno.EADDRINUSE
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize(
    ("host", "number"), [("192.0.2.1", errno.EADDRNOTAVAIL), ("no-such-host.invalid", None), ("", None)]
)
def test_address_that_cannot_be_listened_on(make_server, host, number):
    with pytest.raises(portico.Error) as caught:
        make_server().listen(0, host, tls=False)
    if host:
        assert isinstance(caught.value, portico.ListenError)
        assert host in str(caught.value)
    if number:
        assert caught.value.errno == number


def test_unix_socket_where_there_is_no_folder(make_server, tmp_path):
    with pytest.raises(portico.ListenError) as caught:
        make_server().listen(unix=tmp_path / "none" / "x.sock", tls=False)
    assert caught.value.errno == errno.ENOENT
    assert str(tmp_path) in str(caught.value)


def test_failed_listen_leaves_the_server_usable(make_server):
    server, other = make_server(), make_server()
    port = other.listen(0, tls=False).port
    with pytest.raises(portico.ListenError):
        server.listen(port, tls=False)
    assert request(server.listen(0, tls=False).port).status == 200


def test_bad_request_reaches_the_hook_with_its_status(serve, caplog):
    served = serve()
    with caplog.at_level("INFO", "portico.error"), served.wire() as wire:
        assert wire.send("GET / HTTP/1.1\r\n\r\n").read().status == 400
        peer = "{}:{}".format(*wire.sock.getsockname())
        error, request = served.errors.next()
    assert type(error) is portico.RequestError
    assert (error.status, error.reason, request) == (400, "host", None)
    assert peer in str(error)
    assert str(served.clear) in str(error)
    assert str(error) in caplog.text


def test_what_peers_do_wrong_is_no_warning_in_the_log(serve, caplog):
    served = serve()
    with served.wire() as wire:
        wire.send("nonsense\r\n\r\n").read()
    with Wire(served.port) as wire:
        wire.send("nonsense\r\n\r\n").cut()
    served.errors.next(portico.RequestError)
    served.errors.next(portico.HandshakeError)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def failing(request):
    raise LookupError("handler")


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_hook_that_raises_is_harmless(serve, caplog, raised):
    told = threading.Semaphore(0)

    def on_error(exception, request):
        told.release()
        raise raised("the hook")

    served = serve(failing, on_error=on_error)
    with served.wire() as wire:
        assert wire.get().status == 500
        assert wire.send("GET / HTTP/1.1\r\n\r\n").read().status == 400
    assert told.acquire(timeout=30)
    assert told.acquire(timeout=30)
    assert served.get().status == 500
    assert "on_error raised" in caplog.text


def test_hook_that_blocks_does_not_stop_the_server(serve):
    blocked, opened = threading.Event(), threading.Event()

    def on_error(exception, request):
        blocked.set()
        opened.wait(60)

    served = serve(on_error=on_error)
    try:
        with served.wire() as wire:
            wire.send("nonsense\r\n\r\n").read()
        assert blocked.wait(30)
        for _ in range(3):
            with served.wire() as wire:
                assert wire.send("nonsense\r\n\r\n").read().status == 400
            assert served.get().status == 200
    finally:
        opened.set()


@pytest.mark.parametrize("hook", [1, "print", []])
def test_hook_that_cannot_be_called(hook):
    with pytest.raises(portico.ConfigError, match="on_error"):
        portico.Server(on_error=hook)


def test_hook_may_come_with_the_config(make_server):
    given = []
    server = make_server(failing, config={"on_error": lambda exception, request: given.append(exception)})
    assert request(server.listen(0, tls=False).port).status == 500
    assert isinstance(given[0], LookupError)
