"""What comes in: the picture in a request's body, within limits, in memory alone."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator

from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

SECONDS = 30  # that a body may take
DRAINED = 1 << 28  # bytes that are read and thrown away, so that the client, still sending, can read the answer


class InMemory(MultiPartParser):
    """Starlette's parser of forms, which would write what is larger than 1 MB to the disk."""

    spool_max_size = sys.maxsize


async def read_body(request: Request, max_bytes: int) -> bytes:
    """HTTPException 400, 408 or 413 if it does not arrive whole, in time and within the limit."""
    limited = Request(request.scope, Limited(request, max_bytes).receive)
    try:
        return await asyncio.wait_for(limited.body(), SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        raise HTTPException(408, f"the picture did not arrive within {SECONDS} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client went away") from None


def picture_in(body: bytes, headers: Headers) -> bytes:
    """The picture that is the body, or the field `file` of a form; HTTPException 400 if there is none.

    Call it in a thread: a form of nothing but false boundaries takes seconds.
    """
    form = headers.get("content-type", "").lower().startswith("multipart/form-data")
    if not (content := asyncio.run(file_of(body, headers)) if form else body):
        raise HTTPException(400, "no picture: send it as the body, or as the field `file` of a form")
    return content


async def file_of(body: bytes, headers: Headers) -> bytes:
    async def parts() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await InMemory(headers, parts(), max_files=1, max_fields=8).parse()
    except (MultiPartException, KeyError, UnicodeError) as error:  # without a boundary; with the charset `undefined`
        raise HTTPException(400, f"the form cannot be read: {error}") from error
    file = form.get("file")
    return await file.read() if isinstance(file, UploadFile) else b""


class Limited:
    """A request's body, of which no more than `max_bytes` are handed on; HTTPException 413 for a longer one."""

    def __init__(self, request: Request, max_bytes: int):
        self.request, self.max_bytes, self.count = request, max_bytes, 0

    async def receive(self) -> Message:
        message = await self.request.receive()
        self.count += len(message.get("body", b""))
        if self.count > self.max_bytes:
            await self.drain(message)
            raise HTTPException(413, f"larger than {self.max_bytes / 1e6:g} MB: send a smaller picture")
        return message

    async def drain(self, message: Message) -> None:
        until = time.monotonic() + SECONDS
        while message.get("more_body") and self.count < DRAINED and time.monotonic() < until:
            message = await self.request.receive()
            self.count += len(message.get("body", b""))
