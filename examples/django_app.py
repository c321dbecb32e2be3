"""A Django site in one file, by ASGI: a view, an async one, an upload, events that are sent as they happen.

Needs `pip install django`. `--wsgi` serves the same by WSGI. Ctrl-C stops it.
"""

import asyncio
import hashlib
import sys

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

import portico.testing

settings.configure(
    ALLOWED_HOSTS=["localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="not for the world",
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
)
django.setup()


def greet(request, name):
    return HttpResponse(f"hello {name}\n", content_type="text/plain")


async def slow(request):
    await asyncio.sleep(0.1)  # another service, say
    return HttpResponse("done\n", content_type="text/plain")


@csrf_exempt  # for curl; forms of browsers have a token
def upload(request):
    file, digest = request.FILES["file"], hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return JsonResponse({"name": file.name, "size": file.size, "sha256": digest.hexdigest()})


async def ticks(request):
    async def events():
        for number in range(3):
            yield f"data: tick {number}\n\n"
            await asyncio.sleep(0.1)

    return StreamingHttpResponse(events(), content_type="text/event-stream")


urlpatterns = [path("greet/<name>", greet), path("slow", slow), path("upload", upload), path("ticks", ticks)]

if __name__ == "__main__":
    by_wsgi = "--wsgi" in sys.argv
    handler = portico.wsgi(get_wsgi_application()) if by_wsgi else portico.asgi(get_asgi_application())
    with portico.testing.server(handler) as running:  # for your certificates: portico.Server, see readme.py
        print(f"curl --insecure {running.url}/greet/world")
        print(f"curl --insecure {running.url}/slow")
        print(
            f"curl --insecure --write-out '\\n' --form 'file=some text;filename=note.txt' {running.url}/upload",
            flush=True,
        )
        if not by_wsgi:  # Django would collect an async iterator first
            print(f"curl --insecure --no-buffer {running.url}/ticks", flush=True)
        running.server.serve_forever()
