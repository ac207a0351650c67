r"""Privacy of clients: each cuts its update to a norm, the server adds noise to the sum.

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018, with the
weights and the independent sampling of this project. Ours: the norm is that of the update as it is
aggregated, with the server's factor r/k, so that whatever the rank and the index set, one client
adds a vector of at most :math:`w_n C` to the sum (docs/theory.md, section 10).
"""

import math
from dataclasses import replace

import numpy as np

from fedpace.core.adapter import AdapterLayout, squared_norms
from fedpace.core.errors import RunError
from fedpace.core.messages import ClientTask
from fedpace.core.privacy import Privacy
from fedpace.core.rng import rng_for
from fedpace.core.sketch import Sketch
from fedpace.federation.aggregation import Aggregate, Memory, Returned
from fedpace.federation.hooks.hook import Sum, UpdateHook, Values
from fedpace.federation.hooks.rounding import UploadDtype

NAME = "clipping"
_LENGTHENING: dict[UploadDtype, float] = {"float32": 1e-6, "bfloat16": 2**-8 + 1e-6}
"""By how much rounding may make an update longer, as a share of its norm: to nearest, at most half
a unit in the last place; the arithmetic of float32 itself is in it."""
PRIVATE_DTYPES = tuple(_LENGTHENING)
"""Types of the uplink whose rounding has such a bound."""


def clipping(
    privacy: Privacy, sent: AdapterLayout, sketch: Sketch, upload_dtype: UploadDtype
) -> UpdateHook:
    """Return what cuts updates on the client, refuses longer ones, and adds noise at the server.

    Args:
        privacy: C and z.
        sent: layout of what travels.
        sketch: has the factor r/k.
        upload_dtype: one of `PRIVATE_DTYPES`; it rounds after the cut, so the cut is as much
            shorter.
    """
    limit = privacy.clip_norm / (1 + _LENGTHENING[upload_dtype])

    def norm(values: Values, task: ClientTask) -> float:
        lora, head = squared_norms(values, sent)
        factor = sketch.server_scale(task.sketch_rank, sent.rank) if lora else 1.0
        return math.sqrt(factor**2 * lora + head)

    def cut(values: Values, task: ClientTask) -> Values:
        length = norm(values, task)
        # What is not finite cannot be cut; the server says whose it was.
        if not math.isfinite(length) or length <= limit:
            return values
        factor = np.float32(limit / length)
        return {name: value * factor for name, value in values.items()}

    def checked(values: Values, task: ClientTask) -> Values:
        length = norm(values, task)
        if math.isfinite(length) and length > privacy.clip_norm:
            raise RunError(
                f"its norm {length:.4g} is above [privacy] clip_norm = {privacy.clip_norm:g}, to "
                "which a client has to cut it",
                public=f"its norm is above clip_norm = {privacy.clip_norm:g}",
            )
        return values

    def noised(memory: Memory, back: Returned, add_up: Sum) -> tuple[Aggregate, Memory]:
        result = add_up(back)
        deviation = privacy.noise_multiplier * privacy.clip_norm * back.largest_weight
        if deviation == 0:
            return result, memory
        # Also where nobody came: that nobody came must not show.
        rng = rng_for(back.server_seed, "noise", back.round_index)
        moved = dict(result.update)
        for t in sent.tensors:
            noise = deviation * rng.standard_normal(t.shape)
            moved[t.name] = moved[t.name] + noise.astype(np.float32)
        return replace(result, update=moved, squared_norms=squared_norms(moved, sent)), memory

    return UpdateHook(NAME, client=cut, arrival=checked, server=noised)
