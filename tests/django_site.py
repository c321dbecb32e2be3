"""A Django site for `test_frameworks_django.py`. Settings are one for the process; the tests share it.

`told` of `frameworks.py` is a variable of this module: a site of Django's is a module, and has no other place.
"""

import asyncio
import contextvars

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

import frameworks
from clients import GENEROUS

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["localhost", "127.0.0.1"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="not for the world",
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        SESSION_COOKIE_SECURE=True,
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
        # What Django logs of a 500 goes to the root, where tests see it.
        LOGGING={"version": 1, "disable_existing_loggers": False},
        LOGGING_CONFIG="logging.config.dictConfig",
    )
    django.setup()

told = frameworks.Told()
by_asgi, by_wsgi = get_asgi_application(), get_wsgi_application()
of_this_request = contextvars.ContextVar("of_this_request")


@require_safe
def greet(request, name):
    return JsonResponse({"name": name, "q": request.GET.get("q")})


@csrf_exempt
def form(request):
    return JsonResponse(request.POST.dict())


@csrf_exempt
def upload(request):
    file = request.FILES["file"]
    answer = frameworks.of_file(file.name, b"".join(file.chunks()))
    return JsonResponse({**answer, "note": request.POST["note"], "kept_in": type(file).__name__})


@csrf_exempt
def echo(request):
    return HttpResponse(request.body)


def large(request):
    return HttpResponse(frameworks.LARGE)


def steps(request):
    made = told.asteps() if hasattr(request, "scope") else told.make_steps()
    return StreamingHttpResponse(made, content_type="text/event-stream")


def endless(request):
    return StreamingHttpResponse(told.aendless() if hasattr(request, "scope") else told.endless())


def half(request):
    return StreamingHttpResponse(told.ahalf() if hasattr(request, "scope") else told.half())


def bad(request):
    raise ZeroDivisionError("on purpose")


def count(request):
    request.session["seen"] = request.session.get("seen", 0) + 1
    return JsonResponse(request.session["seen"], safe=False)


def moved(request):
    return redirect("greet", name="moved")


def cookies(request):
    response = HttpResponse()
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return response


async def awaits(request):
    of_this_request.set(request.path)
    await asyncio.sleep(0.01)
    return JsonResponse(
        [await sync_to_async(of_this_request.get)(), request.is_secure(), request.META["SERVER_PORT"]], safe=False
    )


async def waits(request):
    """For as long as the client does."""
    told.ran.set()
    try:
        await asyncio.sleep(GENEROUS)
    except asyncio.CancelledError:
        told.left.set()
        raise


urlpatterns = [
    path("greet/<name>", greet, name="greet"),
    *(
        path(view.__name__, view)
        for view in (form, upload, echo, large, steps, endless, half, bad, count, moved, cookies, awaits, waits)
    ),
]
