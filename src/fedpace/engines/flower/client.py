"""A client as a Flower app: it introduces itself, and trains what it is asked to.

The app holds no model. It calls what it was made with: in `fedpace join` the trainer in the same
process, in a plain Flower project a trainer that is built at the first message.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from fedpace.core.adapter import Role
from fedpace.core.errors import FedPaceError, public_part
from fedpace.core.sketch import Sketch
from fedpace.engines.exchange import Exchange
from fedpace.engines.flower.messages import (
    accepted_updates,
    assigned_bps,
    body_bytes,
    empty_message,
    is_empty_message,
    last_refusal,
    method_of,
    read_task,
    update_content,
)
from fedpace.engines.flower.roster import introduction, offer_of
from fedpace.federation.engine import Train

logger = logging.getLogger(__name__)
Handler = Callable[[Message, Context], Message]
Pace = Callable[[float, int], None]
"""Called before an answer is handed over, with the rate that the server assigned, bit/s, and the
bytes of the answer: what enforces the rate sets it here."""


@dataclass(frozen=True, slots=True, eq=False)
class ClientWork:
    """What a client trains with."""

    exchange: Callable[[str], Exchange]
    """A method's name -> what both ends must agree on."""
    make_train: Callable[[Sketch, tuple[Role, ...]], Train]


def make_client_app(
    introduce: Callable[[Mapping[str, Any], Context], Mapping[str, Any]],
    work: Callable[[Context], ClientWork],
    *,
    pace: Pace = lambda rate_bps, upload_bytes: None,
    assigned: Callable[[float, int, str], None] = lambda rate_bps, accepted, refused: None,
) -> ClientApp:
    """Make the app of one client.

    Args:
        introduce: the server's offer and Flower's context -> facts: "name", "examples", or
            "refusal", the reason why this client cannot take part.
        work: Flower's context -> model and data; called with every task, so it should keep them.
        pace: what enforces the rate of the uplink.
        assigned: called with each task: the rate, how many of this client's updates the server
            has used so far, and why it refused the last one, "" where it did not.

    Returns:
        A `flwr.clientapp.ClientApp`.
    """
    app = ClientApp()

    def query(message: Message, context: Context) -> Message:
        if is_empty_message(message.content):
            return Message(empty_message(message.metadata.message_id), reply_to=message)
        return introduction(message, introduce(offer_of(message), context))

    def train(message: Message, context: Context) -> Message:
        client = work(context)
        exchange, content = client.exchange(method_of(message.content)), message.content
        task, wire = read_task(content, exchange)
        assigned(assigned_bps(content), accepted_updates(content), last_refusal(content))
        began = time.monotonic()
        aggregation = exchange.aggregation
        [update] = client.make_train(aggregation.sketch, aggregation.trained)([task])
        seconds = time.monotonic() - began
        content = update_content(update, task, wire, seconds)
        pace(assigned_bps(message.content), body_bytes(content))
        return Message(content, reply_to=message)

    app.query()(_discreet(query))
    app.train()(_discreet(train))
    return app


def _discreet(answer: Handler) -> Handler:
    """Send the kind of an error alone: its text may quote the client's examples."""

    def discreet(message: Message, context: Context) -> Message:
        try:
            return answer(message, context)
        except Exception as error:
            foreign = not isinstance(error, FedPaceError)
            logger.error("a message could not be answered: %s", error, exc_info=foreign)
            failed = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, public_part(error))
            return Message(failed, reply_to=message)

    return discreet
