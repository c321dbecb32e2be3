"""The traces in docs/tracing.md are what a server tells, but for times and ports."""

from __future__ import annotations

import re
from pathlib import Path

import h2.errors
import h2.events
import pytest

import portico
import portico.testing
from clients import request
from demos import Demo
from frames import H2
from programs import Program

PAGE = Path(__file__).parents[1] / "docs/tracing.md"


def hello(request):
    return {"statusCode": 200, "body": f"hello {request.path}"}


def http1(served, trace):
    with served.tls_wire(alpn=["http/1.1"]) as wire:
        wire.get("/first")
        wire.send("POST /second HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
        trace.wait("body_begun")
        wire.send("12345").read()
        wire.sock.unwrap()
        trace.wait("closed")


def http2(served, trace):
    with served.tls_wire(alpn=["h2"]) as wire:
        client = H2(wire)
        client.wait_for(h2.events.StreamEnded, client.open(path="/first"))
        stream = client.open(path="/second", method="POST", end=False)
        trace.wait("body_begun", stream=stream)
        client.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        client.flush()
        trace.wait("request_ended", stream=stream)
        client.connection.close_connection()
        client.flush()
        trace.wait("closed")


def masked(text):
    """Without what is another each time; columns stay."""
    text = re.sub(r"^\d\d:\d\d:\d\d\.\d{6}", "time", text, flags=re.M)
    text = re.sub(r" +\d+\.\d{3} ms", " elapsed", text)
    text = re.sub(r"(waited|took)=[\d.]+", r"\1=seconds", text)
    text = re.sub(r"(cipher|group)=\S+", r"\1=agreed", text)
    return re.sub(r"127\.0\.0\.1:\d+", "address", text)


@pytest.mark.parametrize("client", [http1, http2])
def test_traces_of_the_page(serve, client):
    trace = portico.testing.Trace()
    served = serve(hello, trace=trace, dispatch="threads")
    client(served, trace)
    (shown,) = re.findall(rf"<!-- trace {client.__name__} -->\n```\n(.*?)\n?```", PAGE.read_text(), re.S)
    assert masked(str(trace)) == masked(shown), f"the page is to show\n{trace}"


# ---- the commands


def test_portico_serve_prints_a_trace(tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    serving = Program("-m", "portico", "serve", tmp_path, "--listen", "http://0", "--trace")
    try:
        port = int(serving.wait_for(r"^  http://[^ ]+:(\d+)/$")[1])
        assert request(port, path="/a.txt").body == b"abc"
        serving.wait_for(r"#1\.1 .* request +method=GET target=/a\.txt version=HTTP/1\.1")
        serving.wait_for(r"#1 .* closed +why=client")
    finally:
        serving.close()


def test_portico_demo_prints_a_trace(tmp_path):
    demo = Demo(tmp_path, "--port", "0", "--trace")
    try:
        assert demo.ask("a.localhost").status == 200
        demo.wait_for(r"#1 .* handshake_done +sni=a\.localhost host=a\.localhost")
        demo.wait_for(r"#1 .* closed")
    finally:
        demo.close()
