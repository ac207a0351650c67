"""What a newcomer is told first: a few sentences and one table, all from the lines."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from fedpace.bench.comparison import Setting
from fedpace.bench.page import markdown
from fedpace.bench.paired import Pairs, Ratio, geometric_mean
from fedpace.bench.paired_tables import (
    AUTO,
    BEST,
    WAITING,
    Results,
    by_setting,
    cell,
    overall,
    told_from_one,
)


def sentences(results: Results) -> str:
    """Return how much faster than what, how sure, and where not."""
    best = results.over(results.ours, BEST)
    total = overall(best)
    if total is None:
        return _over_waiting(results)
    parts = [_how_much(results, total), _how_fair(results), _how_sure(results)]
    parts += [_beside(results, name) for name in results.beside]
    if results.has_auto:
        parts.append(_auto(results))
    parts.append(_where_not(results))
    return " ".join(parts)


def _over_waiting(results: Results) -> str:
    """What is to be said where no rival was run."""
    over = results.over(results.ours, WAITING)
    total = overall(over)
    if total is None:
        return "No rival has been run yet."
    found = {setting: ratio.mean for setting, ratio in by_setting(over).items()}
    least, most = min(found, key=lambda s: found[s]), max(found, key=lambda s: found[s])
    return (
        f"No rival has been run; rounds that wait took {_bound(total)}**{total.mean:.2f} times "
        f"as long** as FedPace's {results.ours} rounds, in the mean over "
        f"{_count(len(found), 'setting')} (90 % interval {total.low:.2f} to {total.high:.2f}): "
        f"from {found[least]:.2f} in {', '.join(least)} to {found[most]:.2f} in {', '.join(most)}."
    )


def headline(results: Results) -> str:
    """Return the table that the README shows: ratios over all settings."""
    who = results.shown
    rows = []
    for other in [BEST, *results.rivals]:
        ratios = [overall(results.over(each, other)) for each in who]
        if ratios[0] is not None:
            count = len(results.over(results.ours, other))
            rows.append([f"the {BEST} of each setting" if other == BEST else other,
                         *("–" if ratio is None else _short(ratio) for ratio in ratios),
                         str(count)])  # fmt: skip
    columns = [f"FedPace, {each}" for each in who]
    return markdown(["times as long as", *columns, "settings"], rows)


def _short(ratio: Ratio) -> str:
    """As in the other tables, the ratio a multiple."""
    return cell(ratio).replace(" (", "x (")


def _bound(ratio: Ratio) -> str:
    """In words what "<", ">" and "~" say in the tables."""
    if ratio.at_least and ratio.at_most:
        return "about "
    return "at least " if ratio.at_least else "at most " if ratio.at_most else ""


def _how_much(results: Results, total: Ratio) -> str:
    compared = results.over(results.ours, BEST)
    tasks = Counter(task for task, _ in compared)
    within = ", ".join(f"{count} of {task}" for task, count in tasks.items())
    alike = "" if len(set(tasks.values())) == 1 else (
        f"; {_tasks_alike(compared):.2f} where tasks weigh alike"
    )  # fmt: skip
    text = (
        f"To train to the same accuracy or loss, the best rival of each setting took "
        f"{_bound(total)}**{total.mean:.2f} times as long** as FedPace's {results.ours} rounds, "
        f"in the mean over {_count(len(compared), 'setting')} ({within}; 90 % interval "
        f"{total.low:.2f} to {total.high:.2f}{alike})"
    )
    each = {name: results.over(results.ours, name) for name in results.rivals}
    known = {name: ratio for name, found in each.items() if (ratio := overall(found)) is not None}
    slowest = max(known, key=lambda name: known[name].mean)
    most = f"{_bound(known[slowest])}{known[slowest].mean:.2f} times"
    everywhere = sum(len(each[name]) == len(compared) for name in known)
    where = "" if everywhere == len(known) else (
        f", in {_count(len(each[slowest]), 'setting')}; {everywhere} of the rivals were run in all"
    )  # fmt: skip
    return f"{text}; the slowest of {len(known)} rivals, {slowest}, took {most}{where}."


def _tasks_alike(compared: Mapping[Setting, Pairs]) -> float:
    """The geometric mean over tasks of that over each one's settings."""
    logs: dict[str, list[float]] = {}
    for (task, _), each in compared.items():
        logs.setdefault(task, []).append(float(each.log_ratio.mean()))
    return float(np.exp(np.mean([np.mean(found) for found in logs.values()])))


