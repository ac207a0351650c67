"""What a deployment needs around Flower: certificates, keys, a secure server with one way in.

Imports `fedpace.core`, Flower and what comes with it.
"""

from importlib.util import find_spec

from fedpace.core.errors import MissingExtraError

if find_spec("flwr") is None:
    raise MissingExtraError("flwr", "flower")
