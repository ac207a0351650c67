"""Shared by all tests."""

import os
import sys
from pathlib import Path

# Tests run side by side, one process a core: threads of their own would only wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# No test asks the hub. It is read on import, so it must be there before: warm.py forks what is
# loaded.
os.environ["HF_HUB_OFFLINE"] = "1"

# Support modules such as `federation.toy` are imported from the tests' own folder.
sys.path.insert(0, str(Path(__file__).parent))
