"""Several worker processes: how they share addresses, are replaced when they die, reloaded, and ended."""

import contextlib
import errno
import functools
import logging
import os
import re
import signal
import socket
import threading
import time

import pytest

import portico
import worker_mains
from clients import GENEROUS, Wire, refuses, request, trusting, wait_until
from programs import children, hold, lives, starting_time

CLEAR = {"port": 0, "tls": False}


@pytest.fixture
def run():
    """Starts workers that are closed at the end of the test, and then have left nothing behind."""
    before, threads = children(), set(threading.enumerate())
    with contextlib.ExitStack() as stack:

        def run(main=worker_mains.serve, *, workers=2, listen=CLEAR, start=True, reuse_port=False, **more):
            timeout = {"ready_timeout": more.pop("ready_timeout")} if "ready_timeout" in more else {}
            main = functools.partial(main, **more) if more else main
            made = portico.Workers(main, workers=workers, listen=listen, reuse_port=reuse_port, **timeout)
            stack.callback(made.close, grace=0)
            if start:
                made.start()
            return made

        yield run
    assert children() <= before
    wait_until(lambda: set(threading.enumerate()) <= threads, "threads to end")


@pytest.fixture
def records(caplog):
    """What the supervisor logs."""
    caplog.set_level(logging.INFO, "portico.workers")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "portico.workers"]


def ask(workers, path="/pid"):
    return request(workers.ports[0], path=path).text


def see_all(workers, path="/pid"):
    """Asks until so many different answers have come as there are workers."""
    seen = set()
    wait_until(lambda: seen.add(ask(workers, path)) or len(seen) == len(workers.pids), "every worker to answer")
    return seen


def whole(workers, number):
    """Waits until so many listen, and tells that they do by how long it took."""
    begun = time.monotonic()
    wait_until(lambda: len(workers.pids) == number)
    return time.monotonic() - begun


def ready(records, times):
    wait_until(lambda: sum("listens" in line for line in records()) == times, f"{times} workers to listen")


def in_flight(workers, folder, number, seconds):
    """Begins slow requests; those threads, what came of them by name, and the worker of each."""
    came = {}

    def slow(name):
        try:
            came[name] = request(workers.ports[0], path=f"/slow/{name}?{seconds}").text
        except Exception as error:
            came[name] = error

    threads = [threading.Thread(target=slow, args=(str(name),)) for name in range(number)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(list(folder.iterdir())) == number, "the requests to come in")
    taken = dict(path.name.split(".") for path in folder.iterdir())
    return threads, came, {name: int(pid) for name, pid in taken.items()}


def join(threads):
    for thread in threads:
        thread.join(GENEROUS)
        assert not thread.is_alive()


# ---- addresses


def test_every_worker_serves_the_one_port_0(run):
    workers = run(workers=3)
    assert len(set(workers.pids)) == 3
    assert os.getpid() not in workers.pids
    (port,) = workers.ports
    assert workers.addresses == [("127.0.0.1", port)]
    assert workers.urls == [f"http://127.0.0.1:{port}"]
    # The kernel wakes whom it likes: those that are held up take nothing.
    for pid in workers.pids:
        others = set(workers.pids) - {pid}
        for other in others:
            hold(other)
        assert ask(workers) == str(pid)
        assert ask(workers, "/number") == str(workers.pids.index(pid))
        for other in others:
            os.kill(other, signal.SIGCONT)


def test_several_addresses_each_with_its_own_tls(run, issue, ca_pem, tmp_path):
    path = tmp_path / "portico.sock"
    workers = run(
        worker_mains.serve_tls,
        **issue("localhost"),
        listen=[0, ("127.0.0.1", 0), {"port": 0, "tls": False}, {"unix": path, "tls": False, "backlog": 5}],
    )
    first, second, clear, unix = workers.ports
    for port in (first, second):
        assert request(port, context=trusting(ca_pem)).status == 200
    assert request(clear).status == 200
    with Wire(None, unix=str(path)) as wire:
        assert wire.get().status == 200
    assert unix is None
    assert workers.addresses[3] == str(path)
    assert [url.split(":")[0] for url in workers.urls] == ["https", "https", "http", "http+unix"]
    workers.close()
    assert not path.exists()


