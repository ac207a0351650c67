"""Plan a small population: who takes part how often, at what rank, and what that promises."""

import fedpace as fp

system = fp.System(
    bandwidth_hz=1.4e6, lora_rank=16, local_steps=5,
    fixed_bits=148e3, bits_per_rank=295e3, overhead_seconds=1.0, noise_ratio=2.0,
)  # fmt: skip
clients = fp.Clients.from_columns(
    client_id=["fast", "much data", "weak link", "slow device"],
    data_weight=[400, 900, 250, 250],
    step_seconds=[0.3, 0.9, 0.4, 4.0],
    spectral_efficiency=[4.2, 1.9, 0.3, 3.1],
)
made = fp.plan(clients, system)
law = fp.round_time(made, clients, system)

for name, q, k in zip(clients.client_id, made.sampling_probability, made.sketch_rank, strict=True):
    print(f"{name:<12} joins with probability {q:.2f} at rank {k}")
print(f"a round takes {law.mean:.1f} s on average, 95 % are below {law.quantile(0.95):.0f} s")
print(f"predicted gain over uniform sampling: {made.gain['uniform']:.1f}x")
