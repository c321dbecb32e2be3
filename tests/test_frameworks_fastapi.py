"""FastAPI on portico: every check of `frameworks.py`, and what FastAPI has of its own."""

import contextlib
import threading
from typing import Annotated

import pytest
from fastapi import BackgroundTasks, Body, Depends, FastAPI, Form, Request, Response, UploadFile
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.middleware.sessions import SessionMiddleware

import portico
from clients import GENEROUS
from frameworks import LARGE, Checks, of_file


class Item(BaseModel):
    name: str
    price: float = Field(gt=0)


def site_of(told):
    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield {"items": {}}

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(SessionMiddleware, secret_key="not for the world", https_only=True)

    @app.get("/greet/{name}")
    async def greet(name: str, q: str | None = None):
        return {"name": name, "q": q}

    @app.post("/form")
    async def form(a: Annotated[str, Form()], b: Annotated[str, Form()]):
        return {"a": a, "b": b}

    @app.post("/upload")
    def upload(file: UploadFile, note: Annotated[str, Form()]):
        return {**of_file(file.filename, file.file.read()), "note": note}

    @app.post("/echo")
    async def echo(request: Request):
        return Response(await request.body())

    @app.head("/large", include_in_schema=False)
    @app.get("/large")
    def large():
        return Response(LARGE)

    @app.get("/steps")
    async def steps():
        return StreamingResponse(told.asteps(), media_type="text/event-stream")

    @app.get("/endless")
    async def endless():
        return StreamingResponse(told.aendless())

    @app.get("/half")
    async def half():
        return StreamingResponse(told.ahalf())

    @app.get("/bad")
    async def bad():
        raise ZeroDivisionError("on purpose")

    @app.get("/count")
    async def count(request: Request):
        request.session["seen"] = request.session.get("seen", 0) + 1
        return request.session["seen"]

    @app.get("/moved")
    async def moved(request: Request):
        return RedirectResponse(request.url_for("greet", name="moved"))

    @app.get("/cookies")
    async def cookies(response: Response):
        response.set_cookie("one", "1")
        response.set_cookie("two", "2")

    @app.put("/items/{number}", status_code=201)
    async def put(number: int, item: Annotated[Item, Body()], request: Request, tasks: BackgroundTasks) -> Item:
        request.state.items[number] = item
        tasks.add_task(told.ran.set)
        return item

    @app.get("/items")
    async def items(request: Request) -> dict[int, Item]:
        return request.state.items

    def borrowed():
        told.steps.release()
        yield "borrowed"
        told.left.set()

    @app.get("/depends")
    def depends(thing: Annotated[str, Depends(borrowed)]):
        return [thing, threading.current_thread().name]

    return app


class TestFastAPI(Checks):
    @pytest.fixture
    def site(self, told):
        return portico.asgi(site_of(told), lifespan="on")

    def test_models_are_checked_and_state_lasts(self, client, told):
        answer = client.put("/items/1", json={"name": "bread", "price": 2.5})
        assert (answer.status_code, answer.json()) == (201, {"name": "bread", "price": 2.5})
        assert told.ran.wait(GENEROUS), "the background task"
        wrong = client.put("/items/2", json={"name": "air", "price": 0})
        assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["body", "price"])
        assert client.put("/items/x", content=b"{").status_code == 422
        assert client.get("/items").json() == {"1": {"name": "bread", "price": 2.5}}

    def test_dependencies_are_made_and_given_back(self, client, told):
        thing, thread = client.get("/depends").json()
        assert (thing, "MainThread" in thread) == ("borrowed", False)
        assert told.left.wait(GENEROUS)

    def test_its_documentation(self, client):
        assert "/items/{number}" in client.get("/openapi.json").json()["paths"]
        assert "swagger" in client.get("/docs").text

    def test_what_the_app_raises_is_told(self, served):
        assert served.get("/bad").status == 500
        assert served.errors.next(ZeroDivisionError)[1].path == "/bad"
