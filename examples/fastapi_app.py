"""A FastAPI application: models, an upload, a background task, numbers that are sent as they are made.

Needs `pip install fastapi python-multipart`. Ctrl-C stops it.
"""

import asyncio
import contextlib
import hashlib

from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

import portico.testing


class Item(BaseModel):
    name: str
    price: float = Field(gt=0)


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"items": {}}  # one for the whole server; requests find it in `request.state`


app = FastAPI(lifespan=lifespan)


@app.put("/items/{number}", status_code=201)
async def put(number: int, item: Item, request: Request, tasks: BackgroundTasks) -> Item:
    request.state.items[number] = item
    tasks.add_task(print, f"item {number} is {item.name}", flush=True)  # after the response
    return item


@app.get("/items/{number}")
async def get(number: int, request: Request) -> Item:
    if number not in request.state.items:
        raise HTTPException(404, f"no item {number}")
    return request.state.items[number]


@app.post("/upload")
def upload(file: UploadFile) -> dict[str, str | int]:
    # `def` runs on a thread of the framework's.
    content = file.file.read()
    return {"name": file.filename or "", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@app.get("/count")
async def count(to: int = 3):
    async def numbers():
        for number in range(to):
            yield f"{number}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(numbers(), media_type="text/plain")


if __name__ == "__main__":
    with portico.testing.server(portico.asgi(app)) as running:  # for your certificates: portico.Server, see readme.py
        json = """--header 'content-type: application/json' --data '{"name": "bread", "price": 2.5}'"""
        show = "curl --insecure --write-out '\\n'"
        print(f"{show} --request PUT {json} {running.url}/items/1")
        print(f"{show} {running.url}/items/1")
        print(f"{show} {running.url}/items/2")
        print(f"{show} --form 'file=some text;filename=note.txt' {running.url}/upload")
        print(f"curl --insecure --no-buffer {running.url}/count", flush=True)
        running.server.serve_forever()
