"""What delay and noise cost, and which server rate they allow: federated quadratics, two servers.

    OMP_NUM_THREADS=1 python benchmarks/delay_price.py

The aggregate of a beat is the gradient of sum h_i x_i^2 / 2, d beats old, with noise of variance
v ||u||^2 spread over the coordinates; nothing arrives in the first d beats. For SGD the mean square
of every coordinate follows exactly; for Adam it is the mean of some runs. Beats to a fall of f are
compared at the best of a grid of rates, and at the rate of `planning.overlap.step` for a rate that
was tuned at v0 without delay. About ten seconds.
"""

import numpy as np

from fedpace.core.profile import Floats
from fedpace.planning.overlap.step import server_rate_factor

TUNED_NOISE = 0.7
"""v0, about that of a synchronous plan in a compute-bound cell."""


def sgd_falls(rate: float, delay: int, noise: float, curvature: Floats, beats: int) -> Floats:
    """Return E f / f_0 after every beat, exactly, from E x = 0 and E x^2 = 1; shape (beats + 1,).

    Moments of (x_t, x_{t-1}, ..., x_{t-d}) by coordinate: x_{t+1} = x_t - rate (h x_{t-d} + noise).
    """
    moment = np.ones((len(curvature), delay + 1, delay + 1))
    step = np.zeros_like(moment)
    step[:, 0, 0] = 1.0
    step[:, 0, delay] -= rate * curvature
    step[:, np.arange(1, delay + 1), np.arange(delay)] = 1.0
    falls = [1.0] * (delay + 1)
    while len(falls) <= beats and falls[-1] < 1e3:
        added = rate**2 * noise * np.mean(curvature**2 * moment[:, delay, delay])
        moment = step @ moment @ step.transpose(0, 2, 1)
        moment[:, 0, 0] += added
        falls.append(float(curvature @ moment[:, 0, 0] / curvature.sum()))
    return np.array(falls)


def adam_falls(
    rate: float, delay: int, noise: float, curvature: Floats, beats: int, runs: int = 10
) -> Floats:
    """Return the mean f / f_0 of some runs after every beat, shape (beats + 1,)."""
    rng = np.random.default_rng(1)
    x = np.random.default_rng(0).standard_normal((runs, len(curvature)))
    past, mean, square = [x] * (delay + 1), np.zeros_like(x), np.zeros_like(x)
    first = float(np.sum(curvature * x**2))
    falls = [1.0] * (delay + 1)
    while len(falls) <= beats and falls[-1] < 1e3:
        u = curvature * past[0]
        spread = np.sqrt(noise * np.mean(u**2, axis=1, keepdims=True))
        g = u + spread * rng.standard_normal(x.shape)
        mean, square = 0.9 * mean + 0.1 * g, 0.99 * square + 0.01 * g**2
        count = len(falls) - delay
        x = x - rate * mean / (1 - 0.9**count) / np.sqrt(square / (1 - 0.99**count))
        past = [*past[1:], x]
        falls.append(float(np.sum(curvature * x**2)) / first)
    return np.array(falls)


def beats_to(falls: Floats, fall: float) -> float:
    """Return when f has fallen to 1 / fall, beats, between two by the logarithm; inf if never."""
    there = np.flatnonzero(falls <= 1 / fall)
    if len(there) == 0:
        return np.inf
    before, after = np.log(falls[there[0] - 1 : there[0] + 1])
    return float(there[0] - 1 + (before + np.log(fall)) / (before - after))


SERVERS = {
    "sgd": (sgd_falls, np.geomspace(0.03, 2.0, 24)),
    "adam": (adam_falls, np.geomspace(0.02, 0.5, 12)),
}
"""How f falls, and the rates that are tried."""


def compare(server: str, decades: int, fall: float) -> None:
    """Print a line for each noise and delay."""
    falls, rates = SERVERS[server]
    curvature = np.geomspace(10.0**-decades, 1.0, 16)

    def beats(rate: float, delay: int, noise: float) -> float:
        return beats_to(falls(rate, delay, noise, curvature, 150), fall)

    tuned, alone = min(rates, key=lambda rate: beats(rate, 0, TUNED_NOISE)), np.nan
    for noise in (TUNED_NOISE, 1.5, 4.0):
        for delay in (0, 1, 3):
            least, best = min((beats(rate, delay, noise), rate) for rate in rates)
            if delay == 0:
                alone, price = least, "-"
            else:
                price = f"{(least / alone - 1) * (1 + noise) / delay:.2f}"
            rule = server_rate_factor(server, noise, TUNED_NOISE, delay_beats=delay)
            over = beats(tuned * rule, delay, noise) / least
            print(
                f"{server:6} {decades:7d} {fall:4.0f} {noise:5.1f} {delay:5d} {least:5.1f} "
                f"{price:>5} {best / tuned:9.2f} {rule:4.2f} {over:4.2f}",
                flush=True,
            )


def main() -> None:
    print("server decades fall noise delay beats price best rate rule over")
    print(
        "price: of a beat of delay, in beats; best rate and rule: over the best rate at the first\n"
        "noise without delay; over: beats at the rule's rate over beats at the best"
    )
    for server in SERVERS:
        for decades in (0, 1, 2):
            for fall in (5.0, 20.0):
                compare(server, decades, fall)


if __name__ == "__main__":
    main()
