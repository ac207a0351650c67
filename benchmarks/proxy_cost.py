"""What the proxy in front of Flower's server costs: seconds a call, and for twenty megabytes.

    python benchmarks/proxy_cost.py

A stand-in for the server that reads a body and answers as many bytes, over TLS on loopback, called
directly and through the proxy; the median of several calls. Both ends and the proxy share the
processor.
"""

import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from fedpace.deploy.certificates import make_development_ca
from fedpace.deploy.keys import add_key
from fedpace.deploy.proxy import fleet_proxy

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from deploy.processes import answers, free_port, wait_until

STAND_IN = """
import sys
import uvicorn

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

uvicorn.run(app, port=int(sys.argv[1]), log_level="warning",
            ssl_certfile=sys.argv[2], ssl_keyfile=sys.argv[3])
"""
KEY = ec.generate_private_key(ec.SECP384R1())


def seconds(client: httpx.Client, size: int, count: int) -> float:
    """Return the median seconds of a call with a body of that size, and as much back."""
    body, taken = bytes(size), []
    for _ in range(count):
        timestamp = now().isoformat()
        headers = {
            "flwr-public-key": b64encode(public_key_to_bytes(KEY.public_key())).decode(),
            "flwr-timestamp": timestamp,
            "flwr-signature": b64encode(sign_message(KEY, timestamp.encode())).decode(),
        }
        began = time.perf_counter()
        answer = client.post("/v1/fleet/push-object", content=body, headers=headers)
        taken.append(time.perf_counter() - began)
        assert answer.status_code == 200 and len(answer.content) == size
    return statistics.median(taken)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        made = make_development_ca(Path(folder), [])
        inner, outer, keys = free_port(), free_port(), Path(folder) / "keys"
        public = KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        add_key(keys, "one", public.decode())
        command = [sys.executable, "-c", STAND_IN, str(inner), str(made.certificate), str(made.key)]
        with subprocess.Popen(command) as server:
            proxy = fleet_proxy("127.0.0.1", outer, f"https://127.0.0.1:{inner}", made, keys)
            wait_until(lambda: answers(inner), "the stand-in's port")
            context = ssl.create_default_context(cafile=made.ca)
            print("                     directly   through the proxy")
            for name, size, count in (("1 kB", 1000, 300), ("20 MB", 20_000_000, 10)):
                found = []
                for port in (inner, outer):
                    url = f"https://localhost:{port}"
                    with httpx.Client(base_url=url, verify=context, timeout=60) as client:
                        seconds(client, 1000, 20)
                        found.append(seconds(client, size, count))
                print(f"{name:>6} each way   {1e3 * found[0]:8.1f} ms   {1e3 * found[1]:8.1f} ms")
            proxy.stdin.close()  # type: ignore[union-attr]
            proxy.wait()
            server.terminate()


if __name__ == "__main__":
    main()
