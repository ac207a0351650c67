"""How figures look: one palette for light and dark pages, one width, units on time axes."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from fedpace.core.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Given = ParamSpec("Given")
Drawn = TypeVar("Drawn")

PALETTE = {
    "paper": ("#ffffff", "#10151c"),
    "ink": ("#1c2530", "#e4e9f0"),
    "muted": ("#5c6874", "#9aa7b5"),
    "grid": ("#dfe4ea", "#2b3541"),
    # Methods. Dark enough on white, light enough on black; told apart by the colour-blind.
    "method-0": ("#0b62a8", "#62b0f0"),
    "method-1": ("#d35400", "#ff9d57"),
    "method-2": ("#00886a", "#3fd0a8"),
    "method-3": ("#a8468c", "#eb9fd3"),
    "method-4": ("#8a6d00", "#e3c64d"),
    "method-5": ("#3a3f9e", "#a6abff"),
    # Where a round's time goes.
    "compute": ("#41566d", "#7f9bb8"),
    "upload": ("#8fabc7", "#4a6784"),
    "waiting": ("#c3d3e6", "#33485e"),
    "overhead": ("#dde3ea", "#27333f"),
    "compute-text": ("#fefefe", "#0f141b"),
    "upload-text": ("#101820", "#fdfdfd"),
}
"""Colours by name, (on light, on dark): figures are drawn in the first, a dark page swaps."""

INK, MUTED, GRID, PAPER = (PALETTE[name][0] for name in ("ink", "muted", "grid", "paper"))
_METHODS = [light for name, (light, _) in PALETTE.items() if name.startswith("method-")]
_LINES = ("-", "--", "-.", ":")

WIDTH_INCHES = 4.6
"""Width of every figure: its text is readable when a phone shows it 350 pixels wide."""

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.parse_math": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.linewidth": 0.8,
    "axes.labelsize": 9.5, "axes.titlesize": 9.5, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "xtick.major.size": 3, "ytick.major.size": 0,
    "legend.frameon": False, "legend.fontsize": 9.5, "legend.borderaxespad": 0.2,
    "legend.borderpad": 0.1, "legend.handlelength": 1.8, "legend.labelspacing": 0.3,
    "lines.linewidth": 1.8, "savefig.dpi": 150, "svg.fonttype": "none", "svg.hashsalt": "fedpace",
}  # fmt: skip


def styled(draw: Callable[Given, Drawn]) -> Callable[Given, Drawn]:
    """Run a drawing function in the house style, whatever the user's matplotlibrc says."""

    @functools.wraps(draw)
    def within(*args: Given.args, **kwargs: Given.kwargs) -> Drawn:
        try:
            import matplotlib.style
        except ImportError:
            raise MissingExtraError("matplotlib", "plots") from None
        with matplotlib.style.context(["default", _STYLE]):
            return draw(*args, **kwargs)

    return within


def figure(height_inches: float, rows: int = 1, **layout: Any) -> "tuple[Figure, list[Axes]]":
    """Return an empty figure and its axes, one above the other."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    axes = made.subplots(rows, 1, squeeze=False, **layout)
    return made, list(axes[:, 0])


def method_styles(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return colour and line style by method; they depend on the order of the methods alone."""
    return {
        name: {"color": _METHODS[i % len(_METHODS)], "linestyle": _LINES[i % len(_LINES)]}
        for i, name in enumerate(methods)
    }


def time_unit(seconds: float) -> tuple[float, str]:
    """Return the unit for an axis up to `seconds`: its length in seconds, and its name.

    Example:
        >>> time_unit(90), time_unit(900)
        ((1.0, 's'), (60.0, 'min'))
    """
    for length, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * length:
            return length, name
    return 1.0, "s"


def log_scale(axes: "Axes", which: str, values: Sequence[float]) -> None:
    """Make the "x" or "y" axis logarithmic, with plain numbers, if values span a factor of 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    if low <= 0 or high < 5 * low:
        return
    axes.set(**{f"{which}scale": "log"})
    axes.set(**{f"{which}lim": (low / 1.15, high * 1.15)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
