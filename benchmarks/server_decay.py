"""What a server rate that follows the noise is worth on quadratics, and with which power.

`python benchmarks/server_decay.py`, seconds. Mean squares of a step of SGD or Adam on noisy
quadratics, exactly. For each power of the useful rate (0: the rate stays) the first rate is the
best of a grid for an eighth of the steps; printed is the loss there and at the end, over that of
the rate that stays. Curvatures are alike, or spread evenly over one or two decades.
"""

from itertools import product

import numpy as np

from fedpace.planning.overlap.step import useful_rate

POWERS = (0.0, 0.5, 0.75, 1.0)
RATES = np.geomspace(0.005, 2.0, 40)


def losses(
    rate: float, power: float, curvature: np.ndarray, variance: float, steps: int, server: str
) -> np.ndarray:
    """Return the mean loss after each step, from 1 in every direction, shape (steps,)."""
    square, tuned, loss = np.ones(len(curvature)), None, []
    for _ in range(steps):
        signal, noise = float(curvature**2 @ square), len(curvature) * variance
        useful = useful_rate(server, signal + noise, noise / (signal + noise))
        tuned = tuned or useful
        step = rate * (useful / tuned) ** power
        if server == "adam":
            step /= np.sqrt(signal + noise)
        square = (1 - step * curvature) ** 2 * square + step**2 * variance
        loss.append(float(curvature @ square))
    return np.array(loss)


def early_and_late(
    power: float, curvature: np.ndarray, variance: float, steps: int, server: str
) -> tuple[float, float]:
    """Return the loss at an eighth of the steps, of the best rate there, and its last."""
    early = steps // 8 - 1
    with np.errstate(over="ignore", invalid="ignore"):
        runs = [losses(rate, power, curvature, variance, steps, server) for rate in RATES]
    best = min((run for run in runs if np.isfinite(run[-1])), key=lambda run: run[early])
    return float(best[early]), float(best[-1])


def main() -> None:
    """Print a line a case, and the worst and mean of each power."""
    told: dict[float, list[tuple[float, float]]] = {power: [] for power in POWERS[1:]}
    print("decades  noise  server  steps  " + "  ".join(f"power {p:<11}" for p in POWERS[1:]))
    for decades, variance, server, steps in product(
        (0, 1, 2), (0.02, 0.2, 2.0), ("sgd", "adam"), (100, 400, 1600)
    ):
        curvature = np.geomspace(10.0**-decades, 1.0, 8)
        stays = early_and_late(0.0, curvature, variance, steps, server)
        cells = []
        for power in POWERS[1:]:
            found = early_and_late(power, curvature, variance, steps, server)
            told[power].append((found[0] / stays[0], found[1] / stays[1]))
            cells.append("early {:.2f}, end {:.2f}".format(*told[power][-1]))
        print(f"{decades:>7}  {variance:>5}  {server:<6}  {steps:>5}  " + "  ".join(cells))
    for power, pairs in told.items():
        early, late = np.array(pairs).T
        print(
            f"power {power}: early {np.exp(np.log(early).mean()):.2f} (worst {early.max():.2f}), "
            f"end {np.exp(np.log(late).mean()):.2f} (worst {late.max():.2f})"
        )


if __name__ == "__main__":
    main()
