"""Shared by all tests."""

import os
import sys
from pathlib import Path

# Tests run side by side, one process a core: threads of their own would only wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# Support modules such as `federation.toy` are imported from the tests' own folder.
sys.path.insert(0, str(Path(__file__).parent))
