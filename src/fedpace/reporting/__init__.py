"""Reads a run folder and tells what happened: numbers, figures, one page.

Imports `fedpace.core` only; matplotlib and jinja2 (the extra "plots") inside functions.
"""
