"""Text to train and evaluate on: the embedded set, files, folders, hub data sets.

`load.load_data` is the way in. Imports `fedpace.core` and NumPy; `datasets` and `pyarrow` inside
the functions that need them.
"""
