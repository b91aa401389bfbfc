"""What `python -m cifar10 serve` bears: many clients at once, and hostile uploads beside good ones.

python -m tests.benchmarks.load RUN PICTURE
"""

import io
import itertools
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from tests.inference.test_serving import HOSTILE

CLIENTS, REQUESTS, UPLOADS = 20, 2000, 200


def main(run: str, picture: str) -> None:
    command = [sys.executable, "-u", "-m", "cifar10", "serve", f"run={run}", "port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            lines = iter(server.stdout.readline, "")
            address = next(found[0] for line in lines if (found := re.search(r"http://\S+/", line))) + "predict"
            good, process = Path(picture).read_bytes(), psutil.Process(server.pid)
            many(address, [good] * 200)
            print(f"{run}: memory before {memory(process):,.0f} MB")
            for _ in range(3):
                shown("2,000 good", *many(address, [good] * REQUESTS), process)
            noise = io.BytesIO()
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (6000, 8000, 3), dtype=np.uint8)).save(
                noise, "JPEG"
            )
            large = [
                bytes(100_000_000),
                noise.getvalue()[:15_000_000],
            ]  # zeros; a truncated photograph of 48 megapixels
            hostile = list(itertools.islice(itertools.cycle([*HOSTILE.values(), b"", *large]), UPLOADS))
            with ThreadPoolExecutor(2) as pool:
                bad = pool.submit(many, address, hostile, 4)
                alone = pool.submit(many, address, [good] * REQUESTS, CLIENTS)
                shown("2,000 good, beside the hostile", *alone.result(), process)
                shown("200 hostile", *bad.result(), process)
            shown("2,000 good, afterwards", *many(address, [good] * REQUESTS), process)
        finally:
            server.terminate()


def many(address: str, bodies: list[bytes], clients: int = CLIENTS) -> tuple[Counter, list[float], float]:
    """How often each status came, milliseconds of each request, and seconds in all."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(lambda body: post(address, body), bodies))
    return Counter(status for status, _ in found), [taken for _, taken in found], time.perf_counter() - begun


def post(address: str, body: bytes) -> tuple[int, float]:
    begun = time.perf_counter()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data=body), timeout=60) as response:
            response.read()
            status = response.status
    except urllib.error.HTTPError as error:
        error.read()
        status = error.code
    return status, 1000 * (time.perf_counter() - begun)


def shown(what: str, statuses: Counter, taken: list[float], seconds: float, process: psutil.Process) -> None:
    p50, p95, p99 = (statistics.quantiles(taken, n=100)[k] for k in (49, 94, 98))
    print(f"{what}: {dict(statuses)}, {len(taken) / seconds:,.0f} requests/s, memory {memory(process):,.0f} MB")
    print(f"    milliseconds: p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f}, slowest {max(taken):.0f}", flush=True)


def memory(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:3])
