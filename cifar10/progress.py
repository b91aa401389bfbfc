"""Progress of anything longer than two seconds: a bar on a terminal, an occasional line in a file."""

import logging
import time

from tqdm import tqdm

log = logging.getLogger(__name__)


class Progress:
    """A bar on a terminal; elsewhere, a log line every half minute. total: None if it is not known beforehand."""

    def __init__(self, total: int | None, what: str, seconds: float = 30.0):
        self.bar = tqdm(total=total, desc=what, unit="img", disable=None, leave=False)
        self.total, self.what, self.seconds = total, what, seconds
        self.done, self.begun = 0, time.perf_counter()
        self.due = self.begun + seconds

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self, count: int) -> None:
        self.bar.update(count)
        self.done, now = self.done + count, time.perf_counter()
        if self.bar.disable and now >= self.due:
            rate = self.done / (now - self.begun)
            of, left = "", ""
            if self.total is not None:
                of, left = f" of {self.total:,}", f", {(self.total - self.done) / rate:.0f} s left"
            log.info(f"{self.what}: {self.done:,}{of}, {rate:,.0f} img/s{left}")
            self.due = now + self.seconds
