"""Task with minimal imports, for the process in which the benchmark measures."""

import time


def busy(clock, megabytes):
    block = b"1" * (megabytes << 20)
    with clock:
        time.sleep(0.1)
    return {"last": block[-1]}
