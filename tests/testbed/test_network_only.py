import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, System
from fedpace.testbed.classes import gross
from fedpace.testbed.network_only import network_hints, network_table, shares_of
from fedpace.wireless.network import Network
from testbed.shaped import needs_kernel, wait_until

SRC = Path(__file__).parents[2] / "src"


def network(efficiency, rule="equal-share"):
    clients = Clients.from_columns(
        data_weight=[1] * 3, step_seconds=[1] * 3, spectral_efficiency=efficiency
    )
    return Network(clients, System(3e6, 4, allocation=rule))


def test_each_client_has_an_equal_part_of_the_hertz():
    made = shares_of(network([1.0, 2.0, 4.0]))
    assert [made.leaves[n].rate_bps for n in range(3)] == pytest.approx(
        [gross(1e6), gross(2e6), gross(4e6)]
    )
    assert network_table("run", network([1.0, 2.0, 4.0]), made).row_count == 4
    assert all("run-" in line for line in network_hints("run"))


def test_a_band_that_is_lent_needs_links_of_one_efficiency():
    lent = shares_of(network([2.0] * 3, "work-conserving"))
    assert {leaf.ceil_bps for leaf in lent.leaves.values()} == {gross(6e6)}
    with pytest.raises(InputError, match="choose equal-share"):
        shares_of(network([1.0, 2.0, 4.0], "work-conserving"))


@needs_kernel
def test_the_network_is_there_until_it_is_interrupted(tmp_path):
    (tmp_path / "cell.toml").write_text(
        "[data]\nclients = 2\n[network]\nbandwidth_hz = 1e6\nallocation = 'equal-share'\n"
        "[payload]\nfixed_bits = 1e4\nbits_per_rank = 1e4\n"
    )
    said = tmp_path / "said"
    command = [sys.executable, "-m", "fedpace", "testbed", "cell.toml", "--network-only"]
    with said.open("w") as output:
        running = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SRC)}, stdout=output,
            # As on a terminal, also where the tests themselves run in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    try:
        wait_until(lambda: "until this command" in said.read_text(), "the network", 60)
        spaces = sorted(
            path.name for path in Path("/run/netns").glob(f"fedpace-{running.pid}-*")
        )  # fmt: skip
        assert [name.rsplit("-", 1)[1] for name in spaces] == ["ap", "c0", "c1", "server"]
        ping = ["ip", "netns", "exec", spaces[1], sys.executable, "-c",
                "import socket; socket.create_connection(('10.77.0.1', 9), 5)"]  # fmt: skip
        # Refused by the server's kernel: the way there is.
        assert "Connection refused" in subprocess.run(ping, capture_output=True, text=True).stderr
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(30)
    assert not list(Path("/run/netns").glob(f"fedpace-{running.pid}-*"))
    assert running.returncode == 0
