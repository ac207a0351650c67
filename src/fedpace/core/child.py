"""What a process of a pool owes the one that began it."""

import os
import threading
from multiprocessing import connection, parent_process

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """Have this process end when its parent does.

    A parent that is killed cannot say so, and a pool would work on, and then wait for ever.
    """
    threading.Thread(target=_end, daemon=True).start()


def _end() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
