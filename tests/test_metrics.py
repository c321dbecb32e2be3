"""`/metrics`: what Prometheus reads of a server, and that `stats()` says the same."""

import contextlib
import datetime
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

import portico
from clients import GENEROUS, Wire, request, trusting, wait_until

OPENMETRICS = "application/openmetrics-text"


def read(listener, accept=None):
    """The page, and what it says: name and labels of each sample with its value."""
    reply = request(listener.port, path="/metrics", headers={"accept": accept} if accept else {})
    assert reply.status == 200
    parse = parse_openmetrics if accept == OPENMETRICS else parse_prometheus
    families = list(parse(reply.text))
    samples = {}
    for family in families:
        assert family.type != "unknown", family
        assert family.documentation.endswith("."), family
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, f"{key} stands there twice"
            samples[key] = sample.value
    return reply, samples


class Page:
    """What one scrape has found."""

    def __init__(self, listener, accept=None):
        self.reply, self.samples = read(listener, accept)

    def value(self, name, **labels):
        return self.samples[name, frozenset(labels.items())]

    def labels(self, name):
        return [dict(labels) for known, labels in self.samples if known == name]


@pytest.fixture
def observed(make_server, issue):
    """A server for two hosts with a router, and an admin listener."""
    router = portico.Router()

    @router.get("/users/{id}")
    def user(request):
        return {"statusCode": 200, "body": request.pathParameters["id"]}

    @router.post("/upload")
    def upload(request):
        return {"statusCode": 201, "body": b"x" * 1_000}

    @router.get("/fails")
    def fails(request):
        raise RuntimeError("on purpose")

    @router.get("/slow")
    def slow(request):
        time.sleep(1)
        return {"statusCode": 204}

    server = make_server(router, compression=())
    server.add_context("one.test", **issue("one.test"))
    server.add_context("*.two.test", **issue("*.two.test"), handler=lambda request: {"statusCode": 302})
    server.admin = server.listen_admin(0)
    server.clear = server.listen(0, tls=False).port
    server.secure = server.listen(0).port
    return server


@pytest.mark.parametrize("accept", [None, "text/plain", OPENMETRICS])
def test_both_formats_are_read_by_the_parsers_of_prometheus(observed, ca_pem, accept):
    context = trusting(ca_pem)
    for path in ("/users/1", "/fails", '/nothing?"\n\\'.replace("\n", "%0a")):
        request(observed.secure, path=path, host="one.test", context=context)
    page = Page(observed.admin, accept)
    expected = "application/openmetrics-text; version=1.0.0" if accept == OPENMETRICS else "text/plain; version=0.0.4"
    assert page.reply.header("content-type") == f"{expected}; charset=utf-8"
    assert page.reply.text.endswith("# EOF\n") == (accept == OPENMETRICS)
    assert page.value("portico_up") == 1
    assert page.value("portico_build_info", version=portico.__version__) == 1
    assert page.value("portico_requests_total", version="1.1") == 3
    assert page.value("portico_handshakes_by_version_total", version="TLSv1.3") == 3


def test_promtool_has_nothing_to_say(observed, ca_pem):
    """The linter of Prometheus itself, where it is installed: names, units, types."""
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not here: it comes with Prometheus, which is too large for this")
    request(observed.secure, path="/users/1", host="one.test", context=trusting(ca_pem))
    page = Page(observed.admin)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page.reply.text, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_names_follow_the_conventions_of_prometheus(observed):
    families = list(parse_openmetrics(Page(observed.admin, OPENMETRICS).reply.text))
    for family in families:
        assert family.name.startswith(("portico_", "process_")), family.name
        assert family.type in ("counter", "gauge", "histogram")
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        words = family.name.split("_")
        assert not set(words) & {"ms", "milliseconds", "kb", "mb", "percent", "counter", "gauge", "histogram"}
        if "seconds" in words or "bytes" in words:
            assert words[-1] in ("seconds", "bytes"), f"{family.name}: the unit stands last"
    assert len({family.name for family in families}) == len(families)