def _how_fair(results: Results) -> str:
    tunings = {
        line["tuning"]["trainings"]
        for here in results.runs.values()
        for runs in here.values()
        for line in runs.values()
        if "tuning" in line
    }
    text = "Every method trained the same model on the same data, devices and links"
    if len(tunings) == 1:
        return f"{text}, and was tuned with {tunings.pop()} trainings on seeds of its own."
    if tunings:
        return f"{text}; they were tuned with {min(tunings)} to {max(tunings)} trainings."
    return f"{text}; what tuning cost is not in the lines."


def _how_sure(results: Results) -> str:
    each = by_setting(results.over(results.ours, BEST))
    leads, losses = (
        sum(getattr(ratio, which) for ratio in each.values()) for which in ("leads", "trails")
    )
    seeds = sorted({ratio.pairs for ratio in each.values()})
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    told = told_from_one(results.over(results.ours, BEST))
    power = "" if told is None else (
        f"; all settings together could tell a ratio of {told:.2f} from 1"
    )  # fmt: skip
    return (
        f"On {span} seeds a setting, it leads the best rival beyond what chance explains in "
        f"{leads} of {_count(len(each), 'setting')} and trails in {losses}{power}."
    )


def _beside(results: Results, name: str) -> str:
    found = results.over(name, BEST)
    total = overall(found)
    if total is None:
        return ""
    without = results.ours in results.biased and name not in results.biased
    start = (
        f"{results.ours.capitalize()} rounds ask for a bias, `[planner] max_bias`, which is 0 by "
        f"default: with {name} ones, without a bias, "
        if without
        else f"With its {name} rounds in their place "
    )
    loss = ", a loss" if total.trails else ""
    return (
        f"{start}the best rival took {_bound(total)}{total.mean:.2f} times as long "
        f"({total.low:.2f} to {total.high:.2f}; {_count(len(found), 'setting')}){loss}."
    )


def _auto(results: Results) -> str:
    found = results.over(AUTO, BEST)
    total = overall(found)
    if total is None:
        return ""
    share = sum(results.overlaps(setting) for setting in found) / len(found)
    each = by_setting(found)
    worst = min(each, key=lambda setting: each[setting].mean)
    return (
        'With schedule = "auto", which overlaps rounds only where the plan promises '
        f"{results.enough_gain:g} times the speed ({share:.0%} of the runs), "
        f"the best rival took {_bound(total)}{total.mean:.2f} times as long "
        f"({total.low:.2f} to {total.high:.2f}), at worst {each[worst].mean:.2f} times in "
        f"{', '.join(worst)}."
    )


def _where_not(results: Results) -> str:
    best = results.over(results.ours, BEST)
    slower = {s: r for s, r in by_setting(best).items() if r.mean < 1}
    if not slower:
        least = min(best, key=lambda setting: float(best[setting].log_ratio.mean()))
        return (
            f"In no setting was a rival faster than {results.ours} rounds in the mean; nearest was "
            f"{results.best_rival(results.ours, least)} in {', '.join(least)}, with "
            f"{geometric_mean([best[least]]).mean:.2f} times our time."
        )
    items = [
        f"{', '.join(setting)} ({results.best_rival(results.ours, setting)} took "
        f"{ratio.mean:.2f} of our time)"
        for setting, ratio in slower.items()
    ]
    return f"{results.ours.capitalize()} rounds do not help in {'; '.join(items)}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
