"""The algorithm, on dictionaries of arrays; it does not know where the clients are.

Imports `fedpace.core`, `fedpace.estimation.privacy_loss`, `fedpace.wireless.service` and NumPy.
"""
