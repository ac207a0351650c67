"""Whether this machine can shape a network."""

import time

import pytest

from fedpace.testbed.kernel import examine, missing

LACKING = missing(examine())
needs_kernel = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


def wait_until(true, what, seconds):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.005)
