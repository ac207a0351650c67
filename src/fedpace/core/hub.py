"""Whether the Hugging Face hub answers, asked once and quickly.

Its client retries every file for many seconds. Where nothing answers, models and data come from
its cache on this machine, or there is an error at once.
"""

import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

WAIT_SECONDS = 4.0
"""How long the hub has to answer."""


@cache
def hub_answers() -> bool:
    """Return whether anything answers at the hub's address, within `WAIT_SECONDS`.

    Nobody asks where the hub's own variable HF_HUB_OFFLINE forbids it.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true"):
        return False
    found: list[bool] = []
    # A thread: the name's lookup has pauses of its own that no timeout shortens.
    asking = threading.Thread(target=lambda: found.append(_ask()), daemon=True)
    asking.start()
    asking.join(WAIT_SECONDS)
    return bool(found and found[0])


def _ask() -> bool:
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=WAIT_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def offline(wanted: bool) -> Iterator[None]:
    """Keep the hub's clients that are imported from asking the network, where that is wanted.

    Args:
        wanted: False changes nothing.
    """
    names = ("huggingface_hub.constants", "datasets.config") if wanted else ()
    switches: list[Any] = [sys.modules[name] for name in names if name in sys.modules]
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    for switch in switches:
        switch.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value
