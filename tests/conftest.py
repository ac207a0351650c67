"""Shared by all tests."""

import sys
from pathlib import Path

# Support modules such as `federation.toy` are imported from the tests' own folder.
sys.path.insert(0, str(Path(__file__).parent))
