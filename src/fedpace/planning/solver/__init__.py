"""How a plan is found: the objective and its limits, descent, ranks, groups of clients."""
