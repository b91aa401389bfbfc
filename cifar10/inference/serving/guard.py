"""Who may call: this machine's browsers, from this server's own page."""

import asyncio
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def is_loopback(host: str | None) -> bool:
    """Whether a name or an address is this machine's own, which no other machine can reach."""
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


class Guard:
    """Answers 403 to requests that a page of another site has sent, or has had sent by DNS rebinding.

    A browser names the page's site in Origin, and in Host the name under which it found the server. any_host: the
    server was opened to other machines, which reach it under names that are not known here.
    """

    def __init__(self, app: ASGIApp, any_host: bool):
        self.app, self.any_host = app, any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if not self.any_host and not is_loopback(part(f"//{host}", "hostname")):
                return await JSONResponse({"error": f"not served under the name {host}"}, 403)(scope, receive, send)
            if origin is not None and part(origin, "netloc") != host:
                return await JSONResponse({"error": "not for pages of other sites"}, 403)(scope, receive, send)
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:  # by uvicorn, which would print a traceback for each
            await JSONResponse({"error": "the server is being stopped"}, 503)(scope, receive, send)


def part(url: str, name: str) -> str | None:
    try:
        return getattr(urlsplit(url), name)
    except ValueError:
        return None
