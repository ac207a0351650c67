"""From an experiment file to a finished run: config, methods, building, the loop, checkpoints."""
