"""What of a server's step is not finite is named, and whose it was."""

import numpy as np

from fedpace.federation.divergence import fault_of_step

FINE = {"one": np.ones(2, np.float32)}


def test_the_client_whose_norm_overflows_is_named():
    norms = {3: (1.0, 2.0), 7: (1.0, np.inf)}
    told = fault_of_step(norms, (np.inf, 1.0), FINE, FINE, FINE)
    assert told == "the norm of the update of client 7 is beyond all numbers"
    told = fault_of_step({3: (1.0, 2.0)}, (np.nan, 1.0), FINE, FINE, FINE)
    assert told == "the norm of the aggregated update is beyond all numbers"
    assert fault_of_step({3: (1.0, 2.0)}, (1.0, 1.0), FINE, FINE, FINE) is None


def test_the_part_and_the_tensor_are_named():
    bad = {"one": np.array([1, np.nan], np.float32)}
    for place, what in enumerate(("global adapter", "server optimiser", "server's memory")):
        parts = [FINE] * 3
        parts[place] = bad
        told = fault_of_step({}, (0.0, 0.0), *parts)
        assert told == f"the {what} is not finite (tensor 'one')"