def test_stats_and_metrics_say_the_same(observed, ca_pem):
    for path in ("/users/1", "/users/2", "/fails", "/nothing"):
        request(observed.secure, path=path, host="one.test", context=trusting(ca_pem))
    with Wire(observed.clear) as wire:
        wire.send("broken\r\n\r\n")
        assert wire.read().status == 400
    wait_until(lambda: observed.stats()["connections_open"] == 0, "all of them to be gone")
    page, stats = Page(observed.admin), observed.stats()
    for name, _ in portico._core.statistics():
        value = stats[name]
        by_name = {
            known: labels for known, labels in page.samples if known in (f"portico_{name}", f"portico_{name}_total")
        }
        assert len(by_name) == 1, name
        (shown,) = by_name
        if isinstance(value, dict):
            (label,) = {key for labels in page.labels(shown) for key in labels}
            assert {labels[label]: page.value(shown, **labels) for labels in page.labels(shown)} == value, name
        else:
            assert page.value(shown) == value, name
    for latency in stats["latencies"]:
        labels = {key: latency[key] for key in ("host", "route", "method", "status")}
        assert page.value("portico_request_duration_seconds_count", **labels) == latency["count"]
        assert page.value("portico_request_duration_seconds_sum", **labels) == pytest.approx(latency["seconds"])
        for bound, count in latency["buckets"].items():
            assert page.value("portico_request_duration_seconds_bucket", **labels, le=str(bound)) == count
    assert sum(latency["count"] for latency in stats["latencies"]) == sum(stats["requests_ended"].values())
    for certificate in stats["certificates"]:
        shown = page.value("portico_certificate_not_after_timestamp_seconds", host=certificate["host"])
        assert shown == certificate["not_after"]


def counts(page):
    """How many requests there were of each kind."""
    name = "portico_request_duration_seconds_count"
    kinds = ("host", "route", "method", "status")
    return {tuple(labels[kind] for kind in kinds): page.value(name, **labels) for labels in page.labels(name)}


def wait_for_requests(listener, count):
    """The page on which so many requests are over: a response is here before its end is counted."""

    def look():
        page = Page(listener)
        return page if sum(counts(page).values()) == count else None

    return wait_until(look, f"{count} requests to be counted")


def test_requests_are_counted_by_host_route_method_and_status(observed, ca_pem):
    context = trusting(ca_pem)
    for number in range(3):
        request(observed.secure, path=f"/users/{number}", host="one.test", context=context)
    request(observed.secure, "POST", "/upload", host="one.test", context=context, body=b"y" * 500)
    request(observed.secure, path="/fails", host="one.test", context=context)
    request(observed.secure, path="/nothing", host="one.test", context=context)
    for name in ("a.two.test", "b.two.test"):
        request(observed.secure, path="/any", host=name, context=context)
    request(observed.clear, "BREW", "/users/1", host="unknown.test")
    page = wait_for_requests(observed.admin, 9)
    assert counts(page) == {
        ("one.test", "/users/{id}", "GET", "2xx"): 3,
        ("one.test", "/upload", "POST", "2xx"): 1,
        ("one.test", "/fails", "GET", "5xx"): 1,
        ("one.test", "", "GET", "4xx"): 1,
        ("*.two.test", "", "GET", "3xx"): 2,
        ("", "", "other", "4xx"): 1,
    }
    assert page.value("portico_body_received_bytes_total") == 500
    assert page.value("portico_body_sent_bytes_total") >= 1_000
    assert page.value("portico_requests_ended_total", outcome="whole") == 9


