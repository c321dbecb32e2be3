"""What each store of sessions promises, without a server around it; and what becomes of one that is damaged or gone."""

import contextlib
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

import portico
import session_stores
from portico.sessions import Lock, Locked, MemoryStore, Record, RedisStore, Sessions, SQLiteStore
from session_stores import SECRET, act

NOW = 1_800_000_000.0
IDLE = 100.0
END = int(NOW) + 1000


def record(version="one", value=b"\x00value\xff", ends=END):
    return Record(version, value, ends)


@pytest.fixture
def store(stores):
    """An empty one, but for `old`."""
    store = stores.store()
    for key in ("old", "new"):
        store.delete(key)
    assert store.commit("old", record(), None, NOW, IDLE, "")
    return store


# ---- what every store promises


def test_a_record_comes_back_as_it_was_kept(store):
    assert store.load("old", NOW, IDLE) == record()
    assert store.load("new", NOW, IDLE) is None


def test_a_commit_says_what_it_replaces(store):
    assert not store.commit("old", record("two"), None, NOW, IDLE, ""), "there is one"
    assert not store.commit("old", record("two"), ("old", "none"), NOW, IDLE, ""), "it is another one"
    assert not store.commit("new", record("two"), ("new", "one"), NOW, IDLE, ""), "there is none"
    assert store.load("old", NOW, IDLE) == record()
    assert store.commit("old", record("two", b"other"), ("old", "one"), NOW, IDLE, "")
    assert store.load("old", NOW, IDLE) == record("two", b"other")


def test_a_record_that_moves_leaves_nothing_behind(store):
    assert store.commit("new", record("two"), ("old", "one"), NOW, IDLE, "")
    assert store.load("old", NOW, IDLE) is None
    assert store.load("new", NOW, IDLE) == record("two")


def test_what_is_used_lasts_longer(store):
    for later in (99, 198, 297):
        assert store.load("old", NOW + later, IDLE), "each use gives it 100 seconds"
    assert store.load("old", NOW + 397.1, IDLE) is None
    assert not store.commit("old", record("two"), ("old", "one"), NOW + 397.1, IDLE, ""), "it has ended"


def test_nothing_lasts_past_its_end(store):
    for later in range(90, 1000, 90):
        assert store.load("old", NOW + later, IDLE)
    assert store.load("old", NOW + 999, IDLE)
    assert store.load("old", NOW + 1000, IDLE) is None


def test_a_locked_one_is_its_owners(store):
    assert store.load("old", NOW, IDLE, Lock("me", 60)) == record()
    assert store.load("old", NOW, IDLE, Lock("me", 60)) == record(), "who has it may ask again"
    assert store.load("old", NOW, IDLE) == record(), "others may read"
    with pytest.raises(Locked):
        store.load("old", NOW + 59, IDLE, Lock("you", 60))
    with pytest.raises(Locked):
        store.commit("old", record("two"), ("old", "one"), NOW, IDLE, "you")
    with pytest.raises(Locked):
        store.commit("new", record("two"), ("old", "one"), NOW, IDLE, "you")
    store.unlock("old", "you")
    with pytest.raises(Locked):
        store.load("old", NOW, IDLE, Lock("you", 60))
    assert store.commit("old", record("two"), ("old", "one"), NOW, IDLE, "me")
    assert store.load("old", NOW, IDLE, Lock("you", 60)) == record("two"), "a commit ends the lock"


def test_a_lock_is_given_back(store):
    store.load("old", NOW, IDLE, Lock("me", 60))
    store.unlock("old", "me")
    assert store.load("old", NOW, IDLE, Lock("you", 60)) == record()


def test_a_lock_ends_with_its_lease(store):
    store.load("old", NOW, IDLE, Lock("me", 60))
    assert store.load("old", NOW + 61, IDLE, Lock("you", 60)) == record()
    # The first one comes late: it does not change what the second has read.
    with pytest.raises(Locked):
        store.commit("old", record("mine"), ("old", "one"), NOW + 62, IDLE, "me")
    assert store.commit("old", record("yours"), ("old", "one"), NOW + 63, IDLE, "you")
    assert not store.commit("old", record("mine"), ("old", "one"), NOW + 64, IDLE, "me")


def test_what_is_not_there_cannot_be_locked(store):
    assert store.load("new", NOW, IDLE, Lock("me", 60)) is None
    assert store.commit("new", record(), None, NOW, IDLE, "you")


def test_an_end_does_not_wait_for_locks(store):
    store.load("old", NOW, IDLE, Lock("me", 60))
    store.delete("old")
    store.delete("old")
    assert store.load("old", NOW, IDLE) is None
    assert not store.commit("old", record("two"), ("old", "one"), NOW, IDLE, "me")


# ---- memory


def test_memory_keeps_those_that_were_used_last(caplog):
    store = MemoryStore(max_sessions=3)
    for key in "abc":
        store.commit(key, record(), None, NOW, IDLE, "")
    store.load("a", NOW, IDLE)
    store.commit("d", record(), None, NOW, IDLE, "")
    assert [key for key in "abcd" if store.load(key, NOW, IDLE)] == ["a", "c", "d"]
    assert len(store) == 3
    assert "the memory is full" in caplog.text


