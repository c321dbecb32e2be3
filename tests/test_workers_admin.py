"""One admin listener for all workers: their metrics and probes, put together by the supervisor."""

import functools
import os
import re
import signal
import socket
import tempfile
import threading
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

import portico
import worker_mains
from clients import GENEROUS, ports_in_a_row, refuses, request, trusting, wait_until
from programs import children, hold

CLEAR = {"port": 0, "tls": False}
TOKEN = "a-token-of-the-tests"


@pytest.fixture
def run():
    """Starts workers that are closed at the end of the test, and then have left nothing behind."""
    before, threads, made = children(), set(threading.enumerate()), []

    def run(admin=0, main=worker_mains.serve, workers=2):
        made.append(portico.Workers(main, workers=workers, listen=CLEAR, admin=admin))
        made[-1].start()
        return made[-1]

    yield run
    for workers in made:
        workers.close(grace=0)
        assert not workers._admin._folder or not os.path.exists(workers._admin._folder)
    assert children() <= before
    wait_until(lambda: set(threading.enumerate()) <= threads, "threads to end")


def port_of(workers):
    return int(workers.admin_url.rpartition(":")[2])


def look(workers, path="/metrics", **headers):
    return request(port_of(workers), path=path, headers=headers)


def wait_for_reply(workers, path, status, text):
    """Not at once: on a busy machine one that is well may not answer in time."""

    def said():
        reply = look(workers, path)
        return (reply.status, reply.text) == (status, text)

    wait_until(said, f"{status} at {path}: {text!r}")


def wait_for_workers(workers, *names, **headers):
    """Until those have answered in time, and nobody else."""
    wait_until(lambda: set(samples(workers, "portico_up", **headers)) == set(names), f"samples of {names}")


def dashboards(workers):
    """The process that each of them shows."""
    ports = [int(url.rpartition(":")[2]) for url in workers.dashboard_urls]
    return [request(port, path="/snapshot.json").json()["process"]["id"] for port in ports]


def samples(workers, name, **headers):
    """The values of a metric by worker."""
    families = parse_prometheus(look(workers, **headers).text)
    found = [sample for family in families for sample in family.samples if sample.name == name]
    return {sample.labels.get("worker"): sample.value for sample in found}


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_each_worker_has_its_samples_on_one_page(run, accept):
    workers = run()
    for _ in range(20):
        request(workers.ports[0])
    name = "portico_connections_accepted_total"
    wait_until(lambda: sum(samples(workers, name).values()) == 20, "all of them to be counted")
    wait_for_workers(workers, "0", "1")
    parse = parse_openmetrics if "open" in accept else parse_prometheus
    families = list(parse(look(workers, accept=accept).text))
    assert len({family.name for family in families}) == len(families), "each family stands there once"
    assert all(family.type != "unknown" for family in families)
    assert samples(workers, "portico_workers") == {None: 2}
    wait_until(lambda: samples(workers, "portico_sessions_made_total") == {"0": 0, "1": 0}, "both to tell")
    wait_until(lambda: set(samples(workers, "process_resident_memory_bytes")) == {None, "0", "1"}, "all three to tell")


def test_probes_speak_for_all(run):
    workers = run()
    for probe, word in (("startup", "started"), ("readiness", "ready"), ("liveness", "alive")):
        wait_for_reply(workers, f"/probe/{probe}", 200, f"worker 0: {word}\nworker 1: {word}\n")
    # One that does not answer takes no part of the other's work, but is no living one either.
    hold(workers.pids[0])
    try:
        wait_for_reply(workers, "/probe/liveness", 503, "worker 0: no answer within 800ms\nworker 1: alive\n")
        wait_for_reply(workers, "/probe/readiness", 200, "worker 0: no answer within 800ms\nworker 1: ready\n")
        wait_for_workers(workers, "1")
    finally:
        os.kill(workers.pids[0], signal.SIGCONT)
    wait_until(lambda: look(workers, "/probe/liveness").status == 200, "the worker to go on")


def test_workers_come_and_go(run):
    workers = run()
    os.kill(workers.pids[1], signal.SIGKILL)
    wait_until(lambda: samples(workers, "portico_workers_ended_total") == {None: 1}, "the death to be counted")
    wait_for_workers(workers, "0", "1")
    assert len(os.listdir(workers._admin._folder)) == 2, "no socket's file is left behind"
    before = set(workers.pids)
    workers.reload()
    assert not before & set(workers.pids)
    wait_for_workers(workers, "0", "1")
    assert samples(workers, "portico_workers_ended_total") == {None: 3}


