"""A run on disk: its files, and what is written when."""
