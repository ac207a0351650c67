"""`fedpace testbed --network-only`: the shaped network alone, for an app of one's own."""

import numpy as np
from rich.table import Table

from fedpace.core.errors import InputError
from fedpace.testbed import links
from fedpace.testbed.band import Shares, assigned, borrowing, full_rates, one_efficiency
from fedpace.testbed.classes import FIRST, gross
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.network import Network


def shares_of(network: Network) -> Shares:
    """Return what classes get where no allocator runs: equal parts of the band, all N at once.

    Raises:
        InputError: the rule divides by who sends, which nobody tells here.
    """
    clients, band = network.clients, network.system.bandwidth_hz
    if network.allocation == "work-conserving":
        efficiency = one_efficiency(clients)
        if efficiency is None:
            raise InputError(
                "[network] allocation = 'work-conserving': where a hertz is worth more to one "
                "client than to another, the band is divided by who sends, which only a run "
                "tells; choose equal-share, or links of one spectral efficiency"
            )
        return borrowing(np.arange(len(clients)), clients, band, efficiency)
    hertz = np.minimum(clients.max_bandwidth_hz, band / len(clients))
    rates = rate_bps(hertz, **uplink(clients))
    return assigned(dict(enumerate(rates.tolist())), clients, band)


def network_table(run: str, network: Network, shares: Shares) -> Table:
    """Return a table of the namespaces, their addresses and rates of payload."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("namespace", "address", "rate, kbit/s", "at most"):
        table.add_column(column, justify="left" if column[0] in "na" and "t m" not in column
                         else "right")  # fmt: skip
    server = links.server(run)
    table.add_row(server.space, server.address, "", "")
    own = full_rates(network.clients, network.system.bandwidth_hz)
    for n, leaf in shares.leaves.items():
        place = links.client(run, n)
        most = min(leaf.ceil_bps / gross(1.0), float(own[n]))
        table.add_row(place.space, place.address, f"{leaf.rate_bps / gross(1.0) / 1e3:.0f}",
                      f"{most / 1e3:.0f}")  # fmt: skip
    return table


def network_hints(run: str) -> list[str]:
    """Return commands that use the network."""
    server, first = links.server(run), links.client(run, 0)
    return [
        f"ip netns exec {server.space} flower-superlink --insecure --host {server.address}",
        f"ip netns exec {first.space} flower-supernode --insecure "
        f"--superlink {server.address}:8000",
        f"tc -n {links.access_point(run)} class change dev {links.SERVER_PORT} parent 1:1 "
        f"classid 1:{FIRST:x} htb rate 500kbit ceil 500kbit    # client 0, live",
    ]
