"""Divide the uplink: never idle, all finish together, and what equal shares would cost."""

import fedpace as fp

start_seconds = [2.0, 5.0, 9.0]  # download and local steps
upload_bits = [4e6, 4e6, 2e6]
for rule in ("work-conserving", "equal-finish", "equal-share"):
    share = fp.allocate_bandwidth(
        start_seconds, upload_bits, 1.4e6, spectral_efficiency=[3.0, 1.0, 0.5], rule=rule
    )
    band = ", ".join(f"{hz / 1e3:.0f} kHz" for hz in share.bandwidth_hz)
    ends = ", ".join(f"{s:.1f} s" for s in share.finish_seconds)
    print(f"{rule}: {band}; finished after {ends}")
