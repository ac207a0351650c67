"""Work that Flower's server and nodes hand out, done in this process.

With ``--isolation process`` Flower starts no process for an app: whoever asks for the next task is
given it. FedPace asks. So the model of a client stays loaded from message to message, a client
never runs code that a server sent, and the server's loop has a terminal.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from flwr.app import Error, Message
from flwr.cli.build import build_fab_from_disk
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid
from flwr.supernode.runtime.run_clientapp import (
    pull_task_input,
    push_message,
    push_task_output,
)

from fedpace.core.errors import RunError, public_part
from fedpace.deploy.flower_patches import shorten_app

_PROJECT = """
[project]
name = "fedpace"
version = "{version}"
dependencies = []
[tool.flwr.app]
publisher = "fedpace"
[tool.flwr.app.components]
serverapp = "fedpace.deploy.apps:server_app"
clientapp = "fedpace.deploy.apps:client_app"
[tool.flwr.app.config]
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Flower's server or node on this machine."""

    address: str
    """"127.0.0.1:PORT"."""
    ca: Path | None = None
    """Authority of its certificate; None where it serves without TLS."""

    @property
    def certificates(self) -> bytes | None:
        """The authority's certificate."""
        return None if self.ca is None else self.ca.read_bytes()


def start_run(server: Endpoint, folder: Path, version: str) -> None:
    """Open a run on Flower's server: nothing can be sent outside of one.

    Args:
        server: where.
        folder: empty; an app of no more than its description is written into it.
        version: of FedPace.
    """
    (folder / "pyproject.toml").write_text(_PROJECT.format(version=version), encoding="utf-8")
    content = build_fab_from_disk(folder)
    fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
    with ControlHttpClient.from_server_address(
        server.address,
        insecure=server.ca is None,
        root_certificates=server.certificates,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    ) as control:
        answer = control.StartRun(StartRunRequest(fab=fab_to_proto(fab)))
    if not answer.HasField("run_id"):
        raise RunError(f"Flower's server at {server.address} did not start a run: {answer.note}")


@contextmanager
def server_grid(server: Endpoint) -> Iterator[HttpGrid]:
    """Take the server's part of the run that `start_run` opened."""
    with _client(server, []) as asking:
        while (token := _acquire(asking, TaskType.SERVER_APP)) is None:
            time.sleep(0.05)
    grid = HttpGrid(server.address, server.ca is None, server.certificates, token=token)
    with _client(server, [RuntimeTokenHttpInterceptor(token)]) as client:
        heart = HeartbeatSender(make_task_heartbeat_fn_http(client))
        heart.start()
        answer = client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = answer.task_id
        TaskIdentity.run_id = answer.run.run_id
        TaskIdentity.node_id = answer.context.node_id
        grid.set_run(run_from_proto(answer.run))
        status, details = SubStatus.FAILED, "ended early"
        try:
            yield grid
            status, details = SubStatus.COMPLETED, ""
        finally:
            with suppress(httpx.HTTPError):
                client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=details))
            heart.stop()
            grid.close()


def serve_tasks(node: Endpoint, app: ClientApp, pause: Callable[[], None]) -> Iterator[str]:
    """Do the tasks of a node one after another, for ever.

    Args:
        node: where.
        app: what does them.
        pause: called where there was nothing to do.

    Yields:
        What was done: a type of message, after its answer was handed to the node, or "" where
        there was nothing to do.

    Raises:
        httpx.TransportError: the node is gone.
    """
    shorten_app()
    with _client(node, []) as asking:
        while True:
            token = _acquire(asking, TaskType.CLIENT_APP)
            yield "" if token is None else _do(node, token, app)
            if token is None:
                pause()


def _do(node: Endpoint, token: str, app: ClientApp) -> str:
    """One task, as Flower's own process for an app does it, without installing the server's."""
    with _client(node, [RuntimeTokenHttpInterceptor(token)]) as client:
        heart = HeartbeatSender(make_task_heartbeat_fn_http(client))
        heart.start()
        try:
            message, context, _, _ = pull_task_input(client)
            try:
                reply = app(message, context)
            except Exception as error:  # the server is told, whatever it was
                # Its kind alone: an exception's text may quote the client's examples.
                failed = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, public_part(error))
                reply = Message(failed, reply_to=message)
            push_message(client, reply, context)
            push_task_output(client, context, SubStatus.COMPLETED, "")
        finally:
            heart.stop()
    return str(message.metadata.message_type)


def _client(
    endpoint: Endpoint, interceptors: list[RuntimeTokenHttpInterceptor]
) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=endpoint.address,
        insecure=endpoint.ca is None,
        root_certificates=endpoint.certificates,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), *interceptors],
        retry_invoker=None,  # it is on this machine: where it does not answer it has ended
    )


def _acquire(client: RuntimeHttpClient, kind: TaskType) -> str | None:
    answer = client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
    return str(answer.token) if answer.HasField("task") and answer.token else None