class Counting:
    """A client that speaks TLS on a socket by itself, and counts what goes over it."""

    def __init__(self, port, context):
        self.sock = socket.create_connection(("127.0.0.1", port), GENEROUS)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="one.test")
        self.sent = self.received = 0

    def _send(self):
        self.sent += self.outgoing.pending
        self.sock.sendall(self.outgoing.read())

    def until(self, done):
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                if (result := done()) is not None:
                    self._send()
                    return result
            self._send()
            data = self.sock.recv(65536)
            assert data
            self.received += len(data)
            self.incoming.write(data)


def network(page):
    return [page.value(f"portico_network_{way}_bytes_total") for way in ("received", "sent")]


def test_bytes_on_the_wire_without_tls(observed):
    sent = "GET /users/1 HTTP/1.1\r\nHost: a\r\n\r\n"
    with Wire(observed.clear) as wire:
        wire.send(sent)
        head = b"".join(iter(wire.file.readline, b"\r\n"))
        assert wire.file.read(1) == b"1"
        # Of a connection that goes on, too.
        assert network(Page(observed.admin)) == [len(sent), len(head) + 3]


def test_bytes_on_the_wire_with_tls(observed, ca_pem):
    client = Counting(observed.secure, trusting(ca_pem))
    with contextlib.closing(client.sock):
        client.until(lambda: client.tls.do_handshake() or True)
        client.tls.write(b"GET /users/1 HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n")
        answer = bytearray()
        client.until(lambda: answer.extend(client.tls.read()) or (True if answer.endswith(b"\r\n\r\n1") else None))
        with contextlib.suppress(ssl.SSLZeroReturnError):
            client.until(lambda: client.tls.read() or True)
        wait_until(lambda: observed.stats()["connections_open"] == 0, "it to be gone")
        assert network(Page(observed.admin)) == [client.sent, client.received]
        assert client.sent > 300
        assert client.received > 700, "its certificate is among them"


def test_how_long_requests_took(observed):
    request(observed.clear, path="/slow")
    request(observed.clear, path="/users/1")
    page = wait_for_requests(observed.admin, 2)
    slow = {"host": "", "route": "/slow", "method": "GET", "status": "2xx"}
    bucket = "portico_request_duration_seconds_bucket"
    assert page.value(bucket, **slow, le="0.1") == 0
    assert page.value(bucket, **slow, le="10.0") == page.value(bucket, **slow, le="+Inf") == 1
    assert 1 <= page.value("portico_request_duration_seconds_sum", **slow) < 10
    fast = {**slow, "route": "/users/{id}"}
    assert page.value("portico_request_duration_seconds_sum", **fast) < 1
    for labels in (slow, fast):
        bounds = [float(found["le"]) for found in page.labels(bucket) if found["route"] == labels["route"]]
        added_up = [page.value(bucket, **labels, le=str(bound).replace("inf", "+Inf")) for bound in sorted(bounds)]
        assert added_up == sorted(added_up)
        assert len(bounds) == 16


def test_strangers_make_no_series(observed, ca_pem):
    """Hosts, paths, methods and statuses that a client makes up are no labels."""
    with Wire(observed.clear) as wire:
        for number in range(300):
            wire.send(f"M{number} /made/up/{number} HTTP/1.1\r\nHost: h{number}.test\r\nContent-Length: 0\r\n\r\n")
            assert wire.read().status == 404
    for number in range(20):
        with contextlib.suppress(ssl.SSLError):
            request(observed.secure, path="/", host=f"h{number}.test", context=trusting(ca_pem))
    page = wait_for_requests(observed.admin, 300)
    assert counts(page) == {("", "", "other", "4xx"): 300}
    assert page.value("portico_handshakes_failed_total", reason="unknown_name") == 20


