"""Attempts to get out of a page: at files, network, environment, processes, the host's objects, other visitors, and at
the server by way of what visitors send. Each has a name, and says by what it is stopped."""

from __future__ import annotations

import contextlib
import os
import pickle
import re

import pytest

import portico
from clients import wait_until
from page_sites import Site, Visitor
from portico.pages._engine import Engine
from portico.pages._state import State
from portico.sessions._signing import Keys, write_cookie

SECRET = "SECRET-OF-THE-HOST"


class Account:
    """What pages have as `session`. Only `add` and `total` are for them."""

    secret = SECRET

    def __init__(self, values):
        self._values = values
        self.also_secret = SECRET

    def add(self, amount):
        self._values["total"] = self._values.get("total", 0) + amount

    def total(self):
        return self._values.get("total", 0)

    def _hidden(self):
        return SECRET

    @property
    def shown(self):
        return SECRET


def shout(text="", **_):
    """A function of the host, with a secret in its module."""
    return str(text).upper()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("escapes")


@pytest.fixture(scope="module")
def engine():
    os.environ["PORTICO_ESCAPE_SECRET"] = SECRET
    engine = Engine(portico.PageLimits(seconds=1.0), 1)
    yield engine
    engine.close()
    del os.environ["PORTICO_ESCAPE_SECRET"]


@pytest.fixture
def visitor(root, engine):
    from portico.pages._calls import HostObject

    account = Account({})
    given = {"session": lambda: HostObject(account, allowed_methods=("add", "total"))}
    return Visitor(root, engine=engine, functions={"shout": shout}, given=given)