def test_a_reload_that_fails_leaves_the_metrics_of_those_that_go_on(run):
    workers = run()
    main = functools.partial(worker_mains.serve_first_alone, admins=workers._admin._folder)
    with pytest.raises(portico.WorkerError, match="worker 1 is not to serve"):
        workers.reload(0, 0, main=main)
    wait_until(lambda: samples(workers, "portico_workers_ended_total") == {None: 2}, "the new ones to end")
    wait_for_workers(workers, "0", "1")
    wait_for_reply(workers, "/probe/liveness", 200, "worker 0: alive\nworker 1: alive\n")


def test_each_worker_has_its_dashboard_at_an_address_of_its_own(run):
    port = ports_in_a_row(3)
    workers = run(port)
    assert workers.admin_url == f"http://127.0.0.1:{port}"
    assert workers.dashboard_urls == [f"http://127.0.0.1:{port + 1}", f"http://127.0.0.1:{port + 2}"]
    assert dashboards(workers) == workers.pids
    found = re.findall(r'<a href="//[^:"/]+:(\d+)/">worker (\d)</a>', look(workers, "/").text)
    assert found == [(str(port + 1), "0"), (str(port + 2), "1")], "the address leads to them"
    os.kill(workers.pids[1], signal.SIGKILL)
    wait_until(lambda: samples(workers, "portico_workers_ended_total") == {None: 1}, "the death to be counted")
    wait_for_workers(workers, "0", "1")
    assert dashboards(workers) == workers.pids
    workers.reload()
    assert dashboards(workers) == workers.pids, "nothing of the old ones answers"


def test_one_worker_has_everything_at_the_address(run):
    workers = run(workers=1)
    assert workers.dashboard_urls == [workers.admin_url]
    assert dashboards(workers) == workers.pids
    assert look(workers, "/probe/readiness").text == "ready\n"
    wait_for_workers(workers, None)


def test_a_reload_changes_how_many_there_are_and_where_they_are_looked_at(run):
    workers = run(workers=1)
    port = port_of(workers)
    for count, labels in ((2, {"0", "1"}), (1, {None}), (3, {"0", "1", "2"})):
        workers.reload(workers=count)
        assert port_of(workers) == port
        wait_for_workers(workers, *labels)
        assert dashboards(workers) == workers.pids
    other = ports_in_a_row(4)
    workers.reload(admin={"port": other, "token": TOKEN})
    assert (port_of(workers), refuses(port)) == (other, True)
    assert look(workers).status == 401
    wait_for_workers(workers, "0", "1", "2", authorization=f"Bearer {TOKEN}")
    port = port_of(workers)
    workers.reload(admin=False)
    assert (workers.admin_url, workers.dashboard_urls, refuses(port)) == (None, [], True)
    workers.reload(admin=0)
    wait_for_workers(workers, "0", "1", "2")


def test_a_worker_is_replaced_whatever_became_of_its_socket(run):
    workers = run()
    for name in os.listdir(workers._admin._folder):
        path = os.path.join(workers._admin._folder, name)
        os.unlink(path)
        os.mkdir(path)
    os.kill(workers.pids[1], signal.SIGKILL)
    wait_until(lambda: samples(workers, "portico_workers_ended_total") == {None: 1}, "the death to be counted")
    wait_until(lambda: set(samples(workers, "portico_up")) == {"1"}, "its successor to be looked at")


