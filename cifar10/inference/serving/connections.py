"""Connections that are held without asking for anything are closed; uvicorn does so only after an answer."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

SECONDS = 10  # in which a request's head is to arrive


class Impatient(H11Protocol):
    """HTTP with a deadline for each request's head, however slowly it trickles in."""

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.await_request_after(None)

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()
        self.await_request_after(answered)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.deadline is not None:
            self.deadline.cancel()  # it would keep the connection in memory

    def await_request_after(self, answered: RequestResponseCycle | None) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
        self.deadline = self.loop.call_later(SECONDS, lambda: self.cycle is answered and self.transport.close())
