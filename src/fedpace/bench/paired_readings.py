"""The same curves read in other ways: does the comparison hang on how a target is read off?

Averaging over two evaluations delays a curve by half of what lies between them, which is more where
rounds are long: a method cannot be evaluated more often than it moves.
"""

from collections.abc import Callable
from dataclasses import replace

from fedpace.bench.crossing import seconds_to
from fedpace.bench.page import markdown
from fedpace.bench.paired_tables import AUTO, BEST, WAITING, Results, overall
from fedpace.bench.results import Line
from fedpace.core.target import Target


def reread(line: Line) -> Line:
    """Return a line whose targets are read off without averaging.

    A run ended by its averaged curve, so what that reached the single evaluations reached before.
    """
    found = {
        name: seconds_to(line["curve"], Target.parse(name), averaged=False)
        for name in line["targets"]
    }
    return {**line, "targets": found}


def only(place: int) -> Callable[[Line], Line]:
    """Return what leaves one target of a line, by its place from the easiest."""

    def kept(line: Line) -> Line:
        name = list(line["targets"])[place]
        return {**line, "targets": {name: line["targets"][name]}}

    return kept


_READINGS: dict[str, Callable[[Line], Line]] = {
    "as above": lambda line: line,
    "not averaged over neighbours": reread,
    "the easiest target alone": only(0),
    "the hardest target alone": only(-1),
}


def readings(results: Results) -> str:
    """Return a table: ratios over all settings, by how the curves are read.

    Args:
        results: of lines with several targets.
    """
    cases = [(results.ours, BEST)]
    if results.has_auto:
        cases += [(AUTO, BEST), (results.ours, WAITING)]
    read = {name: _read(results, how) for name, how in _READINGS.items()}
    read["without targets that one of both missed"] = replace(results, bounds=False)
    rows = []
    for name, reading in read.items():
        ratios = [overall(reading.over(who, other)) for who, other in cases]
        rows.append([name, *("–" if ratio is None else str(ratio) for ratio in ratios)])
    header = [f"{who} over {_named(other)}" for who, other in cases]
    text = (
        "Averaging over two evaluations delays a curve by half of what lies between them: more "
        f"where rounds are long. {_density(results)}"
    )
    return f"{text}\n\n{markdown(['', *header], rows)}"


def _read(results: Results, how: Callable[[Line], Line]) -> Results:
    """The results with each line that has targets read in another way."""
    runs = {
        setting: {
            method: {seed: how(ln) if "targets" in ln else ln for seed, ln in lines.items()}
            for method, lines in here.items()
        }
        for setting, here in results.runs.items()
    }
    return replace(results, runs=runs)


def _named(other: str) -> str:
    return "the best rival" if other == BEST else other


def _density(results: Results) -> str:
    """How many evaluations lie before the end of a run, in the median."""
    counts = {}
    for method in results.methods:
        found = sorted(
            len(line["curve"])
            for setting in results.runs
            for line in results.of(method, setting).values()
        )
        if found:
            counts[method] = found[len(found) // 2]
    few, many = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return (
        f"A run of {results.ours} rounds was evaluated {counts[results.ours]} times in the median; "
        f"of all methods {few} the fewest times, {counts[few]}, and {many} the most, "
        f"{counts[many]}."
    )
