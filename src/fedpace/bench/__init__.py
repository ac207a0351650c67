"""Methods compared by the virtual wall-clock time they need to a target: `fedpace bench`."""