# Python that a page runs, and what stops it. `print` of what it got would show the secret, or that it came so far.
IN_A_PAGE = {
    # files
    "read a file": ("print(open('/etc/passwd').read())", "PermissionError"),
    "write a file": ("open('/tmp/portico-escape', 'w').write('x')", "PermissionError"),
    "append to a file": ("open('/tmp/portico-escape', 'a').write('x')", "PermissionError"),
    "read by dots": ("print(open('../../../../etc/passwd').read())", "PermissionError"),
    "read a page's source": ("print(open('page.psp').read())", "PermissionError"),
    "read by pathlib": ("from pathlib import Path\nprint(Path('/etc/passwd').read_text())", "PermissionError"),
    "write by pathlib": ("from pathlib import Path\nPath('/tmp/portico-escape').write_text('x')", "PermissionError"),
    "list a folder": ("import os\nprint(os.listdir('/'))", "PermissionError"),
    "list by pathlib": ("from pathlib import Path\nprint(list(Path('/').iterdir()))", "PermissionError"),
    "remove a file": ("import os\nos.remove('/etc/hostname')", "PermissionError"),
    "ask whether a file is there": ("import os\nprint(os.path.exists('/etc/passwd'))", "PermissionError"),
    "a device": ("print(open('/dev/urandom', 'rb').read(8))", "PermissionError"),
    "its own process": ("print(open('/proc/self/environ').read())", "PermissionError"),
    "an open descriptor": ("print(open(0).read())", "Error"),
    # environment
    "environ": ("import os\nprint(os.environ)", "RuntimeError"),
    "a variable of the environment": ("import os\nprint(os.environ['PORTICO_ESCAPE_SECRET'])", "RuntimeError"),
    "getenv": ("import os\nprint(os.getenv('PORTICO_ESCAPE_SECRET'))", "RuntimeError"),
    "urandom of the host": ("import os\nprint(os.urandom(8))", "RuntimeError"),
    "paths of the host": ("import sys\nprint(sys.path)", "AttributeError"),
    # processes
    "system": ("import os\nos.system('id')", "AttributeError"),
    "popen": ("import os\nprint(os.popen('id').read())", "AttributeError"),
    "fork": ("import os\nos.fork()", "AttributeError"),
    "exec a program": ("import os\nos.execv('/bin/sh', ['sh'])", "AttributeError"),
    "kill": ("import os\nos.kill(1, 9)", "AttributeError"),
    "leave by sys.exit": ("import sys\nsys.exit(0)", "AttributeError"),
    "leave by SystemExit": ("raise SystemExit", "SystemExit"),
    "leave by KeyboardInterrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "a process by asyncio": ("import asyncio\nasyncio.create_subprocess_exec('id')", "AttributeError"),
    # network
    "a socket": ("import socket", "ModuleNotFoundError"),
    "a URL": ("import urllib.request", "ModuleNotFoundError"),
    "an HTTP client": ("import http.client", "ModuleNotFoundError"),
    "TLS": ("import ssl", "ModuleNotFoundError"),
    "a connection by asyncio": ("import asyncio\nawait asyncio.open_connection('127.0.0.1', 1)", "AttributeError"),
    # imports
    "subprocess": ("import subprocess", "ModuleNotFoundError"),
    "ctypes": ("import ctypes", "ModuleNotFoundError"),
    "pickle": ("import pickle", "ModuleNotFoundError"),
    "marshal": ("import marshal", "ModuleNotFoundError"),
    "threading": ("import threading", "ModuleNotFoundError"),
    "importlib": ("import importlib", "ModuleNotFoundError"),
    "builtins": ("import builtins", "ModuleNotFoundError"),
    "gc": ("import gc", "ModuleNotFoundError"),
    "inspect": ("import inspect", "ModuleNotFoundError"),
    "portico itself": ("import portico", "ModuleNotFoundError"),
    "the sandbox itself": ("import pydantic_monty", "ModuleNotFoundError"),
    "import by name": ("__import__('os')", "NameError"),
    "modules that are loaded": ("import sys\nprint(sys.modules)", "AttributeError"),
    # dunder chains
    "class of a tuple": ("print(().__class__)", "AttributeError"),
    "bases of a class": ("print(().__class__.__bases__[0])", "AttributeError"),
    "mro of a type": ("print(type('').__mro__)", "AttributeError"),
    "subclasses of object": ("print(object.__subclasses__())", "AttributeError"),
    "subclasses of a type": ("print(type(()).__subclasses__())", "AttributeError"),
    "builtins of a page": ("print(__builtins__)", "NameError"),
    "globals": ("print(globals())", "NameError"),
    "loader": ("print(__loader__)", "NameError"),
    "code of a lambda": ("print((lambda: 1).__code__)", "AttributeError"),
    "globals of a lambda": ("print((lambda: 1).__globals__)", "AttributeError"),
    "frame of a coroutine": ("async def g(): pass\nprint(g().cr_frame)", "AttributeError"),
    "frame of an exception": ("try: 1/0\nexcept Exception as e: print(e.__traceback__.tb_frame)", "AttributeError"),
    "object of an exception": ("try: shout.x\nexcept AttributeError as e: print(e.obj)", "AttributeError"),
    "frames by sys": ("import sys\nprint(sys._getframe())", "AttributeError"),
    "getattr with a dunder": ("print(getattr((), '__cl' + 'ass__'))", "AttributeError"),
    "compile": ("compile('1', 'x', 'exec')", "NameError"),
    "eval that opens": ("eval(\"open('/etc/passwd')\")", "PermissionError"),
    "exec that imports": ("exec('import os; os.system(1)')", "AttributeError"),
    # objects of the host
    "globals of a host function": ("print(shout.__globals__)", "AttributeError"),
    "code of a host function": ("print(shout.__code__)", "AttributeError"),
    "what a host function wraps": ("print(shout.__wrapped__)", "AttributeError"),
    "module of a host function": ("print(shout.__module__)", "AttributeError"),
    "attribute of a host object": ("print(session.also_secret)", "AttributeError"),
    "attribute of a host class": ("print(session.secret)", "AttributeError"),
    "property of a host object": ("print(session.shown)", "AttributeError"),
    "private attribute": ("print(session._values)", "AttributeError"),
    "private method": ("print(session._hidden())", "AttributeError"),
    "dict of a host object": ("print(session.__dict__)", "AttributeError"),
    "class of a host object, and from there": ("print(session.__class__.secret)", "AttributeError"),
    "another of a host class": ("print(type(session)({}))", "TypeError"),
    "init of a host object": ("session.__init__({})", "AttributeError"),
    "self of a method": ("print(session.add.__self__)", "AttributeError"),
    "getattr on a host object": ("print(getattr(session, 'also_' + 'secret'))", "AttributeError"),
    "call of a host object": ("session()", "TypeError"),
    "setattr of a host object by its class": ("object.__setattr__(session, 'secret', 1)", "AttributeError"),
    "a function that was not allowed": ("print(hidden_function())", "NameError"),
    # format strings
    "format with an attribute": ("print('{0.also_secret}'.format(session))", "Error"),
    "format with globals": ("print('{0.__globals__}'.format(shout))", "AttributeError"),
    "format with an index": ("print('{0[__globals__]}'.format(shout))", "TypeError"),
    "format with a mapping": ("print('%(also_secret)s' % session)", "TypeError"),
    "an f-string": ("print(f'{session.also_secret}')", "AttributeError"),
    "a format as wide as memory": ("print('{:999999999999}'.format(1))", "memory"),
    "a percent as wide as memory": ("print('%999999999999d' % 1)", "memory"),
    # bombs
    "a string bomb": ("x = 'a' * 10**12", "memory"),
    "a list bomb": ("x = [0] * 10**12", "memory"),
    "a number bomb": ("x = 9 ** 9 ** 9", "memory"),
    "a shift bomb": ("x = 1 << 10**10", "memory"),
    "a doubling bomb": ("x = 'a'\nwhile True: x += x", "memory"),
    "a JSON bomb": ("import json\njson.loads('[' * 100000)", "JSONDecodeError"),
    "a digits bomb": ("x = int('9' * 10**6)", "ValueError"),
    "a nesting bomb for the parser": ("eval('(' * 100000 + ')' * 100000)", "nested"),
    "an operator bomb for the parser": ("exec('x = ' + '1+' * 100000 + '1')", "nested"),
    "a loop for ever": ("while True: pass", "seconds"),
    "a loop in a comparison": ("class A:\n  def __eq__(self, o):\n    while True: pass\nA() == A()", "seconds"),
    "a loop in str": ("class A:\n  def __str__(self):\n    while True: pass\nstr(A())", "seconds"),
    "recursion": ("def f(): return f()\nf()", "deep"),
    "recursion in repr": ("class A:\n  def __repr__(self): return repr(self)\nprint(A())", "deep"),
    "an output bomb": ("while True: print('a' * 10000)", "printed more than"),
    "a log bomb": ("import sys\nwhile True: print('a' * 10000, file=sys.stderr)", "printed more than"),
    "a bomb of calls": ("while True: shout('a')", "called functions of the host"),
    "sleep": ("import time\ntime.sleep(1000)", "cannot sleep"),
    # names of portico's
    "the page's own machinery": ("_psp_p = shout", "portico's own"),
}