def test_a_left_unix_socket_is_taken_over_and_a_used_one_is_not(run, tmp_path):
    path = tmp_path / "portico.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    run(listen={"unix": path, "tls": False}, workers=1)
    with pytest.raises(portico.ListenError) as caught:
        run(listen={"unix": path, "tls": False}, workers=1)
    assert caught.value.errno == errno.EADDRINUSE
    with Wire(None, unix=str(path)) as wire:
        assert wire.get().status == 200


def test_an_address_in_use_is_told_before_anything_is_started(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        workers = run(listen=[CLEAR, port], start=False)
        with pytest.raises(portico.ListenError, match=f"127.0.0.1:{port}") as caught:
            workers.start()
    assert caught.value.errno == errno.EADDRINUSE
    assert workers.pids == []
    with pytest.raises(portico.ListenError, match="no-such-host"):
        run(listen=("no-such-host.invalid", 80))


def test_with_reuse_port_each_worker_has_a_socket_of_its_own(run):
    workers = run(workers=3, reuse_port=True)
    assert see_all(workers) == set(map(str, workers.pids))
    hold(workers.pids[0])
    # What the kernel queues for one is not taken by the others.
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(workers.ports[0])) for _ in range(60)]
        for wire in wires:
            wire.send("GET /pid HTTP/1.1\r\nHost: h\r\n\r\n").sock.settimeout(1)
        waiting = 0
        for wire in wires:
            try:
                wire.read()
            except TimeoutError:
                waiting += 1
                wire.sock.settimeout(0.01)
                break
        assert waiting
        os.kill(workers.pids[0], signal.SIGCONT)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"listen": []}, "listen"),
        ({"listen": None}, "listen"),
        ({"listen": "8443"}, "listen"),
        ({"listen": [70_000]}, "port"),
        ({"listen": [True]}, "port"),
        ({"listen": ("a", "b")}, "port"),
        ({"listen": (1, 2)}, None),
        ({"listen": [(80, "0.0.0.0")]}, "port"),
        ({"listen": {"port": 1, "tsl": False}}, "tsl"),
        ({"listen": {"tls": False}}, "port"),
        ({"listen": {"port": 1, "tls": "no"}}, "tls"),
        ({"listen": {"port": 1, "backlog": 0}}, "backlog"),
        ({"workers": 0}, "workers"),
        ({"workers": 2.5}, "workers"),
        ({"workers": True}, "workers"),
        ({"ready_timeout": 0}, "ready_timeout"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    given = {"listen": 0, **arguments}
    if named is None:
        portico.Workers(worker_mains.serve, **given)  # two ports
        return
    with pytest.raises(portico.ConfigError, match=named):
        portico.Workers(worker_mains.serve, **given)


def test_reuse_port_is_not_for_unix_sockets(run, tmp_path):
    with pytest.raises(portico.ConfigError, match="reuse_port"):
        run(listen={"unix": tmp_path / "s"}, reuse_port=True)


# ---- workers that die


def test_a_worker_killed_under_load_loses_its_own_requests_only(run, records):
    workers = run(workers=2)
    stop, lost, done = threading.Event(), [], []

    def client():
        while not stop.is_set():
            begun = time.monotonic()
            try:
                assert request(workers.ports[0]).status == 200
                done.append(begun)
            except (OSError, ConnectionError, Exception) as error:
                lost.append((begun, error))

    clients = [threading.Thread(target=client) for _ in range(8)]
    for one in clients:
        one.start()
    took, gone, starting = [], [], []
    for kill in range(3):
        wait_until(lambda: len(done) > 100 * len(gone))
        starting.append(starting_time())
        victim = workers.pids[kill % 2]
        os.kill(victim, signal.SIGKILL)
        begun = time.monotonic()
        wait_until(lambda victim=victim: victim not in workers.pids)
        gone.append((begun, time.monotonic()))
        ready(records, 3 + kill)
        took.append(time.monotonic() - begun)
        # Whoever dies again while young waits; let it be the other one, and then a while.
    wait_until(lambda: len(done) > 300)
    stop.set()
    join(clients)
    assert min(took) < 1 + 2 * min(starting), "full capacity within a second, beside what an interpreter takes here"
    assert len(lost) <= len(gone) * len(clients)
    for begun, error in lost:
        # Begun before a worker was gone, and so perhaps with it.
        assert any(begun <= end for _, end in gone), error
    assert not refuses(workers.ports[0])


def test_exactly_what_was_in_flight_at_the_killed_worker_is_lost(run, tmp_path):
    workers = run(worker_mains.serve, folder=str(tmp_path), workers=2)
    threads, came, taken = in_flight(workers, tmp_path, 12, GENEROUS)
    victim = taken["0"]
    os.kill(victim, signal.SIGKILL)
    (tmp_path / "go").touch()
    join(threads)
    assert {name for name, answer in came.items() if isinstance(answer, Exception)} == {
        name for name, pid in taken.items() if pid == victim
    }
    assert all(came[name] == str(pid) for name, pid in taken.items() if pid != victim)


def test_connections_that_wait_in_the_queue_outlive_the_worker(run):
    workers = run(workers=1)
    (pid,) = workers.pids
    hold(pid)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(workers.ports[0])) for _ in range(10)]
        for wire in wires:
            wire.send("GET /pid HTTP/1.1\r\nHost: h\r\n\r\n")
        os.kill(pid, signal.SIGKILL)
        answers = {wire.read().text for wire in wires}
    assert answers == {str(workers.pids[0])} != {str(pid)}


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/exit?3", r"worker 0 \(pid \d+\) ended with exit code 3; it is replaced at once"),
        ("/exit?0", r"returned from main; it is replaced at once"),
        ("/close", r"(returned from main|ended by an exception); it is replaced at once"),
        (f"/kill?{int(signal.SIGSEGV)}", r"was killed by SIGSEGV; it is replaced at once"),
        (f"/kill?{int(signal.SIGTERM)}", r"returned from main; it is replaced at once"),
    ],
)
def test_whatever_a_worker_dies_of_is_logged_and_it_is_replaced(run, records, path, logged):
    workers = run(workers=1)
    before = workers.pids
    with contextlib.suppress(OSError, Exception):
        ask(workers, path)
    ready(records, 2)
    assert workers.pids != before
    assert ask(workers) == str(workers.pids[0])
    assert re.search(logged, "\n".join(records()))