def test_memory_is_bounded_in_bytes_too():
    store = MemoryStore(max_bytes=100_000)
    for number in range(1000):
        store.commit(str(number), record(value=bytes(1000)), None, NOW, IDLE, "")
    assert 50 <= len(store) <= 60
    store.commit("999", record("two", bytes(50_000)), ("999", "one"), NOW, IDLE, "")
    assert 25 <= len(store) <= 35
    for number in range(1000):
        store.delete(str(number))
    assert (len(store), store._bytes) == (0, 0)


def test_memory_forgets_what_has_ended(caplog):
    store = MemoryStore()
    for number in range(100):
        store.commit(str(number), record(), None, NOW, IDLE, "")
    store.commit("late", record(), None, NOW + 101, IDLE, "")
    assert len(store) == 1
    assert not caplog.text, "nothing ended early"


def test_memory_is_bounded_by_a_server_too(serve):
    sessions = Sessions(secret=SECRET, store=MemoryStore(max_sessions=5))
    served = serve(act, sessions=sessions)
    for _ in range(20):
        with served.httpx() as visitor:
            assert visitor.get("/set/a/1").status_code == 200
    assert len(sessions.store) == 5


# ---- a file of SQLite


def test_sqlite_files_are_their_owners_alone(tmp_path):
    with contextlib.closing(SQLiteStore(tmp_path / "s.db")) as store:
        store.commit("a", record(), None, NOW, IDLE, "")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"s.db": 0o600, "s.db-wal": 0o600, "s.db-shm": 0o600}


def test_sqlite_keeps_what_was_committed_when_its_process_is_killed(tmp_path):
    program = f"""
import os, signal
from portico.sessions import Record, SQLiteStore
store = SQLiteStore({str(tmp_path / "s.db")!r})
for number in range(20):
    assert store.commit(str(number), Record("v", b"x", {END}), None, {NOW}, 100, "")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == -9
    with contextlib.closing(SQLiteStore(tmp_path / "s.db")) as store:
        assert all(store.load(str(number), NOW, IDLE) for number in range(20))


def test_sqlite_removes_what_has_ended(tmp_path):
    with contextlib.closing(SQLiteStore(tmp_path / "s.db")) as store:
        for number in range(200):
            store.commit(str(number), record(), None, NOW, IDLE, "")
        for number in range(200, 265):
            store.commit(str(number), record(), None, NOW + 101, IDLE, "")
        with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as file:
            assert file.execute("SELECT count(*) FROM sessions").fetchone()[0] == 65


def test_sqlite_files_do_not_grow_for_ever(tmp_path):
    with contextlib.closing(SQLiteStore(tmp_path / "s.db", max_bytes=2**18)) as store:
        store.commit("first", record(), None, NOW, IDLE, "")

        def fill():
            for number in range(1000):
                store.commit(str(number), record(value=bytes(1000)), None, NOW, IDLE, "")

        with pytest.raises(portico.SessionError, match="full"):
            fill()
        assert store.load("first", NOW, IDLE, Lock("me", 60)) == record(), "those that are there go on"
    assert (tmp_path / "s.db").stat().st_size <= 2**18


@pytest.mark.parametrize(
    "content", [b"not a database, but a letter to somebody\n" * 100, b"SQLite format 3\0" + bytes(84)]
)
def test_a_file_that_is_something_else_is_left_as_it_is(tmp_path, content):
    file = tmp_path / "letter"
    file.write_bytes(content)
    with pytest.raises(portico.ConfigError, match=r"letter cannot be a store of sessions \(.*give another path"):
        Sessions(secret=SECRET, store=f"sqlite:{file}")
    assert file.read_bytes() == content


def test_a_database_of_something_else_is_left_as_it_is(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as file:
        file.execute("CREATE TABLE customers (name)")
    with pytest.raises(portico.ConfigError, match="it is a database of something else"):
        SQLiteStore(tmp_path / "s.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as file:
        assert file.execute("SELECT name FROM sqlite_master").fetchall() == [("customers",)]


def damaged(file):
    """Overwrites its tables, but not its first page."""
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(os.urandom(file.stat().st_size - 4096))


def filled(file):
    with contextlib.closing(SQLiteStore(file)) as store:
        for number in range(50):
            store.commit(str(number), record(), None, NOW, IDLE, "")


def test_a_damaged_file_is_told_when_it_is_opened(tmp_path):
    filled(tmp_path / "s.db")
    damaged(tmp_path / "s.db")
    with pytest.raises(portico.ConfigError, match=r"s\.db cannot be a store of sessions"):
        SQLiteStore(tmp_path / "s.db")


def test_a_file_that_is_damaged_while_serving_is_503_and_a_line_in_the_log(serve, tmp_path, caplog):
    filled(tmp_path / "s.db")
    with (
        contextlib.closing(Sessions(secret=SECRET, store=f"sqlite:{tmp_path / 's.db'}")) as sessions,
        serve(act, sessions=sessions).httpx() as visitor,
    ):
        damaged(tmp_path / "s.db")
        sessions.store._connection.execute("PRAGMA shrink_memory")  # what it has read is read again
        answer = visitor.get("/set/a/1")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert visitor.get("/").status_code == 200, "what needs no session goes on"
    assert "s.db cannot be used: " in caplog.text


def test_sqlite_after_a_fork(tmp_path):
    program = f"""
