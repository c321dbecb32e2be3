"""A small site of many routes: paths with parameters, a part below a prefix, and a WSGI application beside it."""

import portico

router, api = portico.Router(), portico.Router()
notes = {"1": "buy bread"}


def text(body, status=200):
    return portico.response(status, f"{body}\n")


@router.get("/")
def front(request):
    return text(f"Notes are at {router.url_for('note', id=1)}.")


@api.get("/notes/{id}", name="note")
def read(request):
    note = notes.get(request.pathParameters["id"])
    return text(note) if note else portico.error(404)


@api.put("/notes/{id}")
async def write(request):
    notes[request.pathParameters["id"]] = request.text
    return text("kept", 201)


def old_site(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']} has {environ['PATH_INFO']}\n".encode("latin-1")]


def not_kept(request, response):
    """Sees every response of the API, its 404 and 405 too."""
    portico.add_header(response, "cache-control", "no-store")


api.add_middleware(leave=not_kept)
router.mount("/api", api)
router.mount("/old", portico.wsgi(old_site))

with portico.Server(router) as server:
    url = server.listen(0, tls=False).url
    for arguments in ("/", "/api/notes/1", "/api/notes/2 --request PUT --data wine", "/api/notes/2", "/old/page"):
        path, _, options = arguments.partition(" ")
        print(f"curl {options} {url}{path}".replace("  ", " "), flush=True)
    print(f"curl --request DELETE {url}/api/notes/1", flush=True)
    server.serve_forever()
