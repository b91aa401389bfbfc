"""Signals that end a program: the first lets a training step finish and be saved, the second stops at once.

Lightning has nothing like it: on SIGINT it stops without saving, on SIGTERM it raises in mid-step, and under Slurm it
saves in mid-step, so that a resumed run would not end in the same bits.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

REQUEUE = (signal.SIGUSR1, signal.SIGUSR2) if hasattr(signal, "SIGUSR1") else ()  # Slurm's: Lightning's, submitit's
WATCHED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """Raised by a signal; the exit code is the conventional one, 128 + the signal's number.

    Not an Exception: no error handler and no sweep carries on after it.
    """

    def __init__(self, signum: int):
        super().__init__(128 + signum)
        self.signum = signum

    def __reduce__(self) -> tuple:
        return Interrupted, (self.signum,)


class Signals:
    """What SIGINT (Ctrl-C) and SIGTERM do while `watched`.

    The first raises Interrupted, or, while `hold` is set, is noted in `received` for the holder to act upon; so it is
    once an error is `ending` the job, as when torchrun stops those that have just lost a process, and the error tells
    more. The second ends the process, even in the middle of an operation.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.hold = self.ending = False
        self.watching: tuple[int, ...] = ()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # the only one that gets signals
            yield
            return
        outer, before = self.watching, {signum: signal.getsignal(signum) for signum in (*WATCHED, *REQUEUE)}
        # one that is ignored, as after nohup, is left so
        self.watching = tuple(signum for signum in WATCHED if before[signum] != signal.SIG_IGN)
        self.received, self.hold, self.ending = None, False, False
        self.listen()
        try:
            yield
        finally:
            self.watching, self.hold = outer, False
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def watch_requeue(self) -> None:
        """Watch for Slurm's requeue signal too."""
        if self.watching:
            self.watching = (*self.watching, *REQUEUE)
            self.listen()

    def listen(self) -> None:
        """Install our handler, ahead of Lightning's again."""
        if self.received is None:
            for signum in self.watching:
                signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: object) -> None:
        for watched in self.watching:
            signal.signal(watched, signal.SIG_DFL)
        self.received = signum
        name = signal.Signals(signum).name
        if self.hold:
            say(f"{name}: finishing the step and saving it; a second signal stops at once")
        elif self.ending:
            say(f"{name}: ending with an error already; a second signal stops at once")
        else:
            say(f"stopped by {name}")
            raise Interrupted(signum)


def say(line: str) -> None:
    """Print to stderr in a way that is safe in a signal handler, which may interrupt another print."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())


signals = Signals()  # one per process
