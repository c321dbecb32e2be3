"""Ids of requests, and `traceparent`: what handlers, logs and clients see of them."""

from __future__ import annotations

import json
import logging
import re

import pytest

import portico
from clients import wait_until

NEW = re.compile(r"[0-9a-f]{32}")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def tell(request):
    return {"statusCode": 200, "body": json.dumps([request.id, request.traceparent])}


@pytest.fixture(params=[False, True], ids=["HTTP/1.1", "HTTP/2"])
def http2(request):
    return request.param


def test_there_are_none_without_the_setting(serve, http2):
    with serve(tell).httpx(http2=http2) as client:
        reply = client.get("/", headers={"x-request-id": "mine"})
    assert reply.json() == [None, None]
    assert "x-request-id" not in reply.headers


def test_each_request_has_one(serve, http2):
    served = serve(tell, request_id_header="X-Request-Id")
    with served.httpx(http2=http2) as client:
        replies = [client.get("/") for _ in range(3)]
    ids = {reply.json()[0] for reply in replies}
    assert len(ids) == 3
    assert all(NEW.fullmatch(one) for one in ids)
    assert ids == {reply.headers["x-request-id"] for reply in replies}


@pytest.mark.parametrize(
    "given", ["a", "a" * 128, "0b1f7f2e-77a3-4d3b-8a6e-7c6f53a1a111", "Root=1-67891233-abcdef01;Parent=53995c3f"]
)
def test_that_of_the_client_is_taken(serve, http2, given):
    with serve(tell, request_id_header="x-request-id").httpx(http2=http2) as client:
        reply = client.get("/", headers={"X-Request-ID": given})
    assert reply.json()[0] == reply.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", 'a"b', "<script>", "a,b", "é"])
def test_one_that_is_no_id_is_replaced(serve, http2, given):
    with serve(tell, request_id_header="x-request-id").httpx(http2=http2) as client:
        reply = client.get("/", headers={"x-request-id": given.encode()})
    assert NEW.fullmatch(reply.json()[0])
    assert reply.headers["x-request-id"] == reply.json()[0]


@pytest.mark.parametrize(("proxy", "taken"), [("127.0.0.1", True), ("10.9.9.9", False)])
def test_where_there_are_proxies_only_they_give_one(serve, http2, proxy, taken):
    served = serve(tell, request_id_header="x-request-id", trusted_proxies=[proxy], max_request_read_bytes=10)
    with served.httpx(http2=http2) as client:
        given = {"x-request-id": "given"}
        assert (client.get("/", headers=given).headers["x-request-id"] == "given") is taken
        assert (client.post("/", content=b"x" * 20, headers=given).headers["x-request-id"] == "given") is taken


def test_a_handler_may_say_another_one(serve, http2):
    def handler(request):
        return {"statusCode": 200, "headers": {"X-Request-Id": "its own"}}

    with serve(handler, request_id_header="x-request-id").httpx(http2=http2) as client:
        assert client.get("/").headers.get_list("x-request-id") == ["its own"]


def test_refusals_have_one_too(serve, http2):
    served = serve(tell, request_id_header="x-request-id", max_request_read_bytes=10)
    with served.httpx(http2=http2) as client:
        reply = client.post("/", content=b"x" * 20, headers={"x-request-id": "mine"})
    assert (reply.status_code, reply.headers["x-request-id"]) == (413, "mine")
    with served.wire() as wire:
        assert NEW.fullmatch(wire.send("GET / HTTP/1.1\r\n\r\n").read().header("x-request-id"))


def test_logs_name_it(serve, http2, tmp_path, caplog):
    path = tmp_path / "access.log"

    def handler(request):
        raise RuntimeError("no")

    served = serve(
        handler,
        request_id_header="x-request-id",
        access_log=path,
        access_log_format="json",
        max_request_read_bytes=10,
    )
    with caplog.at_level(logging.INFO, "portico.error"), served.httpx(http2=http2) as client:
        client.get("/", headers={"x-request-id": "first", "traceparent": TRACE})
        client.post("/", content=b"x" * 20, headers={"x-request-id": "second"})
        wait_until(lambda: len(caplog.records) == 2, "two records")
    failed, refused = caplog.records
    assert re.search(
        r"handler for GET https://localhost:\d+/ raised \(from 127\.0\.0\.1:\d+, request id first\)",
        failed.getMessage(),
    )
    assert (failed.request_id, failed.traceparent) == ("first", TRACE)
    assert re.search(
        r"from 127\.0\.0\.1:\d+ for host \"localhost\" on 127\.0\.0\.1:\d+, request id second$", refused.getMessage()
    )
    wait_until(lambda: path.read_text().count("\n") == 2, "two lines")
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert (first["request_id"], second["request_id"]) == ("first", "second")
    assert (first["trace_id"], first["parent_id"]) == (TRACE[3:35], TRACE[36:52])
    assert "trace_id" not in second


def test_a_body_that_is_refused_behind_its_handler_is_named(serve, http2, caplog):
    def handler(request):
        return {"statusCode": 200, "body": str(len(b"".join(request.stream())))}

    handler.stream_body = True
    served = serve(handler, request_id_header="x-request-id", max_request_read_bytes=100_000)
    with caplog.at_level(logging.INFO, "portico.error"), served.httpx(http2=http2) as client:
        pieces = (b"x" * 10_000 for _ in range(12))
        assert client.post("/", content=pieces, headers={"x-request-id": "mine"}).status_code == 413

        def told():
            texts = [record.getMessage() for record in caplog.records]
            return [text for text in texts if "max_request_read_bytes" in text]

        wait_until(told, "the refusal to be logged")
    assert all("request id mine" in text for text in told()), told()


def test_traceparent_is_checked(serve, http2):
    with serve(tell).httpx(http2=http2) as client:
        assert client.get("/", headers={"traceparent": TRACE}).json() == [None, TRACE]
        assert client.get("/", headers={"traceparent": TRACE.upper()}).json() == [None, None]
        twice = [("traceparent", TRACE), ("traceparent", TRACE)]
        assert client.get("/", headers=twice).json() == [None, None]


@pytest.mark.parametrize("name", ["", "x request", "content-length", "Host", 3])
def test_names_that_are_none(name):
    with pytest.raises(portico.ConfigError, match="setting request_id_header: expected the name of a header"):
        portico.Server(request_id_header=name)