def test_an_exception_out_of_main_is_logged_with_its_traceback(run, records, tmp_path, capfd):
    flag = tmp_path / "flag"
    run(worker_mains.raise_after_listening, flag=str(flag), workers=1)
    flag.touch()
    ready(records, 2)
    (line,) = [line for line in records() if "replaced" in line]
    assert "ended by an exception; it is replaced at once\nTraceback" in line
    assert "in raise_after_listening" in line
    assert line.endswith("LookupError: lost the way")
    assert "lost the way" not in capfd.readouterr().err, "told once"


def test_a_worker_that_keeps_dying_is_replaced_more_and_more_slowly(run, records, tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    workers = run(worker_mains.serve_while_told, flag=str(flag), workers=2)
    flag.unlink()
    os.kill(workers.pids[0], signal.SIGKILL)
    wait_until(lambda: any("in 0.4 s" in line for line in records()))
    told = [re.search(r"replaced (.*)", line)[1] for line in records() if "replaced" in line]
    assert told[:4] == ["at once", "in 0.1 s", "in 0.2 s", "in 0.4 s"]
    assert len(workers.pids) <= 2
    assert ask(workers), "the other one serves"
    flag.touch()
    ready(records, 3)
    assert len(see_all(workers)) == 2


def test_a_death_is_noticed_while_a_child_of_the_worker_lives_on(run, records):
    workers = run(workers=1)
    child = int(ask(workers, "/child"))
    try:
        os.kill(workers.pids[0], signal.SIGKILL)
        ready(records, 2)
        assert ask(workers) == str(workers.pids[0])
    finally:
        os.kill(child, signal.SIGKILL)


def test_replacing_leaks_nothing_in_the_supervisor(run, records):
    workers = run(workers=1)
    before = len(os.listdir("/proc/self/fd"))
    for times in range(2, 5):
        os.kill(workers.pids[0], signal.SIGKILL)
        ready(records, times)
    for _ in range(3):
        workers.reload()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, "descriptors to be closed")
    wait_until(lambda: sum(thread.name.startswith("portico-worker") for thread in threading.enumerate()) <= 2)