def test_many_routes_are_no_more_series_than_allowed(make_server):
    router = portico.Router()
    for number in range(10_000):
        router.add_route("GET", f"/{number}", lambda request: {"statusCode": 200})
    server = make_server(router, max_metric_series=50, dispatch="inline")
    admin, port = server.listen_admin(0), server.listen(0, tls=False).port
    with Wire(port) as wire:
        for start in range(0, 10_000, 50):
            paths = range(start, start + 50)
            wire.send("".join(f"GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n" for number in paths))
            assert all(wire.read().status == 200 for _ in paths)
    page = wait_for_requests(admin, 10_000)
    found = counts(page)
    assert len(found) == 51
    assert found["other", "other", "GET", "2xx"] == 10_000 - 50
    assert found["", "/0", "GET", "2xx"] == 1
    assert len(page.reply.body) < 200_000


def test_how_requests_end(make_server):
    gate, seen = threading.Event(), threading.Event()

    def handler(request):
        if request.path == "/breaks":
            return {"statusCode": 200, "body": breaks()}
        gate.wait(GENEROUS)
        return {"statusCode": 200}

    def breaks():
        yield b"a"
        assert seen.wait(GENEROUS)
        raise RuntimeError("on purpose")

    server = make_server(handler, max_in_flight=1)
    admin, port = server.listen_admin(0), server.listen(0, tls=False).port

    def ended(outcome):
        return Page(admin).value("portico_requests_ended_total", outcome=outcome)

    with Wire(port) as wire:
        wire.send("GET /breaks HTTP/1.1\r\nHost: a\r\n\r\n").file.readline()
        seen.set()
        wire.cut()
    wait_until(lambda: ended("handler") == 1, "the body that breaks off")
    with Wire(port) as wire:
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: server.stats()["requests_in_flight"] == 1, "the request")
        assert request(port).status == 503
        wait_until(lambda: ended("refused") == 1, "the refusal")
        gate.set()
        assert wire.read().status == 200
    wait_until(lambda: ended("whole") == 1, "the end of the request")


def test_connections_by_what_they_are_about(make_server, issue, ca_pem):
    gate = threading.Event()
    server = make_server(lambda request: gate.wait(GENEROUS) and {"statusCode": 200})
    server.add_context("localhost", **issue("localhost"))
    admin, clear, secure = server.listen_admin(0), server.listen(0, tls=False).port, server.listen(0).port
    echo = server.listen(0, stream=lambda conn: conn.read(1), tls=False).port

    def states():
        name = "portico_connections_by_state"
        page = Page(admin)
        return {
            labels["state"]: page.value(name, **labels) for labels in page.labels(name) if page.value(name, **labels)
        }

    with contextlib.ExitStack() as stack:
        busy, _idle, _shaking, _stream = (stack.enter_context(Wire(port)) for port in (clear, clear, secure, echo))
        http2 = stack.enter_context(Wire(secure, context=trusting(ca_pem, alpn=["h2"])))
        http2.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        # Whoever has sent nothing on a port for both may yet begin with HTTP/2: it is not settled which it speaks.
        expected = {"handshake": 1, "http1": 2, "http2": 1, "stream": 1}
        wait_until(lambda: states() == expected, "each in its state")
        gate.set()
        assert busy.read().status == 200
        expected |= {"http1": 1, "http1_idle": 1}
        wait_until(lambda: states() == expected, "the busy one to be idle")
    wait_until(lambda: states() == {}, "all to be gone")


@pytest.mark.parametrize("dispatch", ["inline", "threads", "asyncio"])
def test_where_handlers_run(make_server, dispatch):
    async def on_a_loop(request):
        return {"statusCode": 200}

    def on_a_thread(request):
        return {"statusCode": 200}

    handler = on_a_loop if dispatch == "asyncio" else on_a_thread
    server = make_server(handler, dispatch="auto" if dispatch == "asyncio" else dispatch)
    admin, port = server.listen_admin(0), server.listen(0, tls=False).port
    with Wire(port) as wire:
        for _ in range(10):
            assert wire.get().status == 200
    page = Page(admin)
    calls = {
        labels["runs"]: page.value("portico_handler_calls_total", **labels)
        for labels in page.labels("portico_handler_calls_total")
    }
    assert calls == {"inline": 0, "threads": 0, "stream_threads": 0, "asyncio": 0, dispatch: 10}
    assert page.value("portico_pool_calls_total", pool="handlers") == calls["threads"]


