"""The records that `trace=` is given: what they are, how they are printed, how tests wait for them."""

from __future__ import annotations

import json
import re

import pytest

import portico
import sockets
from clients import Wire, wait_until


def test_records_are_lines_and_dicts(traced):
    served = traced()
    with served.wire() as wire:
        wire.get("/a%20b")
    served.trace.wait("closed")
    for record in served.trace.records:
        line = str(record)
        assert re.match(r"\d\d:\d\d:\d\d\.\d{6}  #1(\.1)? +\d+\.\d{3} ms  \w+", line), line
        assert line.index("ms  ") == str(served.trace.records[0]).index("ms  "), "columns"
        assert json.loads(json.dumps(record.as_dict())) == record.as_dict()
        assert record.as_dict().items() >= record.details.items()
        with pytest.raises(AttributeError):
            record.event = "other"
    assert "target=/a%20b version=HTTP/1.1" in str(served.trace)


def test_every_event_is_documented_and_said_with_its_details(traced, h2_of):
    documented = {name: {detail for detail, _ in details} for name, _, details in portico._core.trace_events()}
    served = traced()
    with served.tls_wire() as wire:
        wire.get()
    h2_of(served).open()
    served.trace.wait("request_ended", count=2)
    for record in served.trace.records:
        assert record.details.keys() == documented[record.event]


def test_peers_cannot_write_lines_of_their_own(traced):
    served = traced()
    with served.wire() as wire:
        wire.send("GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n").read()
        wire.cut()
    served.trace.wait("closed")
    with served.wire() as wire:
        assert wire.get("/" + "x" * 60_000).status == 200
    served.trace.wait("closed", count=2)
    for line in str(served.trace).split("\n"):
        assert re.match(r"\d\d:\d\d:\d\d\.\d{6}  #\d", line), line
        assert line.isprintable()
        assert len(line) < 700, "long targets are cut"


def test_print_trace(make_server, capsys):
    with portico.Server(lambda request: {"statusCode": 204}, trace=portico.print_trace) as server:
        port = server.listen(0, tls=False).port
        with Wire(port) as wire:
            wire.get()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.search(r"#1\.1 +\d+\.\d+ ms  response +status=204", printed.err)


@pytest.mark.parametrize("wrong", [1, "print", sockets.echo_async])
def test_what_cannot_be_called(wrong):
    with pytest.raises(portico.ConfigError, match="trace: a `def` function of a TraceRecord, not"):
        portico.Server(trace=wrong)
    with pytest.raises(portico.ConfigError, match="trace"):
        portico.Server(config={"trace": wrong})


def test_waiting_in_vain_says_what_came(traced):
    served = traced()
    with served.wire() as wire:
        wire.get()
    served.trace.wait("closed")
    with pytest.raises(AssertionError, match=r"(?s)0 of 1 records of 'goaway' came within 0\.01 s.*accepted.*closed"):
        served.trace.wait("goaway", timeout=0.01)


def test_connections_from_before_are_numbered_as_requests_see_them(traced):
    numbers = []
    served = traced(lambda request: numbers.append(request.connection.id) or {"statusCode": 204})
    for _ in range(3):
        served.get()
    served.trace.wait("closed", count=3)
    wait_until(lambda: len(numbers) == 3)
    assert [record.connection for record in served.trace.find("request")] == numbers
