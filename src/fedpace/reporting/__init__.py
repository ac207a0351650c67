"""Reads a run folder and tells what happened: numbers, figures, one page.

Imports `fedpace.core` and `fedpace.run_folder`; matplotlib and jinja2 (the extra "plots") inside
functions.
"""