import os
from portico.sessions import Record, SQLiteStore
store = SQLiteStore({str(tmp_path / "s.db")!r})
child = os.fork()
for number in range(100):
    assert store.commit(f"{{bool(child)}} {{number}}", Record("v", b"x", {END}), None, {NOW}, 100, "")
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as file:
        assert file.execute("SELECT count(*) FROM sessions").fetchone()[0] == 200
        assert file.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


# ---- Redis


@pytest.fixture
def own_redis(tmp_path):
    with session_stores.redis_server(tmp_path / "redis") as server:
        yield server


def test_a_redis_that_is_killed_and_started_again(serve, own_redis, caplog):
    with (
        contextlib.closing(Sessions(secret=SECRET, store=own_redis.url)) as sessions,
        serve(act, sessions=sessions).httpx() as visitor,
    ):
        assert visitor.get("/count").text == "1"
        own_redis.kill()
        for path in ("/", "/count"):
            answer = visitor.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert f"the Redis at 127.0.0.1:{own_redis.port} cannot be used: " in caplog.text
        own_redis.start()
        assert visitor.get("/count").text == "2"


def test_a_server_starts_without_its_redis(serve, own_redis):
    own_redis.kill()
    with (
        contextlib.closing(Sessions(secret=SECRET, store=own_redis.url)) as sessions,
        serve(act, sessions=sessions).httpx() as visitor,
    ):
        assert visitor.get("/").status_code == 200, "a client without a cookie has nothing to load"
        assert visitor.get("/count").status_code == 503
        own_redis.start()
        assert visitor.get("/count").text == "1"


def test_redis_on_a_unix_socket(own_redis):
    with contextlib.closing(RedisStore(f"unix://{own_redis.folder}/socket")) as store:
        assert store.commit("a", record(), None, NOW, IDLE, "")
        assert store.load("a", NOW, IDLE) == record()
        assert repr(store) == f"<RedisStore {own_redis.folder}/socket>"


def test_redis_removes_what_has_ended(redis_url):
    import redis

    with contextlib.closing(RedisStore(redis_url, prefix="ends:")) as store, redis.Redis.from_url(redis_url) as client:
        store.commit("a", record(), None, NOW, IDLE, "")
        assert 99_000 < client.pttl("ends:a") <= 100_000
        store.commit("b", record(), None, END - 10, IDLE, "")
        assert 9_000 < client.pttl("ends:b") <= 10_000
        store.load("a", NOW + 95, IDLE)
        assert 99_000 < client.pttl("ends:a") <= 100_000
        assert set(client.keys("ends:*")) == {b"ends:a", b"ends:b"}


def test_a_commit_whose_answer_was_lost_is_not_a_conflict(redis_url):
    with contextlib.closing(RedisStore(redis_url, prefix="lost:")) as store:
        assert store.commit("a", record(), None, NOW, IDLE, "")
        assert store.commit("a", record(), None, NOW, IDLE, "")
        assert store.commit("b", record("two"), ("a", "one"), NOW, IDLE, "")
        assert store.commit("b", record("two"), ("a", "one"), NOW, IDLE, "")


def test_a_password_of_redis_is_not_told():
    with contextlib.closing(RedisStore("redis://:hush@127.0.0.1:1/0")) as store:
        assert "hush" not in repr(store)
        with pytest.raises(portico.SessionError, match=r"the Redis at 127\.0\.0\.1:1 cannot be used") as raised:
            store.load("a", NOW, IDLE)
        assert "hush" not in str(raised.value)


def make_store(path, at_once=None):
    (at_once or made_at_once).wait()
    with contextlib.closing(SQLiteStore(path)) as store:
        return store.load("key", 0.0, 1.0)


def share_barrier(barrier):
    global made_at_once
    made_at_once = barrier


def test_a_file_of_sqlite_that_several_threads_make_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            at_once = threading.Barrier(8)
            making = [pool.submit(make_store, tmp_path / f"{number}.db", at_once) for _ in range(8)]
            assert [made.result() for made in making] == [None] * 8


def test_a_file_of_sqlite_that_several_processes_make_at_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(4)
    with ProcessPoolExecutor(4, spawn, share_barrier, (barrier,)) as pool:
        for number in range(100):
            making = [pool.submit(make_store, tmp_path / f"{number}.db") for _ in range(4)]
            assert [made.result(60) for made in making] == [None] * 4
