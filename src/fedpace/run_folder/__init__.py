"""A run on disk: its schema, who writes it, who reads it. The layout is in docs/file-formats.md."""