@pytest.mark.parametrize(("code", "stopped"), IN_A_PAGE.values(), ids=IN_A_PAGE)
def test_in_a_page(visitor, code, stopped):
    visitor.run("<% kept = 1 %>")
    error = visitor.fail(f"<%\n{code}\n%>")
    assert stopped in str(error)
    assert SECRET not in str(error)
    # The worker and the session are as they were.
    assert visitor.show("<%= kept %>") == "1"
    assert not os.path.exists("/tmp/portico-escape")


HARMLESS = {
    "cyclic list to the host": "x = []\nx.append(x)\nshout(x)",
    "deep list to the host": "x = []\nfor i in range(20000): x = [x]\nshout(x)\nx = 0",
    "own class to the host": "class A:\n  def __reduce__(self): return (shout, ())\n  def upper(self): return 1\nshout(A())",
    "function to the host": "shout(lambda: 1)\nshout(shout)\nshout(print)",
    "surrogates to the host": "shout('\\ud800')",
    "many arguments": "shout(*['a'])\nshout(**{'a b': 1, 'self': 2})",
    "replaced builtins": "print = shout\nstr = int\nlen = None\nescape = lambda v: v",
    "a method that is replaced": "session.add = lambda a: 1\nsession.add(1)",
    "eval of the page's own machinery": "try:\n  eval('_ps' + 'p_end')('x', (), {})\nexcept NameError: pass",
    "a regular expression that backtracks": "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
    "a class named as one of the host": "class Account:\n  secret = 1\nAccount.secret",
    "what sys tells": "import sys\nassert 'Monty' in sys.version and not sys.executable",
}


