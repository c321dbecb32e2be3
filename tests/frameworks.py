"""What every web framework has to be able to do on portico, whichever it is.

A test file has a site with these paths, made of its framework, and a class of `Checks` with it. `Told` is how the site and
the test talk to each other past HTTP.

/greet/{name}?q=    JSON of both                /bad      raises ZeroDivisionError
/form               JSON of the form            /half     raises it after a first piece
/upload             JSON of the file            /count    JSON of how often this session was here
/echo               the body                    /moved    redirects to /greet/moved
/large              LARGE                       /cookies  sets `one` and `two`
/steps              three pieces, one at a time /endless  pieces until the client leaves
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import threading
import time

import h2.events
import httpx
import pytest

from clients import GENEROUS, wait_until
from frames import H2

LARGE = bytes(range(256)) * 4096 * 5
PROTOCOLS = pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])


class Told:
    """What a site tells its test, and the other way round."""

    def __init__(self):
        self.steps, self.left, self.ran = threading.Semaphore(0), threading.Event(), threading.Event()

    async def asteps(self):
        for number in range(3):
            yield f"data: {number}\n\n"
            while not self.steps.acquire(blocking=False):  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    def make_steps(self):
        for number in range(3):
            yield f"data: {number}\n\n"
            assert self.steps.acquire(timeout=GENEROUS)

    async def aendless(self):
        try:
            while True:
                yield b"x" * 1_000
                await asyncio.sleep(0.001)
        finally:
            self.left.set()

    def endless(self):
        try:
            while True:
                yield b"x" * 1_000
                time.sleep(0.001)
        finally:
            self.left.set()

    async def ahalf(self):
        yield b"half"
        while not self.steps.acquire(blocking=False):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        raise ZeroDivisionError("on purpose")

    def half(self):
        yield b"half"
        assert self.steps.acquire(timeout=GENEROUS)
        raise ZeroDivisionError("on purpose")


def of_file(name, content):
    """What `/upload` answers."""
    return {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


class Checks:
    """The tests that each framework has to pass. A subclass has the fixture `site`, a handler, and `told` beside it."""

    @pytest.fixture
    def told(self):
        return Told()

    @pytest.fixture
    def served(self, serve, site):
        return serve(site)

    @pytest.fixture(params=[False, True], ids=["h1", "h2"])
    def client(self, served, request):
        with served.httpx(http2=request.param) as client:
            yield client

    def test_routes(self, client):
        answer = client.get("/greet/J%C3%BCrgen%20B", params={"q": "a b&\u00e9"})
        assert answer.json() == {"name": "J\u00fcrgen B", "q": "a b&\u00e9"}
        assert client.get("/nowhere").status_code == 404
        assert client.delete("/greet/x").status_code == 405

    def test_forms(self, client):
        assert client.post("/form", data={"a": "1 2", "b": "\u00e9&"}).json() == {"a": "1 2", "b": "\u00e9&"}

    def test_uploads(self, client):
        answer = client.post("/upload", files={"file": ("caf\u00e9.bin", LARGE)}, data={"note": "hi"})
        assert answer.json() == {**of_file("caf\u00e9.bin", LARGE), "note": "hi"}

    def test_large_bodies_both_ways(self, client):
        assert client.post("/echo", content=LARGE).content == LARGE
        assert client.get("/large").content == LARGE

    def test_a_body_in_chunks(self, client):
        assert client.post("/echo", content=iter([b"one ", b"", b"two"])).content == b"one two"

    def test_head(self, client):
        # Compressed, its length is not known before it is sent.
        answer = client.head("/large", headers={"accept-encoding": "identity"})
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", str(len(LARGE)))
        assert client.get("/greet/x").status_code == 200

    def test_pieces_arrive_when_they_are_made(self, client, told):
        with client.stream("GET", "/steps") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            pieces = answer.iter_text()
            for number in range(3):
                assert next(pieces) == f"data: {number}\n\n"
                told.steps.release()
            assert "".join(pieces) == ""

    @PROTOCOLS
    def test_a_client_that_leaves_ends_its_stream(self, served, told, http2):
        if http2:
            with served.tls_wire(alpn=["h2"]) as wire:
                client = H2(wire)
                assert client.wait_for(h2.events.DataReceived, client.open(path="/endless"))
        else:
            with served.tls_wire() as wire:
                wire.send("GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert wire.file.read(2_000)
        # Django may leave its view's generator in a cycle with the exception that ended it.
        wait_until(lambda: gc.collect() >= 0 and told.left.is_set(), "the stream to end")
        assert served.get("/greet/x").status == 200

    def test_an_error_costs_its_request_alone(self, client, caplog):
        assert [client.get(path).status_code for path in ("/greet/x", "/bad", "/greet/x")] == [200, 500, 200]
        # Whoever logs it: the framework, where it answers it by itself, else portico.
        wait_until(lambda: "ZeroDivisionError: on purpose" in caplog.text, "a traceback in the log")

    def test_an_error_in_the_middle_is_seen(self, client, told):
        with client.stream("GET", "/half") as answer:
            assert answer.status_code == 200
            told.steps.release()
            with pytest.raises(httpx.RemoteProtocolError):
                answer.read()
        assert client.get("/greet/x").status_code == 200

    def test_sessions(self, client, served):
        assert [client.get("/count").json() for _ in range(3)] == [1, 2, 3]
        with served.httpx() as other:
            assert other.get("/count").json() == 1

    def test_cookies(self, client):
        answer = client.get("/cookies")
        assert len(answer.headers.get_list("set-cookie")) == 2
        assert dict(client.cookies) == {"one": "1", "two": "2"}

    def test_redirects(self, client, served):
        answer = client.get("/moved")
        assert answer.is_redirect
        followed = client.get("/moved", follow_redirects=True, headers={"host": f"localhost:{served.port}"})
        assert followed.json()["name"] == "moved"