# ---- workers that never come to serve


@pytest.mark.parametrize(
    ("main", "error", "message"),
    [
        (worker_mains.fail, portico.WorkerError, "(?s)ended by an exception.*LookupError: the way was not found"),
        (worker_mains.fail_in_one, portico.WorkerError, r"(?s)worker 1 \(pid \d+\).*LookupError: not this one"),
        (worker_mains.return_at_once, portico.WorkerError, r"returned from main without worker.listen\(\)"),
        (worker_mains.die_in_c, portico.WorkerError, "was killed by SIGSEGV"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_start_tells_why_a_worker_did_not_come_to_listen(run, main, error, message):
    workers = run(main, start=False)
    with pytest.raises(error, match=message):
        workers.start()
    assert workers.pids == []
    assert refuses(workers.ports[0])
    with pytest.raises(portico.ClosedError, match="once"):
        workers.start()


def test_a_start_that_fails_in_this_process_is_told_and_not_waited_for(run, caplog):
    def fail(record):
        raise ZeroDivisionError("the program's own, in its logging")

    caplog.set_level(logging.INFO, "portico.workers")
    logger = logging.getLogger("portico.workers")
    logger.addFilter(fail)
    try:
        with pytest.raises(
            portico.WorkerError, match=r"(?s)ended by an exception.*ZeroDivisionError: the program's own"
        ):
            run()
    finally:
        logger.removeFilter(fail)


def test_a_worker_that_does_not_listen_in_time_is_killed(run):
    workers = run(worker_mains.never_listen, ready_timeout=1, start=False)
    with pytest.raises(portico.WorkerError, match=r"did not call worker.listen\(\) within 1 s"):
        workers.start()


def test_close_while_start_waits(run):
    workers = run(worker_mains.never_listen, start=False)
    closing = threading.Thread(target=lambda: (wait_until(lambda: len(workers.pids) == 2), workers.close(20)))
    closing.start()
    begun = time.monotonic()
    with pytest.raises(portico.ClosedError):
        workers.start()
    join([closing])
    assert time.monotonic() - begun < 15, "nothing is in flight where nobody has listened"


@pytest.mark.parametrize("main", [lambda worker: None, Wire.get, functools.partial(print, threading.Lock())])
def test_what_another_interpreter_would_not_find_is_refused(run, main):
    if main is Wire.get:  # this one it would

        def main(worker):
            pass

    with pytest.raises(portico.ConfigError, match="top level of a module"):
        run(main)


def test_what_is_no_function_is_refused():
    with pytest.raises(portico.ConfigError, match="main"):
        portico.Workers("app:main", listen=0)


# ---- reload


def test_reload_replaces_every_worker_and_refuses_nobody(run):
    workers = run(workers=2)
    before, stop, lost, done = workers.pids, threading.Event(), [], []

    def client():
        while not stop.is_set():
            try:
                assert request(workers.ports[0]).status == 200
                done.append(1)
            except Exception as error:
                lost.append(error)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for one in clients:
        one.start()
    for _ in range(2):
        workers.reload()
    stop.set()
    join(clients)
    assert lost == []
    assert done
    assert not set(before) & set(workers.pids)
    assert not any(map(lives, before))
    assert len(workers.pids) == 2


def test_reload_lets_what_is_in_flight_finish(run, tmp_path):
    workers = run(worker_mains.serve, folder=str(tmp_path), workers=1)
    threads, came, taken = in_flight(workers, tmp_path, 3, 1.5)
    workers.reload()
    join(threads)
    assert came == {name: str(pid) for name, pid in taken.items()}
    assert set(taken.values()).isdisjoint(workers.pids)


def test_reload_that_fails_leaves_the_old_workers(run, tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    workers = run(worker_mains.serve_while_told, flag=str(flag))
    before = workers.pids
    flag.unlink()
    with pytest.raises(portico.WorkerError, match="no flag to serve under"):
        workers.reload()
    assert workers.pids == before
    assert see_all(workers) == set(map(str, before))
    flag.touch()
    workers.reload()
    assert not set(before) & set(workers.pids)


def test_close_ends_a_reload(run, tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    workers = run(worker_mains.serve, workers=1)
    workers._program = type(workers._program).of(worker_mains.never_listen, 60.0)
    told = []

    def reload():
        try:
            workers.reload()
        except portico.ClosedError as error:
            told.append(error)

    reloading = threading.Thread(target=reload)
    reloading.start()
    wait_until(lambda: len(workers._living) == 2)
    workers.close(10)
    join([reloading])
    assert told
    with pytest.raises(portico.ClosedError):
        workers.reload()


# ---- the end


def test_close_finishes_what_is_in_flight(run, tmp_path):
    workers = run(worker_mains.serve, folder=str(tmp_path))
    pids = workers.pids
    threads, came, taken = in_flight(workers, tmp_path, 6, 1.5)
    workers.close(grace=20)
    assert not any(map(lives, pids))
    assert refuses(workers.ports[0])
    join(threads)
    assert came == {name: str(pid) for name, pid in taken.items()}
    workers.close()
    assert workers.pids == []


def test_after_the_grace_workers_are_killed(run, tmp_path):
    workers = run(worker_mains.serve, folder=str(tmp_path))
    threads, came, _ = in_flight(workers, tmp_path, 2, 60)
    begun = time.monotonic()
    workers.close(grace=0.5)
    assert 0.4 < time.monotonic() - begun < 10
    join(threads)
    assert all(isinstance(error, Exception) for error in came.values())


def test_a_main_that_does_not_return_is_killed(run):
    workers = run(worker_mains.never_return)
    begun = time.monotonic()
    workers.close(grace=0)
    assert time.monotonic() - begun < 10


def test_a_second_close_shortens_the_first(run, tmp_path):
    workers = run(worker_mains.serve, folder=str(tmp_path), workers=1)
    threads, *_ = in_flight(workers, tmp_path, 1, 60)
    patient = threading.Thread(target=workers.close, args=(60,))
    patient.start()
    wait_until(lambda: refuses(workers.ports[0]))
    begun = time.monotonic()
    workers.close(0)
    join([patient, *threads])
    assert time.monotonic() - begun < 10


def test_workers_from_a_thread_with_run_forever(run):
    workers = run(start=False)
    running = threading.Thread(target=workers.run_forever)
    running.start()
    wait_until(lambda: workers.ports and not refuses(workers.ports[0]))
    assert request(workers.ports[0]).status == 200
    workers.close()
    join([running])
    for call in (workers.run_forever, workers.start, workers.reload):
        with pytest.raises(portico.ClosedError):
            call()


def test_close_before_the_start(run):
    workers = run(start=False)
    workers.close()
    with pytest.raises(portico.ClosedError):
        workers.start()


@pytest.mark.parametrize("main", [worker_mains.serve_async, worker_mains.run_async])
def test_an_async_main_ends_as_well(run, records, main, capfd):
    workers = run(main, workers=1)
    assert ask(workers) == str(workers.pids[0])
    # As from a service manager that signals every process of a service.
    os.kill(workers.pids[0], signal.SIGTERM)
    ready(records, 2)
    os.kill(workers.pids[0], signal.SIGINT)
    assert ask(workers) == str(workers.pids[0]), "Ctrl-C is the supervisor's"
    begun = time.monotonic()
    workers.close(20)
    assert time.monotonic() - begun < 15
    assert capfd.readouterr().err == ""


def test_several_servers_in_one_worker(run):
    workers = run(worker_mains.two_servers, workers=1)
    workers.close(20)
    assert refuses(workers.ports[0])


def test_the_child_of_a_fork_has_no_say(run):
    workers = run(workers=1)
    child = os.fork()
    if child == 0:
        workers.close()
        try:
            workers.reload()
        except portico.ClosedError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert ask(workers)
