"""What a page is written in: tags, blocks, indentation, includes, layouts, and errors at lines of the page."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

import portico
from page_sites import Visitor
from portico.pages._calls import watched
from portico.pages._engine import Engine
from portico.pages._language import compile_page


@pytest.fixture(scope="module")
def engine():
    engine = Engine(portico.PageLimits(seconds=1.0), 1)
    yield engine
    engine.close()


@pytest.fixture
def visitor(tmp_path, engine):
    async def slow(value):
        return value * 2

    def boom():
        raise LookupError("the host's own trouble")

    return Visitor(tmp_path, engine=engine, functions={"rows": range_of, "slow": slow, "boom": watched(boom)})


def range_of(count):
    return [f"row <{number}>" for number in range(count)]


# ---- tags


@pytest.mark.parametrize(
    ("page", "output"),
    [
        ("plain <b>text</b>\n", "plain <b>text</b>\n"),
        ("", ""),
        ("<%= 1 + 1 %>", "2"),
        ("<%= '<b>&\"\\'' %>", "&lt;b&gt;&amp;&quot;&#39;"),
        ("<%- '<b>&' %>", "<b>&"),
        ("<%- -1 %>", "-1"),
        ("<%= None %>|<%= True %>|<%= 1.5 %>|<%= [1, '<'] %>", "None|True|1.5|[1, &#39;&lt;&#39;]"),
        ("<% x = 3 %><%= x %>", "3"),
        ("<%# nothing %>a<%# 1/0\n of two lines %>b", "ab"),
        ("<% # nothing %>a", "a"),
        ("<%= 1 # one %>|<%= (2,\n 3)[0] # two\n %>", "1|2"),
        ("a <%% b %> c", "a <% b %> c"),
        ("<%= '%%>' %>", "%&gt;"),
        ("<%= 7 % 4 %>", "3"),
        ("\ufeffa\r\nb", "a\nb"),
        ("<% print('raw <b>') %>", "raw <b>\n"),
        ("<%= escape('<') %>", "&amp;lt;"),
        ("é <%= 'ü' %> \U0001f600", "é ü \U0001f600"),
        ("<%= (x := 4) %><%= x %>", "44"),
    ],
)
def test_tags(visitor, page, output):
    assert visitor.show(page) == output


@pytest.mark.parametrize(
    ("page", "output"),
    [
        ("a\n  <% x = 1 %>  \nb\n", "a\nb\n"),
        ("<% for i in range(2): %>\n  <li>\n<% end %>\n", "  <li>\n  <li>\n"),
        ("a <% x = 1 %>\nb", "a \nb"),
        ("<% x = 1 %> b\n", " b\n"),
        ("<%\nx = 1\ny = 2\n%>\nz", "z"),
        ("<%# gone %>\nz", "z"),
        ("  <%= 1 %>\nz", "  1\nz"),
        ("<%= 1 -%>\nz", "1z"),
        ("<%= 1 -%>  z\n", "1  z\n"),
        ("a\n<% x = 1 %>", "a\n"),
        ("<% x = 1 %>\n<% y = 2 %>\n\nz", "\nz"),
    ],
)
def test_lines_with_nothing_but_code_leave_no_trace(visitor, page, output):
    assert visitor.show(page) == output


# ---- blocks


@pytest.mark.parametrize(
    ("page", "output"),
    [
        ("<% for r in rows(2): %>[<%= r %>]<% end %>.", "[row &lt;0&gt;][row &lt;1&gt;]."),
        (
            "<% for i in range(3): %><% if i == 1: %>one<% elif i: %>two<% else: %>none<% end %>,<% end %>",
            "none,one,two,",
        ),
        ("<% while False: %>a<% else: %>b<% end %>", "b"),
        (
            "<% try: %><%= 1/0 %><% except ZeroDivisionError as e: %><%= e %><% finally: %>!<% end %>",
            "division by zero!",
        ),
        ("<% if True: %><% end %>empty", "empty"),
        ("<% if False: %>a<% else: %><% end %>b", "b"),
        ("<% if False: %><% # only a note %><% end %>b", "b"),
        ("<% match 2: %>\n <% case 1: %>one<% case 2 | 3: %>some<% end %>.", "some."),
        ("<% def card(t): %><b><%= t %></b><% end %><% card('x') %><% card('y') %>", "<b>x</b><b>y</b>"),
        ("<% x = [\n 1,\n 2,\n] %><%= x %>", "[1, 2]"),
        ("<% if 1: x = 1 %><%= x %>", "1"),
        ("<% for i in range(2): # comment %><%= i %><% end # for %>", "01"),
        ("<% f = lambda x: x %><%= f(1) %>", "1"),
    ],
)
def test_blocks_open_in_one_tag_and_close_in_another(visitor, page, output):
    assert visitor.show(page) == output


@pytest.mark.parametrize(
    "code",
    [
        "<% if 1:\n       x = 1\n   else:\n       x = 2 %>",
        "<% if 1:\n    x = 1\nelse:\n    x = 2 %>",
        "<% if 1:\n  x = 1 %>",
        "<%\n      if 1:\n          x = 1\n      else:\n          x = 2\n%>",
        "<%\n\tif 1:\n\t\tx = 1\n%>",
        "<div><div><% y = 0\n              x = 1 %>",
        "<% y = 0\nx = 1 %>",
        "<% def f():\n     return 1\nx = f() %>",
        "<% class A:\n  one = 1\n%><% x = A.one %>",
        "<%\n# a note at another depth\n   x = 0\n   # and one\n   x += 1\n%>",
    ],
)
def test_indentation_is_taken_as_it_is_meant(visitor, code):
    assert visitor.show(code + "|<%= x %>").endswith("|1")


def test_strings_that_span_lines_keep_their_indentation(visitor):
    page = '<% if 1: %><%\n     x = """a\n  b\n        c"""\n     y = 1\n%><%= x %><% end %><% f = lambda: x %>'
    assert visitor.show(page) == "a\n  b\n        c"


@pytest.mark.parametrize(
    ("page", "line", "message"),
    [
        ("a\n<% for x in y: %>\n", 2, "for is not closed: a <% end %> is missing"),
        ("a\n\n<% end %>", 3, "end without a block that is open"),
        ("<% if 1: %>\n<% end; x = 1 %>", 2, "end stands alone in its tag"),
        ("\n<% else: %>", 2, "else without a block that it goes on with"),
        ("<% if 1: %>\n<%= 1 + %><% end %>", 2, "no expression: invalid syntax"),
        ("\n\n<% x = = 2 %>", 3, "invalid syntax"),
        ("\n<%\nx = 1\nx = = 2\n%>", 4, "invalid syntax"),
        ("\n<%= f(), g() %>", 2, "no expression: more than one value, or none"),
        ("<%= a), b( %>", 1, "no expression: "),
        ("<%= %>", 1, "<%= %> without an expression"),
        ("a\nb <% x", 2, "<% without a %>"),
        ("a\n<%= x\n<% y %>", 3, "no expression: "),
        ("\n<%\nx = 1\n  y = 2\n%>", 4, "unexpected indent"),
        ("<%\nif 1:\n  for x in y:\n%>\n<% end %>", 3, "begins at the depth of the tag's first line"),
        ("<% match 1: %> text <% case 1: %><% end %>", 1, "text between match and its first case"),
        ("\n<% _psp_p = 1 %>", 2, "names with _psp_ in them are portico's own"),
        ("\n<% include(name) %>", 2, "takes the name of a page in quotes"),
        ('\n<% include("gone.psp") %>', 2, "there is no page /gone.psp"),
        ('\n<% include("page.html") %>', 2, "its name ends in .psp"),
        ('<% include("page.psp") %>', 1, "/page.psp includes itself"),
        ('<% layout("page.psp") %>', 1, "in a circle"),
    ],
)
def test_what_is_no_page_is_told_with_its_line(visitor, page, line, message):
    error = visitor.fail(page)
    assert (error.page, error.line, error.reason) == ("/page.psp", line, "syntax")
    assert message in str(error)


# ---- errors while it runs


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("a\nb\n<%= 1/0 %>", 3),
        ("<%\nx = 1\n\ny = 1/0\n%>", 4),
        ("<% for i in range(3): %>\n<% if i == 2: %>\n<%= 1/0 %>\n<% end %><% end %>", 3),
        ("<%= (1,\n2,\n1/0) %>", 3),
        ('<% x = """\n\n""" %>\n<%= 1/0 %><% f = lambda: 1 %>', 4),
        ("<% def f(): %>\n\n<%= 1/0 %><% end %>\n<% f() %>", 3),
        ("text\n<% f = lambda: 1/0 %>\n\n<%= f() %>", 2),
    ],
)
def test_errors_have_the_lines_of_the_page(visitor, page, line):
    error = visitor.fail(page)
    assert (error.page, error.line, error.reason) == ("/page.psp", line, "error")
    assert "ZeroDivisionError: division by zero" in str(error)


def test_errors_in_what_is_included_have_its_name_and_line(visitor):
    visitor.write("\n\n<%= 1/0 %>", "/parts/_part.psp")
    error = visitor.fail('a\n<% include("parts/_part.psp") %>')
    assert (error.page, error.line) == ("/parts/_part.psp", 3)


def test_errors_in_a_function_of_an_earlier_page_have_that_page_and_say_who_called(visitor):
    visitor.show("\n<% def half(x): %>\n<% return 1/x %><% end %>", "/lib.psp")
    error = visitor.fail("a\n\n\n<%= half(0) %>")
    assert (error.page, error.line) == ("/lib.psp", 3)
    assert "called from /page.psp, line 4" in str(error)


def test_errors_of_host_functions_are_the_cause(visitor):
    error = visitor.fail("\n<% boom() %>")
    assert error.line == 2
    assert isinstance(error.__cause__, LookupError)
    assert visitor.show("<%\ntry:\n  boom()\nexcept LookupError as e:\n  print(e) %>") == "the host's own trouble\n"


# ---- includes and layouts


def test_includes_see_and_set_the_page_s_variables(visitor):
    visitor.write("<h1><%= title %></h1>\n<% seen = True %>", "/_head.psp")
    assert visitor.show('<% title = "A&B" %>\n<% include("_head.psp") %>\n<%= seen %>') == "<h1>A&amp;B</h1>\nTrue"


def test_includes_are_found_from_the_page_that_names_them_or_from_the_root(visitor):
    visitor.write("two", "/a/two.psp")
    visitor.write('one <% include("two.psp") %> <% include("/top.psp") %>', "/a/one.psp")
    visitor.write("top", "/top.psp")
    assert visitor.show('<% include("a/one.psp") %>') == "one two top"


def test_includes_stand_in_blocks(visitor):
    visitor.write("<% if i: %>more<% else: %>first<% end %>,", "/_part.psp")
    assert visitor.show('<% for i in range(2): %><% include("_part.psp") %><% end %>') == "first,more,"


def test_a_block_does_not_end_in_another_file(visitor):
    visitor.write("<% end %>", "/_part.psp")
    error = visitor.fail('<% if 1: %><% include("_part.psp") %>')
    assert (error.page, error.line) == ("/_part.psp", 1)


def test_layouts_stand_around_pages_and_each_other(visitor):
    visitor.write("<html><title><%= title %></title><%- content %></html>", "/_outer.psp")
    visitor.write('<% layout("_outer.psp") %><main><%- content %></main>', "/_inner.psp")
    page = '<% layout("_inner.psp") %><% title = "T" %><p>body</p>'
    assert visitor.show(page) == "<html><title>T</title><main><p>body</p></main></html>"


def test_a_page_changes_with_its_file_and_with_what_it_includes(visitor):
    visitor.write("one", "/_part.psp")
    page = '<% include("_part.psp") %> <%= 1 %>'
    assert visitor.show(page) == "one 1"
    visitor.write("two!", "/_part.psp")
    program = visitor.folder.program("/page.psp")
    assert program.texts[0] == "two!"
    assert visitor.folder.program("/page.psp") is program
    assert visitor.show("other") == "other"


# ---- state


def test_variables_functions_and_classes_are_there_in_the_next_page(visitor):
    visitor.run(
        "<% n = 1\ndef double(x): return x * 2\nclass Point:\n  def __init__(self, x): self.x = x\np = Point(5)\nimport math %>",
        "/first.psp",
    )
    assert visitor.show(
        "<% n += 1 %><%= n %> <%= double(n) %> <%= p.x %> <%= Point(7).x %> <%= math.floor(2.5) %>"
    ) == ("2 4 5 7 2")
    assert visitor.show("<%= n %>", "/third.psp") == "2"


def test_what_each_request_gives_is_of_this_request_also_in_functions_of_earlier_pages(visitor):
    visitor.given["query"] = lambda: {"a": "1"}
    visitor.run("<% def asked(): return query['a'] %><% query['b'] = 2 %>", "/lib.psp")
    visitor.given["query"] = lambda: {"a": "2"}
    assert visitor.show("<%= asked() %> <%= len(query) %>") == "2 1"


def test_a_session_s_values_come_back_where_pages_changed_them(visitor):
    result = visitor.run("<% session['n'] = [1, {'a': b'x'}] %><% f = lambda: 1 %>")
    assert result.session == {"n": [1, {"a": b"x"}]}
    assert visitor.run("<% session['m'] = 1 %><% exit() %>").session == {"m": 1}


@pytest.mark.parametrize("end", ["", "<% exit() %>", "<% f = lambda: 1 %>"])
def test_what_a_request_brought_is_not_kept(visitor, end):
    visitor.given["query"] = lambda: {"password": "SECRET" * 1000}
    visitor.values["token"] = "SECRET"
    visitor.run("<%= query['password'] %><%= session['token'] %><%= request %>" + end)
    assert b"SECRET" not in visitor.state
    assert visitor.show("<%= len(query['password']) %>") == "6000"


def test_a_page_of_an_older_version_is_told_from_the_new(visitor):
    visitor.run("\n\n\n<% def f(): return 1/0 %>", "/lib.psp")
    old = visitor.state
    visitor.run("<% def f(): return 2 %>", "/lib.psp")
    assert visitor.show("<%= f() %>") == "2"
    visitor.state = old
    assert visitor.fail("<%= f() %>").line == 4


def test_async_functions_are_awaited_and_run_together(visitor):
    assert visitor.show("<%= await slow(2) %>") == "4"
    page = "<% import asyncio\ndef f(): pass\na, b = await asyncio.gather(slow(1), slow(2)) %><%= a + b %>"
    assert visitor.show(page) == "6"


def test_states_do_not_grow_with_the_number_of_requests(visitor):
    page = (
        "<% rows_ = sorted(rows(5), key=lambda r: r) %><% def f(x): %>*<%= x %><% end %>"
        "<% for r in rows_: %><% f(r) %><% end %><%= query %><%= request %>"
    )
    for _ in range(5):
        visitor.run(page)
    after_five = len(visitor.state)
    for _ in range(60):
        visitor.run(page)
    # The time that it ran stands in it too, as a number of one to nine bytes.
    assert abs(len(visitor.state) - after_five) < 40


def test_a_state_of_another_version_or_with_other_limits_is_begun_anew(visitor, tmp_path):
    visitor.run("<% n = 1 %>")
    other = Engine(portico.PageLimits(seconds=1), 1)
    try:
        stranger = Visitor(tmp_path, engine=other)
        for state in (visitor.state, b"PSP1", b"", b"PSP1\0\0\0\x02{}", b"\x80\x04garbage"):
            stranger.state = state
            assert "NameError" in str(stranger.fail("<%= n %>"))
    finally:
        other.close()


# ---- whatever the text is

FRAGMENTS = [
    *("<%", "%>", "<%=", "<%-", "-%>", "<%#", "<%%", "%%>", "\n", "    ", "\t", "\r\n", "\0", "é", "text", "<b>"),
    *(
        "for x in [1, 2]:",
        "if 1:",
        "else:",
        "elif 0:",
        "end",
        "end;",
        "try:",
        "except:",
        "finally:",
        "match 1:",
        "case 1:",
    ),
    *(
        "x = 1",
        "def f():",
        "class A:",
        "return",
        "await f()",
        "lambda: 1",
        "global x",
        "x: int = 3",
        "y := 2",
        "*a",
        "**b",
    ),
    *('"""', "'''", 'f"{x}"', 'f"""{', "}", "#c", "(", ")", "[", "\\", "\\\n", ";", ":", "'", '"', "@f", "\x0c", "0x"),
    *(
        'include("a.psp")',
        'include("gone.psp")',
        'layout("a.psp")',
        "print(1)",
        "exit()",
        "1/0",
        "break",
        "import json",
    ),
]


@given(strategies.lists(strategies.sampled_from(FRAGMENTS), max_size=12), strategies.booleans())
def test_any_text_is_a_program_or_an_error_at_a_line_of_it(engine, fragments, in_a_tag):
    text = " ".join(fragments)
    text = f"<% {text} %>" if in_a_tag else text

    def include(_, name):
        if name != "a.psp":
            raise FileNotFoundError(name)
        return "/a.psp", "<%= 1 %><%- content %>"

    names = {"request": dict, "query": dict, "headers": dict, "session": dict}
    failed = None
    try:
        program = compile_page("/page.psp", text, include)
        assert len(program.places) == len(program.source.split("\n")) or not program.source
        engine.run(program, None, names, {})
    except portico.PageError as error:
        failed = error
    if failed is not None:
        assert failed.reason in ("syntax", "error", "time")
        assert failed.page in ("/page.psp", "/a.psp")
        assert 0 <= failed.line <= text.replace("\r\n", "\n").count("\n") + 1
