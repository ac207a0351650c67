"""What is done to updates between training and aggregation, a file each: `hook` is the interface.

Imports `fedpace.core` and `fedpace.federation.aggregation`. A run has one short ordered list of
them (`fedpace.experiment.methods.hooks_of`); nothing else knows their names.
"""