@pytest.mark.parametrize("code", HARMLESS.values(), ids=HARMLESS)
def test_what_a_page_may_do_reaches_nobody(visitor, root, engine, code):
    assert SECRET not in visitor.show(f"<%\n{code}\n%>")
    # Another visitor, in the same worker, sees nothing of it.
    other = Visitor(root, engine=engine, functions={"shout": shout})
    page = "<% x = [1, 2] %><%= str(len(x)) %><%= escape('<') %><%= shout('a') %>"
    assert other.show(page, "/other.psp") == "2&amp;lt;A"
    assert "NameError" in str(other.fail("<%= Account %>", "/third.psp"))


# ---- by what visitors send


@pytest.fixture
def site(tmp_path, serve):
    site = Site(tmp_path, serve, functions={"shout": shout}, limits=portico.PageLimits(seconds=1.0))
    yield site
    site.close()


HOSTILE = {
    "a script": "<script>alert(1)</script>",
    "an attribute": "\" onmouseover=\"alert(1)",
    "a single quote": "' onmouseover='alert(1)",
    "tags of a template": "<%= open('/etc/passwd').read() %>",
    "a tag of code": "<% exit(0, 'shout') %>",
    "a closing tag": "%><script>",
    "a format": "{0.__class__.__mro__}",
    "braces of other templates": "{{7*7}}${7*7}#{7*7}",
    "a percent format": "%(x)s%n",
    "a line of Python": "'); import os; os.system('id') #",
    "a name of the machinery": "_psp_end",
    "a new line": "a\r\nset-cookie: x=y\r\n\r\n<script>",
    "a NUL": "a\0b<i>",
    "a comment": "<!-- --><![CDATA[",
    "no UTF-8 sense": "\ud7ff\uffff<",
}  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_query_form_and_cookies_are_text_and_escaped(site, value):
    page = "<b title=\"<%= query['v'] %>\" class='<%= query['v'] %>'><%= query['v'] %></b>"
    client = site.write("page.psp", page).client()
    for reply in (client.get("/page.psp", params={"v": value}), client.post("/page.psp", data={"v": value})):
        assert reply.status_code == 200
        for part in re.fullmatch(r"<b title=\"(.*)\" class='(.*)'>(.*)</b>", reply.text, re.DOTALL).groups():
            assert not re.search("[<>\"']", part)
            assert part.count("&") == len(re.findall("[<>\"'&]", value))
        assert "x" not in client.cookies


@pytest.mark.parametrize("name", ["user-agent", "referer", "x-forwarded-for"])
def test_headers_are_text_and_escaped(site, name):
    site.write("page.psp", f"<%= headers['{name}'] %>")
    reply = site.client().get("/page.psp", headers={name: "<script><%= 7*7 %>{{7*7}}"})
    assert reply.text == "&lt;script&gt;&lt;%= 7*7 %&gt;{{7*7}}"


def test_a_header_is_not_split_by_a_value(site):
    site.write("page.psp", "<% exit(302, query['u']) %>")
    reply = site.client().get("/page.psp", params={"u": "/a\r\nset-cookie: x=y"})
    assert reply.headers["location"] == "/a%0D%0Aset-cookie:%20x=y"
    assert "x=y" not in reply.headers.get("set-cookie", "")
    site.write("page.psp", "<% set_header('x-a', query['u']) %>")
    assert site.client().get("/page.psp", params={"u": "a\r\nset-cookie: x=y"}).status_code == 500


def test_what_an_error_says_cannot_forge_lines_of_the_log(site, caplog):
    site.write("page.psp", "<% raise ValueError(query['v']) %>")
    site.client().get("/page.psp", params={"v": "x\nERROR forged\x1b[31m"})
    assert "forged" in caplog.text
    assert not any(
        line.startswith("ERROR forged") for record in caplog.records for line in record.getMessage().split("\n")
    )
    assert "\x1b" not in caplog.text


def test_text_of_an_error_is_no_html(site):
    reply = site.get("<% exit(404, query['v']) %>", "/page.psp?v=<script>")
    assert reply.headers["content-type"].startswith("text/plain")


