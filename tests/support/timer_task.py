"""A task for the benchmark's other process that imports next to nothing."""

import time


def busy(clock, megabytes):
    block = b"1" * (megabytes << 20)
    with clock:
        time.sleep(0.1)
    return {"last": block[-1]}
