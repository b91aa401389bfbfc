"""Run a command and print its seconds and peak memory as JSON: python launch.py COMMAND...

A process of its own, and a small one: on Linux a child's peak memory counts that of the process which started it.
"""

import json
import os
import subprocess
import sys
import time

if __name__ == "__main__":
    begun = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    print(json.dumps({"seconds": seconds, "peak_bytes": usage.ru_maxrss * unit}))
    sys.exit(os.waitstatus_to_exitcode(status))
