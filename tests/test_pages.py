"""`portico.Pages`: pages over HTTP, what they may answer, forms, sessions, and what else lies in their folder."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import portico
from page_sites import Site
from portico.sessions import Sessions
from session_stores import Clock


class Cart:
    """What pages may do for their visitor."""

    greeting = "not for pages"

    def __init__(self, values):
        self._values = values

    def add(self, item):
        self._values.setdefault("items", []).append(item)
        return len(self._values["items"])

    def items(self):
        return self._values.get("items", [])

    async def slowly(self, value):
        return value + 1

    def fail(self):
        raise ValueError("no")

    def _secret(self):
        return "secret"


@pytest.fixture
def make_site(tmp_path, serve):
    sites = []

    def make_site(**options):
        sites.append(Site(tmp_path / "site", serve, **options))
        return sites[-1]

    (tmp_path / "site").mkdir()
    yield make_site
    for site in sites:
        site.close()


def answer(code, *args):
    """A function that answers, for `exit(0, "answer", ...)`."""
    return {"statusCode": code, "headers": {"x-args": json.dumps(args)}, "body": "by a function"}


async def answer_later():
    return {"statusCode": 202, "body": "later"}


@pytest.fixture
def site(make_site):
    functions = {"answer": answer, "answer_later": answer_later, "wrong": lambda: "no response"}
    return make_site(functions=functions)


# ---- which page


def test_pages_are_html_and_not_kept_by_others(site):
    reply = site.get("<p><%= 1 + 1 %></p>")
    assert (reply.status_code, reply.text) == (200, "<p>2</p>")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cache-control"] == "private, no-cache"
    assert reply.headers["x-content-type-options"] == "nosniff"
    reply = site.get("<% set_header('Cache-Control', 'max-age=60') %>")
    assert reply.headers.get_list("cache-control") == ["max-age=60"]


def test_index_psp_is_the_page_of_its_folder(site):
    assert site.get("root", "/index.psp").text == "root"
    site.write("sub/index.psp", "sub")
    client = site.client()
    assert client.get("/").text == "root"
    assert client.get("/sub/").text == "sub"
    moved = client.get("/sub?a=b")
    assert (moved.status_code, moved.headers["location"]) == (308, "/sub/?a=b")


def test_other_files_are_sent_as_they_are(site):
    site.write("style.css", "p {}").write("plain/index.html", "<p>")
    reply = site.client().get("/style.css")
    assert (reply.text, reply.headers["content-type"]) == ("p {}", "text/css; charset=utf-8")
    assert "etag" in reply.headers
    assert site.client().get("/plain/").text == "<p>"


@pytest.mark.parametrize(
    "path",
    ["/gone.psp", "/page.PSP", "/page.psp/", "/page.psp/x", "/_part.psp", "/.hidden.psp", "/page.psp~", "/page.psp.bak",
     "/%2e%2e/outside.psp", "/page.psp%00", "/link.psp", "/_parts/x.psp", "/_notes.txt", "/page%2Epsp%20"],
)  # fmt: skip
def test_what_is_not_a_page_is_not_found_and_no_source_is_shown(site, tmp_path, path):
    for name in (
        "page.psp",
        "page.psp~",
        "page.psp.bak",
        "page.PSP",
        "_part.psp",
        ".hidden.psp",
        "_parts/x.psp",
        "_notes.txt",
    ):
        site.write(name, "<% source = 'SOURCE' %>SOURCE")
    (tmp_path / "outside.psp").write_text("SOURCE")
    (site.path / "link.psp").symlink_to(tmp_path / "outside.psp")
    reply = site.client().get(path)
    assert (reply.status_code in (400, 404), "SOURCE" in reply.text) == (True, False)


def test_pages_go_where_handlers_go(tmp_path, serve):
    (tmp_path / "a.psp").write_text("<%= request.path %> <%= request.root_path %>")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "index.psp").write_text("sub")
    pages = portico.Pages(tmp_path)
    router = portico.Router()
    router.mount("/site", pages)
    with serve(router).httpx(http2=True) as client:
        assert client.get("/site/a.psp").text == "/a.psp /site"
        assert client.get("/site/sub").headers["location"] == "/site/sub/"
    pages.close()


def test_head_has_the_headers_of_get(site):
    site.write("page.psp", "1234")
    reply = site.client().head("/page.psp")
    assert (reply.status_code, reply.content, reply.headers["content-length"]) == (200, b"", "4")


# ---- what a page sees


def test_request_query_and_headers(site):
    page = (
        "<%= request.method %>|<%= request.path %>|<%= request.queryString %>|<%= query['a'] %>|<%= query %>|"
        "<%= headers['x-name'] %>|<%= request.cookies %>|<%= request.secure %>|<%= request.peername %>"
    )
    site.write("page.psp", page)
    headers = {"x-name": "<n>", "cookie": "c=1"}
    told = site.client().get("/page.psp?a=1&a=2&b=%26", headers=headers).text
    assert told == (
        "GET|/page.psp|a=1&amp;a=2&amp;b=%26|2|{&#39;a&#39;: &#39;2&#39;, &#39;b&#39;: &#39;&amp;&#39;}|&lt;n&gt;|"
        "{&#39;c&#39;: &#39;1&#39;}|True|127.0.0.1"
    )


def test_forms_fill_query(site):
    site.write("page.psp", "<%= query['a'] %>,<%= query['b'] %>,<%= len(request.files) %>")
    client = site.client()
    assert client.post("/page.psp?a=url&b=url", data={"a": "form ü"}).text == "form ü,url,0"
    reply = client.post("/page.psp?b=2", data={"a": "x"}, files={"f": ("n.txt", b"data", "text/plain")})
    assert reply.text == "x,2,1"
    site.write(
        "file.psp", "<% f = request.files[0] %><%= f['filename'] %> <%= f['data'].decode() %> <%= f['content_type'] %>"
    )
    assert client.post("/file.psp", files={"f": ("n.txt", b"data", "text/plain")}).text == "n.txt data text/plain"


def test_json_bodies(site):
    site.write("page.psp", "<%= request.json()['a'] %> <%= len(request.body) %> <%= request.text %>")
    assert site.client().post("/page.psp", json={"a": [1]}).text.startswith("[1] ")


def test_a_form_that_is_none_is_the_client_s_fault(site):
    site.write("page.psp", "<%= query %>")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert site.client().post("/page.psp", content=b"--b\r\nnonsense", headers=headers).status_code == 400


# ---- what a page answers


def test_status_headers_and_cookies_can_be_set_until_the_end(site):
    reply = site.get(
        "text<% set_status(201)\nset_header('X-One', 'a')\nset_header('x-one', 'b')\nadd_header('x-two', '1')\n"
        "add_header('x-two', '2')\nset_cookie('c', 'v', max_age=60)\ndelete_cookie('d')\nset_header('content-type', 'text/plain') %>"
    )
    assert (reply.status_code, reply.text) == (201, "text")
    assert reply.headers.get_list("x-one") == ["b"]
    assert reply.headers.get_list("x-two") == ["1", "2"]
    assert reply.headers["content-type"] == "text/plain"
    assert any(cookie.startswith("c=v; Max-Age=60") for cookie in reply.headers.get_list("set-cookie"))


@pytest.mark.parametrize(
    "code",
    ["set_header('x', 'a\\r\\nb: c')", "set_header('a b', 'c')", "set_header('content-length', '1')", "set_status(99)",
     "set_status('200')", "set_cookie('a', 'b\\r\\nc')", "add_header('x', 'a\\nb')"],
)  # fmt: skip
def test_what_cannot_be_sent_fails_in_the_line_that_says_so(site, code):
    assert site.get(f"\n<% {code} %>").status_code == 500
    error = site.failure()
    assert (error.line, error.reason) == (2, "error")


def test_exit_sends_what_was_printed(site):
    reply = site.get("a<% exit() %>b")
    assert (reply.status_code, reply.text) == (200, "a")


def test_exit_with_a_redirect_status_redirects(site):
    reply = site.get("a<% exit(303, '/x y') %>b")
    assert (reply.status_code, reply.headers["location"], reply.content) == (303, "/x%20y", b"")


def test_exit_with_a_status_and_text_answers_plain_text(site):
    reply = site.get("a<% exit(418, '<b>') %>b")
    assert (reply.status_code, reply.text) == (418, "<b>")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert site.get("<% exit(404) %>").text == "404 Not Found\n"


def test_exit_with_zero_has_a_function_answer(site):
    reply = site.get("a<% exit(0, 'answer', 203, 'x', [1]) %>b")
    assert (reply.status_code, reply.text, reply.headers["x-args"]) == (203, "by a function", '["x", [1]]')
    assert site.get("<% exit(0, 'answer_later') %>").text == "later"
    assert site.get("<% exit(0, 'reply_data', b'\\x00\\xff', 'image/x') %>").content == b"\x00\xff"


@pytest.mark.parametrize(
    "code", ["exit(0)", "exit(0, 'gone')", "exit('x')", "exit(0, 'wrong')", "exit(99, 'x')", "exit(0, 'boom')"]
)
def test_an_exit_that_means_nothing_is_an_error(site, code):
    assert site.get(f"<% {code} %>").status_code == 500
    assert site.failure().reason == "error"


@pytest.mark.parametrize(
    "page",
    [
        "a<%\ntry:\n  exit(402, 'ended')\nexcept:\n  print('swallowed') %>b",
        "a<%\ntry:\n  exit(402, 'ended')\nexcept BaseException:\n  exit(200, 'swallowed') %>b",
        "a<%\ntry:\n  exit(402, 'ended')\nfinally:\n  exit(200, 'finally') %>b",
        "<% def f():\n  try:\n    exit(402, 'ended')\n  except: pass\nwhile True: f() %>b",
        "<% for i in range(3): %><% try: %><% exit(402, 'ended') %><% except: %>no<% end %><% end %>",
        "<% import asyncio\nasync def f(): exit(402, 'ended')\nawait asyncio.gather(f(), f()) %>",
    ],
)
def test_exit_cannot_be_held_up(site, page):
    reply = site.get(page)
    assert (reply.status_code, reply.text) == (402, "ended")


def test_what_a_page_did_before_its_exit_counts(site):
    client = site.write("a.psp", "<% n = 5\nsession['s'] = 6\nexit(302, '/b.psp') %>").client()
    assert client.get("/a.psp").status_code == 302
    site.write("b.psp", "<%= n %> <%= session['s'] %>")
    assert client.get("/b.psp").text == "5 6"


def test_reply_file_sends_a_file_of_the_folder(site):
    site.write("files/a.txt", "0123456789").write("_private/b.bin", "b")
    site.write("page.psp", "gone<% reply_file('files/a.txt') %>")
    reply = site.client().get("/page.psp", headers={"range": "bytes=2-4"})
    assert (reply.status_code, reply.text, reply.headers["content-type"]) == (206, "234", "text/plain")
    reply = site.get("<% reply_file('_private/b.bin', 'image/png', 'ü.png') %>")
    assert (reply.text, reply.headers["content-type"]) == ("b", "image/png")
    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%BC.png"


def test_reply_data_error_and_redirect(site):
    reply = site.get("<% reply_data(b'\\x00\\xff', 'image/png') %>")
    assert (reply.content, reply.headers["content-type"]) == (b"\x00\xff", "image/png")
    reply = site.get("<% set_header('x-kept', '1')\nreply_error(403, 'not you') %>")
    assert (reply.status_code, reply.text, reply.headers["x-kept"]) == (403, "not you", "1")
    reply = site.get("<% reply_redirect('/there', 307) %>")
    assert (reply.status_code, reply.headers["location"]) == (307, "/there")


# ---- errors


def test_a_failing_page_is_a_500_that_says_nothing(site):
    reply = site.get("\n<% secret = 'SECRET'\n1/0 %>")
    assert (reply.status_code, reply.text) == (500, "500 Internal Server Error\n")
    error = site.failure()
    assert (error.page, error.line) == ("/page.psp", 3)
    assert site.get("fine").text == "fine"


def test_with_debug_a_failing_page_says_why_and_escapes_it(make_site):
    site = make_site(debug=True)
    reply = site.get("<b>\n<%= query['<script>'] %>\n")
    assert reply.status_code == 500
    assert "/page.psp, line 2: KeyError: &lt;script&gt;" in reply.text
    assert "&lt;%= query" in reply.text
    assert "<script>" not in reply.text
    assert reply.headers["content-security-policy"] == "default-src 'none'"
    assert site.failure().line == 2
    assert "for is not closed" in site.get("<% for x in y: %>").text


# ---- sessions


def test_each_visitor_has_variables_of_their_own(site):
    site.write("page.psp", "<% n = session['n'] = session['n'] + 1 if 'n' in session else 1 %><%= n %>")
    one, two = site.client(), site.client()
    assert [one.get("/page.psp").text, one.get("/page.psp").text, two.get("/page.psp").text] == ["1", "2", "1"]
    site.write("other.psp", "<%= n %>")
    assert (one.get("/other.psp").text, two.get("/other.psp").text) == ("2", "1")


def test_the_cookie_is_out_of_reach(site):
    reply = site.get("x")
    assert re.fullmatch(
        r"__Host-session=[\w-]{32}\.[\w-]{43}; Max-Age=28800; Path=/; Secure; HttpOnly; SameSite=Lax",
        reply.headers["set-cookie"],
    )
    assert reply.headers["vary"] == "cookie"


def test_an_error_takes_the_session_back_to_before_the_request(site):
    client = site.write("set.psp", "<% n = 1\nitems = [1]\nsession['s'] = 1 %>").client()
    client.get("/set.psp")
    site.write("fail.psp", "<% n = 2\nitems.append(2)\nsession['s'] = 2\ndef f(): pass\n1/0 %>")
    assert client.get("/fail.psp").status_code == 500
    site.write("show.psp", "<%= n %> <%= items %> <%= session['s'] %>")
    assert client.get("/show.psp").text == "1 [1] 1"


def test_a_session_that_is_idle_ends(make_site):
    sessions, clock = Sessions(timeout=100), Clock()
    sessions._clock = clock
    site = make_site(sessions=sessions)
    client = site.write(
        "page.psp", "<% session['n'] = session['n'] + 1 if 'n' in session else 1 %><%= session['n'] %>"
    ).client()
    assert [client.get("/page.psp").text for _ in range(2)] == ["1", "2"]
    clock.now += 101
    assert client.get("/page.psp").text == "1"


def test_requests_of_one_visitor_take_turns(site):
    client = site.write(
        "page.psp", "<% session['n'] = session['n'] + 1 if 'n' in session else 1 %><%= session['n'] %>"
    ).client()
    client.get("/page.psp")
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: int(client.get("/page.psp").text), range(40)))
    assert sorted(told) == list(range(2, 42))


def test_only_the_public_methods_of_the_session_class_can_be_called(make_site):
    site = make_site(session=Cart)
    client = site.write("add.psp", "<%= session.add(query['item']) %>").client()
    assert [client.get("/add.psp?item=a").text, client.get("/add.psp?item=b").text] == ["1", "2"]
    site.write("show.psp", "<%= session.items() %> <%= await session.slowly(1) %>")
    assert client.get("/show.psp").text == "[&#39;a&#39;, &#39;b&#39;] 2"
    for code in ("session._secret()", "session.greeting", "session._values", "session.__init__({})"):
        assert site.get(f"<%= {code} %>").status_code == 500
        assert site.failure().reason == "error"
    site.write("fail.psp", "<% session.add('c')\nsession.fail() %>")
    assert client.get("/fail.psp").status_code == 500
    assert client.get("/show.psp").text == "[&#39;a&#39;, &#39;b&#39;] 2"


def test_functions_of_the_host_see_plain_values_and_threads_of_their_own(make_site):
    seen = []

    def keep(*args, **options):
        seen.append((args, options, threading.current_thread().name))
        return {"list": [1, (2,), {3}, b"4", None]}

    site = make_site(functions={"keep": keep})
    assert site.get("<%= keep(1, [b'x'], a={'b': 1.5})['list'] %>").text == "[1, (2,), {3}, b&#39;4&#39;, None]"
    assert seen[0][:2] == ((1, [b"x"]), {"a": {"b": 1.5}})


# ---- wrong use


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"functions": {"exit": print}}, "pages know exit already"),
        ({"functions": {"request": print}}, "pages know request already"),
        ({"functions": {"_x": print}}, "no name that pages can call"),
        ({"functions": {"a b": print}}, "no name that pages can call"),
        ({"functions": {"x": 1}}, "x is a int, which cannot be called"),
        ({"session": 1}, "session: a class"),
        ({"workers": 0}, "workers: a number from 1"),
        ({"limits": {}}, "limits: portico.PageLimits"),
    ],
)
def test_wrong_options_are_told_at_once(tmp_path, options, message):
    with pytest.raises(portico.ConfigError, match=re.escape(message)):
        portico.Pages(tmp_path, **options)


@pytest.mark.parametrize(
    "options", [{"seconds": 0}, {"memory_bytes": -1}, {"calls": 1.5}, {"recursion": 10**6}, {"seconds": True}]
)
def test_wrong_limits_are_told_at_once(options):
    with pytest.raises(portico.ConfigError, match=r"limits: "):
        portico.PageLimits(**options)


def test_a_root_that_is_no_folder_is_told_at_once(tmp_path):
    with pytest.raises(portico.ConfigError):
        portico.Pages(tmp_path / "gone")
