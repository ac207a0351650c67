"""What a deployment needs around Flower: certificates, keys, a secure server with one way in.

Imports Flower, what comes with it, and what stands below.
"""

from importlib.util import find_spec

from fedpace.core.errors import MissingExtraError

if find_spec("flwr") is None:
    raise MissingExtraError("flwr", "flower")
