"""OpenMP's waiting policy; read by libgomp when torch is loaded, hence imported before it.

By default an idle OpenMP thread spins on its core. With other work on the machine the spinning
threads hold the cores that the working ones wait for, and a step can take ten to a hundred times
as long. ``OMP_WAIT_POLICY=PASSIVE`` lets them sleep. A value that the user has set is kept.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