def test_one_worker_wants_no_folder_for_sockets(run, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    workers = run(workers=1)
    wait_for_workers(workers, None)
    with pytest.raises(portico.ConfigError, match=r"wants a folder for sockets, and none can be made: .*TMPDIR"):
        workers.reload(workers=2)
    with pytest.raises(portico.ConfigError, match="wants a folder for sockets"):
        run(workers=2)
    assert dashboards(workers) == workers.pids
    workers.reload()
    assert dashboards(workers) == workers.pids


def test_sockets_are_in_the_folder_of_the_service(run, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("RUNTIME_DIRECTORY", f"{folder}:/nowhere")
        monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
        workers = run()
        wait_for_workers(workers, "0", "1")
        assert len(list(Path(folder).glob("*/*"))) == 2
        workers.close(0)
        assert os.listdir(folder) == []
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(portico.ListenError, match="in use"):
            run(taken.getsockname()[1])
        assert os.listdir(folder) == [], "nor by those that never came to serve"


def test_the_death_of_one_worker_alone_is_counted_for_several(run):
    workers = run(workers=1)
    os.kill(workers.pids[0], signal.SIGKILL)
    wait_until(lambda: workers.restarts == 1 and workers.pids and not refuses(workers.ports[0]), "another one")
    wait_until(lambda: dashboards(workers) == workers.pids, "it to be looked at")
    workers.reload(workers=2)
    wait_until(lambda: samples(workers, "portico_workers_ended_total") == {None: 2}, "both to be counted")


def test_a_reload_whose_admin_address_is_taken_changes_nothing(run):
    workers = run()
    before = workers.pids
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(portico.ListenError, match="in use"):
        workers.reload(admin=taken.getsockname()[1])
    assert workers.pids == before
    wait_for_workers(workers, "0", "1")


def test_unix_sockets_have_the_number_of_the_worker_behind_their_path(run, tmp_path):
    path = tmp_path / "admin.sock"
    workers = run({"unix": str(path)})
    assert [workers.admin_url, *workers.dashboard_urls] == [f"http+unix://{path}{end}" for end in ("", ".0", ".1")]
    workers.reload()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{path}.1")
        client.sendall(b"GET /snapshot.json HTTP/1.0\r\n\r\n")
        with client.makefile("rb") as answer:
            assert f'"id":{workers.pids[1]}'.encode() in answer.read()
    workers.reload(workers=1)
    assert os.listdir(tmp_path) == ["admin.sock"]
    workers.close(0)
    assert os.listdir(tmp_path) == []


def test_over_tls_with_certificates_for_the_supervisor(run, tmp_path, issue, ca_pem):
    for name, content in issue("localhost").items():
        (tmp_path / name).write_bytes(content)
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")
    main = functools.partial(worker_mains.serve_tls, cert=cert, key=key)
    secure = {"port": 0, "tls": True, "contexts": lambda server: server.add_context(None, cert=cert, key=key)}
    workers = run(secure, main)
    assert workers.admin_url.startswith("https://")
    for url in (workers.admin_url, *workers.dashboard_urls):
        port = int(url.rpartition(":")[2])
        reply = request(port, path="/metrics", host="localhost", context=trusting(ca_pem))
        assert "portico_up" in reply.text


def test_only_those_who_may_look(run):
    workers = run({"port": 0, "token": TOKEN})
    assert look(workers).status == 401
    assert look(workers, authorization=f"Bearer {TOKEN}").status == 200
    assert look(workers, "/nothing", authorization=f"Bearer {TOKEN}").status == 404
    assert look(workers, "/probe/readiness").status == 200
    for url in workers.dashboard_urls:
        assert request(int(url.rpartition(":")[2]), path="/").status == 401
    assert request(port_of(workers), "POST", "/metrics").status == 405
    folder = os.stat(workers._admin._folder)
    assert (folder.st_uid, folder.st_mode & 0o77) == (os.getuid(), 0), "nobody else may ask the workers"


def test_wrong_addresses():
    make = portico.Workers
    with pytest.raises(portico.ConfigError, match="supervisor has no certificate"):
        make(worker_mains.serve, listen=CLEAR, admin={"port": 0, "tls": True})
    with pytest.raises(portico.ConfigError, match=r"^admin: unknown keyword prot"):
        make(worker_mains.serve, listen=CLEAR, admin={"prot": 0})
    with pytest.raises(portico.ConfigError, match=r"^admin: port: a whole number .*, not 65536"):
        make(worker_mains.serve, listen=CLEAR, admin=65_536)
    with pytest.raises(portico.ConfigError, match="65535 is the last"):
        make(worker_mains.serve, workers=2, listen=CLEAR, admin=65_534).start()
    workers = make(worker_mains.serve, workers=2, listen=CLEAR, admin=("0.0.0.0", 0))
    assert workers.admin_url is None
    with pytest.raises(portico.ConfigError, match="needs a token"):
        workers.start()
    workers.close(0)


def test_false_is_none_at_the_start_too(run):
    assert run(admin=False).admin_url is None


def test_it_ends_with_them(run):
    workers = run()
    port = port_of(workers)
    workers.close(GENEROUS)
    assert refuses(port)
