"""What is measured from a run: the noise scale, what each client showed, pilots.

Imports `fedpace.core`, NumPy and SciPy.
"""
