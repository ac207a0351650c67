"""Who takes part and at which rank: planners, and under them the solver and the law of a round.

Imports `fedpace.core`, `fedpace.wireless`, `fedpace.estimation`, NumPy and SciPy.
"""
