"""How long a round takes, as a distribution."""
