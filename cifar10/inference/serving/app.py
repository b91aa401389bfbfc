"""The routes: the page, POST /predict and GET /health."""

import asyncio
import base64
import io
import logging
import math
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from cifar10.data.pictures.decode import FORMATS, UnreadablePicture
from cifar10.errors import UserError
from cifar10.inference.gradcam import overlay
from cifar10.inference.loading import Model, Prediction
from cifar10.inference.serving.batching import Batcher
from cifar10.inference.serving.guard import Guard
from cifar10.inference.serving.uploads import picture_in, read_body
from cifar10.machine import cores

log = logging.getLogger("serve")

T = TypeVar("T")

PAGES = Environment(loader=PackageLoader("cifar10.inference"), autoescape=True, undefined=StrictUndefined)
SMALL_BYTES, SMALL_PIXELS = 1_000_000, 4_000_000  # what is opened, and decoded, within a fraction of a second
POLICY = (
    "default-src 'none'; img-src data: blob:; media-src blob:; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'"
)


class Server:
    """Several models that answer for the same picture. top: classes in an answer; max_bytes: of a picture's file."""

    def __init__(self, models: Sequence[Model], top: int, max_bytes: int):
        self.models, self.top, self.max_bytes = models, top, max_bytes
        self.decoders = ThreadPoolExecutor(min(4, cores()))  # Pillow lets other threads run
        self.slow = ThreadPoolExecutor(max(1, cores() // 2))  # what may take seconds, so that nothing else waits for it
        self.networks = ThreadPoolExecutor(1)  # which use all cores themselves
        self.batchers = [Batcher(model.probabilities, self.networks) for model in models]
        self.nonce, self.any_host = secrets.token_urlsafe(16), False

    def app(self, any_host: bool) -> Starlette:
        self.any_host = any_host
        routes = [
            Route("/", self.page),
            Route("/predict", self.predict, methods=["POST"]),
            Route("/health", self.health),
        ]
        guard = [Middleware(Guard, any_host=any_host)]
        handlers: dict[Any, Any] = {HTTPException: refuse, Exception: fail}
        return Starlette(routes=routes, middleware=guard, exception_handlers=handlers)

    async def page(self, request: Request) -> Response:
        text = PAGES.get_template("serve.html").render(
            models=self.models, nonce=self.nonce, max_bytes=self.max_bytes, any_host=self.any_host
        )
        headers = {
            **{"Content-Security-Policy": POLICY.format(nonce=self.nonce), "X-Content-Type-Options": "nosniff"},
            **{"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"},
        }
        return HTMLResponse(text, headers=headers)

    async def health(self, request: Request) -> Response:
        runs = [{"run": model.name, "classes": model.class_names} for model in self.models]
        return JSONResponse({"status": "ok", "runs": runs})

    async def predict(self, request: Request) -> Response:
        body = await read_body(request, self.max_bytes)
        explain = request.query_params.get("explain") == "true"
        pool = self.decoders if len(body) <= SMALL_BYTES else self.slow
        content = await self.in_thread(pool, picture_in, body, request.headers)
        if pool is self.decoders and not await self.in_thread(pool, is_small, content):
            pool = self.slow
        squares = await self.in_thread(pool, self.decode, content)
        each = zip(self.models, self.batchers, squares, strict=True)
        tasks = [self.answer(model, batcher, square, explain) for model, batcher, square in each]
        return JSONResponse({"runs": await asyncio.gather(*tasks)})

    def decode(self, content: bytes) -> list[Tensor]:
        """The picture as each model is to see it; HTTPException 422 if it cannot be read."""
        found: dict[object, Tensor] = {}
        try:
            for model in self.models:
                if model.square not in found:
                    found[model.square] = model.read(content)
        except UnreadablePicture as error:
            raise HTTPException(422, f"this picture cannot be read: {error}") from error
        return [found[model.square] for model in self.models]

    async def answer(self, model: Model, batcher: Batcher, square: Tensor, explain: bool) -> dict:
        """What one model says of a picture."""
        prediction = Prediction(model.class_names, await batcher(square))
        answer: dict[str, Any] = {
            "run": model.name,
            "predictions": [{"class": name, "probability": round(p, 6)} for name, p in prediction.top(self.top)],
            "calibration": model.calibration,
        }
        if explain:
            index = int(prediction.probabilities.argmax())
            answer |= await self.in_thread(self.networks, explanation, model, square, index)
        return answer

    def close(self) -> None:
        """Forget what waits for a thread, which the process would otherwise finish before it ends."""
        for pool in (self.decoders, self.slow, self.networks):
            pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    async def in_thread(executor: ThreadPoolExecutor, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)


def is_small(content: bytes) -> bool:
    """Whether the header of a picture promises few pixels."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return math.prod(image.size) <= SMALL_PIXELS
    except Exception:  # decode says why; HEIC is none of FORMATS
        return False


def explanation(model: Model, square: Tensor, index: int) -> dict[str, str]:
    """The picture as the network sees it, and what speaks for a class, as data URLs; or why that cannot be shown."""
    seen = {"seen": data_url(Image.fromarray(square.permute(1, 2, 0).numpy()))}
    try:
        return seen | {"explanation": data_url(overlay(square, model.explain(square, index)))}
    except UserError as error:
        return seen | {"unexplained": str(error)}


def data_url(picture: Image.Image) -> str:
    picture.save(file := io.BytesIO(), "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


async def refuse(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def fail(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "an error in the server; its terminal has more"}, 500)
