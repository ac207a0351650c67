"""FedPace: federated LoRA over heterogeneous wireless networks, in the least wall-clock time."""
