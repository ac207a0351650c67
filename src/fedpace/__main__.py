"""``python -m fedpace`` is the command line."""

from fedpace.cli import main

main()
