"""A login: who it is stays in `request.session` from request to request, until the logout or two minutes without any.

The first line that it prints logs in, looks, and logs out again, with one cookie; the second has no cookie. Ctrl-C
stops it. Without `sessions=` they end with the program; docs/sessions.md says how to keep them.
"""

import portico
import portico.testing

router = portico.Router()


@router.post("/login")
def login(request):
    # A real one asks for a password.
    request.session.renew()  # so that an id that somebody else has given to this client is worth nothing
    request.session["name"] = request.form().get("name", "nobody")
    return portico.response(200, f"welcome, {request.session['name']}\n")


@router.post("/logout")
def logout(request):
    request.session.end()
    return portico.response(200, "good-bye\n")


@router.post("/")
@router.get("/")
def home(request):
    if "name" not in request.session:
        return portico.response(401, "who are you?\n")
    request.session["visits"] = request.session.get("visits", 0) + 1
    return portico.response(200, f"{request.session['name']}, visit {request.session['visits']}\n")


with portico.testing.server(router) as running:
    url = running.url
    print(f"curl --insecure --cookie '' --data name=Ada {url}/login {url}/ {url}/ {url}/logout {url}/")
    print(f"curl --insecure {url}/", flush=True)
    running.server.serve_forever()
