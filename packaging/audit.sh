#!/usr/bin/env bash
# Known faults of what constraints.txt pins; passed over where pip-audit or its data cannot be reached.
set -uo pipefail
cd "$(dirname "$0")/.."
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
skip() { echo "pip-audit: passed over, $1"; exit 0; }
"${1:-python3}" -m venv "$place" && timeout 60 "$place/bin/pip" install --quiet pip-audit==2.10.1 2>"$place/why" \
  || skip "it cannot be installed"
timeout 60 "$place/bin/pip-audit" --requirement constraints.txt --disable-pip --no-deps --timeout 10 \
  --progress-spinner off --format json >"$place/found.json" 2>"$place/why"
[ -s "$place/found.json" ] || skip "its data cannot be reached ($(tail -1 "$place/why" | cut -c1-120))"
"$place/bin/python" - "$place/found.json" <<'P'
import json, sys
faults = [(d["name"], d["version"], v["id"], v["fix_versions"])
          for d in json.load(open(sys.argv[1]))["dependencies"] for v in d.get("vulns", [])]
for name, version, fault, fixed in faults:
    print(f"{name} {version}: {fault}, mended in {', '.join(fixed) or 'no version yet'}")
print(f"pip-audit: {len(faults)} known faults")
sys.exit(bool(faults))
P
