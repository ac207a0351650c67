"""The set-up of the testbed, as docs/testbed.md shows it.

python benchmarks/testbed_picture.py docs/img/testbed.png
"""

import sys
from typing import Any

from fedpace.reporting.style import GRID, INK, MUTED, PALETTE, styled

REAL, PACED = PALETTE["method-0"][0], PALETTE["method-1"][0]
ROWS = {"client 0": 3.0, "client 1": 2.0, "client N - 1": 0.4}


@styled
def draw(path: str) -> None:
    """Draw namespaces as boxes, links as lines, and what is shaped where."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    made = Figure(figsize=(8.2, 4.0), layout="constrained")
    axes = made.subplots()
    axes.set(xlim=(0, 10), ylim=(-0.5, 4.5))
    axes.set_axis_off()

    def box(x: float, y: float, width: float, height: float, text: str, **given: Any) -> None:
        style = {"facecolor": "white", "edgecolor": MUTED, "linewidth": 1.0} | given
        axes.add_patch(Rectangle((x, y), width, height, **style))
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)

    def note(x: float, y: float, text: str, colour: str, **given: Any) -> None:
        axes.text(
            x, y, text, color=colour, fontsize=7.5, **{"ha": "center", "va": "center"} | given
        )

    for x, text in ((1.35, "a namespace per client"), (5.3, "access point's namespace"),
                    (8.9, "server's namespace")):  # fmt: skip
        axes.text(x, 4.35, text, ha="center", fontsize=8.5, color=INK, fontweight="bold")
    for i, (name, y) in enumerate(ROWS.items()):
        box(0.1, y, 2.5, 0.75, f"fedpace join, {name}\nFlower's node, training")
        note(1.35, y - 0.13, "paced to its profile", PACED)
        axes.plot([2.6, 4.0], [y + 0.37] * 2, color=REAL, linewidth=1.6)
        if i == 0:
            note(3.22, y + 0.66, "own link, HTB:\nall it carries\nalone, or a trace", REAL)
        box(4.0, y + 0.17, 0.6, 0.4, f"c{i}" if i < 2 else "cN-1")
    note(1.35, 1.55, "...", MUTED)
    note(3.3, 1.62, "veth pairs", MUTED)
    axes.add_patch(Rectangle((3.85, 0.25), 2.9, 3.75, fill=False, edgecolor=GRID, linewidth=1.2))
    box(4.95, 1.2, 0.75, 1.9, "bridge\nlan0")
    for y in ROWS.values():
        axes.plot([4.6, 4.95], [y + 0.37, min(max(y + 0.37, 1.3), 3.0)], color=MUTED)
    box(6.05, 1.95, 0.6, 0.4, "server", facecolor=GRID)
    axes.plot([5.7, 6.05], [2.15, 2.15], color=MUTED)
    axes.plot([6.65, 7.8], [2.15, 2.15], color=REAL, linewidth=3.0)
    box(7.8, 1.5, 2.1, 1.3, "fedpace serve\nFlower's SuperLink\nplan, allocator")
    note(7.22, 3.35, "the uplink: one HTB root of W,\na class for each client", REAL)
    axes.annotate("", (6.8, 2.3), (7.1, 3.1), arrowprops={"arrowstyle": "->", "color": REAL})
    axes.annotate("", (6.35, 1.9), (8.4, 0.6), arrowprops={"arrowstyle": "->", "color": INK})
    axes.plot([8.85, 8.85], [1.5, 0.75], color=INK, linewidth=0.9)
    note(8.6, 0.35, "shares of the round or event\nbecome class rates, live (tc)", INK)
    note(5.0, -0.35, "blue: shaped by the kernel and measured      orange: real training, then a "
         "wait      sockets, TCP, bytes, Flower: real", MUTED)  # fmt: skip
    made.savefig(path)


if __name__ == "__main__":
    draw(sys.argv[1])
