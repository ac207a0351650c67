"""Where rounds happen. An engine receives the trainer as a callable and never imports torch.

Imports `fedpace.core`, `fedpace.wireless`, `fedpace.estimation` and `fedpace.federation`.
"""