def test_visitors_cannot_have_a_function_called_by_its_name_alone(site):
    """exit(0, name) with a name of the visitor's is the page's mistake; it still reaches allowed functions only."""
    site.write("page.psp", "<% exit(0, query['f']) %>")
    for name in ("__import__", "eval", "open", "exec", "_psp_end", "print"):
        assert site.client().get("/page.psp", params={"f": name}).status_code == 500
        assert "there is no function of that name" in str(site.failure())


@pytest.mark.parametrize(
    "name",
    [
        "../outside.txt",
        "/etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "page.psp",
        ".env",
        "sub/../../outside.txt",
        "link.txt",
        "sub",
        "a\0b",
        "",
    ],
)
def test_reply_file_sends_nothing_from_outside_and_no_source(site, tmp_path, name):
    (tmp_path.parent / "outside.txt").write_text(SECRET)
    (tmp_path / ".env").write_text(SECRET)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    reply = site.get(f"<% reply_file({name!r}) %>{SECRET}")
    assert (reply.status_code, SECRET in reply.text, "root:" in reply.text) == (500, False, False)


# ---- sessions


COOKIE = "__Host-session"
# Of the form that cookies of sessions have.
MADE_UP = f"{'A' * 32}.{'A' * 43}"


def given_cookie(reply):
    """What the reply's cookie says of the session."""
    name, _, value = reply.headers["set-cookie"].split(";")[0].partition("=")
    assert name == COOKIE
    return value


def with_cookie(value, name=COOKIE):
    return {"cookie": f"{name}={value}"}


def test_a_cookie_that_nobody_gave_is_not_taken_over(site):
    """Session fixation: an attacker's choice of a key never becomes a session."""
    site.write("page.psp", "<% session['n'] = 1 %>")
    given = given_cookie(site.client().get("/page.psp", headers=with_cookie(MADE_UP)))
    assert given != MADE_UP
    site.write("show.psp", "<%= 'n' in session %>")
    assert site.client().get("/show.psp", headers=with_cookie(MADE_UP)).text == "False"
    assert site.client().get("/show.psp", headers=with_cookie(given)).text == "True"


def test_a_session_that_has_ended_is_not_taken_up_again(site):
    """Session fixation by an id that was the server's own."""
    site.write("page.psp", "<% session['n'] = 1 %>")
    given = given_cookie(site.client().get("/page.psp"))
    store = site.served.server._open_sessions().store
    for key in list(store._entries):
        store.delete(key)
    again = given_cookie(site.client().get("/page.psp", headers=with_cookie(given)))
    assert again.split(".")[0] != given.split(".")[0]


def test_a_cookie_that_another_secret_has_signed_is_another_visitor(site):
    """Forging: who knows how cookies are made, but not the secret."""
    site.write("page.psp", "<% session['n'] = 1 %>").write("show.psp", "<%= 'n' in session %>")
    given = given_cookie(site.client().get("/page.psp"))
    forger = Keys([b"f" * 32], "cookie")
    for host in ("localhost", "127.0.0.1", ""):
        forged = write_cookie(forger, given.split(".")[0], host)
        reply = site.client().get("/show.psp", headers=with_cookie(forged))
        assert reply.text == "False"
        assert given_cookie(reply).split(".")[0] != given.split(".")[0]


