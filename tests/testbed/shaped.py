"""Whether this machine can shape a network."""

import pytest

from fedpace.testbed.kernel import examine, missing

LACKING = missing(examine())
needs_kernel = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
