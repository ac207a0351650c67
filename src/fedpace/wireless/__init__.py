"""The air: links, shared bandwidth, when a client starts to send, and who the clients are.

Imports NumPy, SciPy's special functions and `fedpace.core`.
"""
