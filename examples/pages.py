"""Server pages with a guest book: a layout, a form, functions of the host, and variables that last from page to page.
Needs pydantic-monty: pip install 'portico[pages]'.

python examples/pages.py
"""

import os
import tempfile
import threading
from pathlib import Path

import portico

PAGES = {
    "_base.psp": """\
<!doctype html>
<title><%= title %></title>
<h1><%= title %></h1>
<%- content -%>
<p>Page <%= seen %> of your visit
""",
    "_count.psp": """\
<% try: %>
<% seen += 1 %>
<% except NameError: %>
<% seen = 1 %>
<% end %>
""",
    "index.psp": """\
<% layout("_base.psp") %>
<% include("_count.psp") %>
<% title = "Guest book" %>
<% for name, text in entries(): %>
<p><b><%= name %></b>: <%= text %>
<% else: %>
<p>Nobody was here yet.
<% end %>
<form method=post action=sign.psp><input name=name><input name=text><button>Sign</button></form>
""",
    "sign.psp": """\
<% if request.method != "POST" or not query.get("text"): %>
<% exit(400, "a text is missing\\n") %>
<% end %>
<% sign(query.get("name") or "somebody", query["text"]) %>
<% exit(303, "/") %>
""",
}

kept = tempfile.TemporaryDirectory(prefix="portico-pages-")
for page, text in PAGES.items():
    Path(kept.name, page).write_text(text)

book: list[tuple[str, str]] = []
lock = threading.Lock()


def entries():
    with lock:
        return book[-20:]


def sign(name, text):
    with lock:
        book.append((name[:40], text[:400]))


if __name__ == "__main__":
    pages = portico.Pages(kept.name, functions={"entries": entries, "sign": sign})
    with portico.Server(pages) as server:
        url = server.listen(0, tls=False).url
        print(f"Process {os.getpid()} serves a guest book. Try:")
        print(f"curl {url}/")
        print(f"curl {url}/sign.psp")
        print(f"curl -s -L -c jar -b jar -d name=Ada -d 'text=2 < 3' {url}/sign.psp")
        print("Ctrl-C ends it.", flush=True)
        server.serve_forever()
    pages.close()
    kept.cleanup()