CHANGES = ["{}A", "A{}", "x; __Host-session={}x", "", "../../x", "%00", "None", "0", "*", "{}.sig", "{}={}"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_cookie_is_another_visitor(site, change):
    site.write("page.psp", "<% session['n'] = 1\nn = 1 %>").write("show.psp", "<%= 'n' in session %>")
    given = given_cookie(site.client().get("/page.psp"))
    assert site.client().get("/show.psp", headers=with_cookie(given)).text == "True"
    reply = site.client().get("/show.psp", headers=with_cookie(change.replace("{}", given)))
    assert reply.text == "False"


def test_the_cookie_of_a_connection_in_the_clear_names_no_session_over_tls(site):
    """Who is on the way may set cookies for plain HTTP, and none that begins with `__Host-`."""
    site.write("page.psp", "<% session['n'] = 1 %>").write("show.psp", "<%= 'n' in session %>")
    given = given_cookie(site.client().get("/page.psp"))
    assert site.client().get("/show.psp", headers=with_cookie(given, "session")).text == "False"


@pytest.mark.parametrize("name", ["session", COOKIE])
@pytest.mark.parametrize(
    "code",
    [
        "set_cookie('NAME', 'A' * 43, secure=True)",
        "delete_cookie('NAME', secure=True)",
        "add_header('Set-Cookie', 'NAME=' + 'A' * 43)",
        "set_header('set-cookie', 'NAME=' + 'A' * 43)",
    ],
)
def test_a_page_cannot_put_its_visitor_into_another_session(site, code, name):
    reply = site.get(f"<% {code.replace('NAME', name)} %>")
    assert (reply.status_code, "set-cookie" in reply.headers) == (500, False)
    assert "cookie" in str(site.failure())


def test_keys_of_sessions_cannot_be_guessed(site):
    site.write("page.psp", "x")
    keys = {given_cookie(site.client().get("/page.psp")).split(".")[0] for _ in range(20)}
    assert len(keys) == 20
    assert all(len(key) == 32 for key in keys), "192 bits"


@pytest.mark.parametrize("name", ["session", COOKIE])
def test_a_page_does_not_see_the_key_of_its_session(site, name):
    site.write("page.psp", "<%= headers %><%= request.cookies %><%= request.headers %><%= session %>")
    key = given_cookie(site.client().get("/page.psp"))
    reply = site.client().get("/page.psp", headers={"cookie": f"{name}={key}; other=1"})
    assert key not in reply.text
    assert reply.text.count("other") == 3


def test_visitors_in_one_worker_see_nothing_of_each_other(root, engine):
    one, two = (Visitor(root, engine=engine) for _ in range(2))
    one.run(f"<% secret = '{SECRET}'\ndef f(): return secret\nescape = f %>")
    for code in ("secret", "f()", "locals()['secret']", "eval('secret')"):
        assert "Error" in str(two.fail(f"<%= {code} %>", "/two.psp"))
    assert two.show("<%= escape('a') %>", "/two.psp") == "a"


def test_modules_are_not_shared_between_visitors(root, engine):
    one, two = (Visitor(root, engine=engine) for _ in range(2))
    with contextlib.suppress(portico.PageError):  # Modules cannot be changed at all.
        one.run("<% import json\njson.dumps = lambda v: 'stolen' %>")
    assert two.show("<% import json %><%= json.dumps([1]) %>", "/two.psp") == "[1]"


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("/tmp/portico-escape",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_in_a_store_is_not_run(root, engine, protocol):
    payload = pickle.dumps(Evil(), protocol)
    for state in (payload, b"PSP1" + payload, b"PSP1\0\0\0\x02[]" + payload):
        assert State.from_bytes(state) is None
        visitor = Visitor(root, engine=engine)
        visitor.state = state
        assert visitor.show("fine") == "fine"
    assert not os.path.exists("/tmp/portico-escape")


def test_a_state_that_was_tampered_with_harms_nobody_else(root, engine):
    """Stores outside of the process sign states; should one get through, a worker may die of it, and nothing more."""
    visitor, other = (Visitor(root, engine=engine) for _ in range(2))
    visitor.run("<% n = [1, 2, 3]\ndef f(x): return x %>")
    good = visitor.state
    for at in range(40, len(good), max(1, len(good) // 40)):
        for state in (good[:at], good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]):
            visitor.state = state
            with contextlib.suppress(portico.PageError):
                visitor.run("<%= f(n) %>")
    assert other.show("still here", "/other.psp") == "still here"


def test_a_dead_worker_is_replaced_and_said(site):
    import psutil

    assert site.get("one").text == "one"
    for child in psutil.Process().children(recursive=True):
        if child.name() == "monty":
            child.kill()
            wait_until(lambda child=child: child.status() == psutil.STATUS_ZOMBIE or not child.is_running(), "its end")
    answers = {site.get("two").status_code for _ in range(6)}
    assert answers <= {200, 500}
    assert site.get("three").text == "three"
