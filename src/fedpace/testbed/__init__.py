"""A run on a shaped network: every client a process in a network namespace of its own.

Linux and root; `ip` and `tc` of iproute2. Imports `deploy`, `experiment` and what stands below.
"""
