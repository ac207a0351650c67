"""How long a message's two blocks were on their way, from what a server sees of it."""

from fedpace.engines.flower.arrivals import Upload
from fedpace.engines.flower.traffic import Traffic

FASTEST_BPS = 1e9
"""No link is taken to be faster, however little of a message's seconds seems to be transfer."""


def transfer_seconds(
    rest: float,
    came: Upload | None,
    up: int,
    down: int,
    traffic: Traffic,
    empty: tuple[float, float],
) -> tuple[float, float]:
    """Return the seconds of upload and download in what was not training.

    An empty message would have taken part of the rest, with the same requests. What is beyond moved
    the two blocks. The upload is timed by its bytes where they were seen, else by how much longer
    the answer was coming than an empty one; the requests moved at the same rates. Where nobody saw
    the answer come, the two share by bytes.

    Args:
        rest: from sending the task until its answer had come, without the training, s.
        came: how the answer did.
        up: bytes charged for the answer.
        down: bytes charged for the task.
        traffic: how many of them are requests.
        empty: seconds of an empty message, and of its answer's upload.
    """
    beyond = rest - float(empty[0])
    block_up, block_down = up - traffic.message_up, down - traffic.message_down
    fastest = 8 / FASTEST_BPS
    if came is None:
        seconds_a_byte = max(beyond / (block_up + block_down), fastest)
        upload, download = seconds_a_byte * up, seconds_a_byte * down
    else:
        coming = came.seconds - float(empty[1])
        if came.seconds_a_byte is not None:
            coming = came.seconds_a_byte * block_up
        upload = max(coming / block_up, fastest) * up
        download = max((beyond - coming) / block_down, fastest) * down
    within = min(1.0, rest / (upload + download))
    return within * upload, within * download