def test_what_waits_for_a_thread(make_server):
    gate, calls = threading.Event(), threading.Semaphore(0)

    def handler(request):
        calls.release()
        gate.wait(GENEROUS)
        return {"statusCode": 200}

    server = make_server(handler, dispatch="threads", threads=(1, 2))
    admin, port = server.listen_admin(0), server.listen(0, tls=False).port
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(port)) for _ in range(5)]
        for wire in wires:
            wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(2):
            assert calls.acquire(timeout=GENEROUS)
        wait_until(lambda: Page(admin).value("portico_pool_queue", pool="handlers") == 3, "three to wait")
        threading.Event().wait(0.1)
        page = Page(admin)
        assert page.value("portico_pool_threads", pool="handlers") == 2
        assert page.value("portico_pool_threads_idle", pool="handlers") == 0
        gate.set()
        assert all(wire.read().status == 200 for wire in wires)
    page = Page(admin)
    assert page.value("portico_pool_queue", pool="handlers") == 0
    assert page.value("portico_pool_calls_total", pool="handlers") == 5
    assert page.value("portico_pool_wait_seconds_total", pool="handlers") > 3 * 0.1


def test_the_process(make_server):
    admin = make_server().listen_admin(0)
    page, process = Page(admin), psutil.Process()
    assert page.value("process_start_time_seconds") == pytest.approx(process.create_time(), abs=2)
    assert page.value("process_resident_memory_bytes") == pytest.approx(process.memory_info().rss, rel=0.2)
    assert page.value("process_open_fds") == pytest.approx(process.num_fds(), abs=3)
    assert page.value("process_max_fds") == process.rlimit(psutil.RLIMIT_NOFILE)[0]
    assert page.value("process_threads") == pytest.approx(process.num_threads(), abs=2)
    before = page.value("process_cpu_seconds_total")
    assert before == pytest.approx(sum(os.times()[:2]), abs=1)
    sum(range(10_000_000))
    assert Page(admin).value("process_cpu_seconds_total") > before


def test_of_several_certificates_of_a_host_the_one_that_ends_first(make_server, issue):
    server = make_server()
    now = datetime.datetime.now(datetime.timezone.utc)
    ends = [now + datetime.timedelta(days=days) for days in (90, 30)]
    for end in ends:
        server.add_context("localhost", **issue("localhost", not_after=end))
    server.add_context(None, **issue("other.test"))
    page = Page(server.listen_admin(0))
    name = "portico_certificate_not_after_timestamp_seconds"
    assert page.value(name, host="localhost") == pytest.approx(ends[1].timestamp(), abs=2)
    assert page.value(name, host="") > now.timestamp()


def test_a_scrape_under_load_loses_nothing(make_server):
    """Counting goes on in all threads while somebody reads; in the end every request is there."""
    server = make_server(dispatch="inline", io_threads=4)
    admin, port = server.listen_admin(0), server.listen(0, tls=False).port
    done, lines = threading.Event(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 50

    def load():
        with Wire(port) as wire:
            for _ in range(40):
                wire.send(lines)
                assert all(wire.read().status == 200 for _ in range(50))

    def scrape():
        last = 0
        while not done.is_set():
            now = sum(counts(Page(admin)).values())
            assert now >= last
            last = now

    failures = []

    def guarded(body):
        try:
            body()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(load,)) for _ in range(4)]
    reader = threading.Thread(target=guarded, args=(scrape,))
    for thread in [*threads, reader]:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
    done.set()
    reader.join(GENEROUS)
    assert not failures
    wait_for_requests(admin, 4 * 40 * 50)
    assert server.stats()["requests"]["1.1"] == 4 * 40 * 50
