#!/usr/bin/env bash
# Runs a grid through Snakemake on a trial cluster of two nodes, switches one node off in the middle, and checks that
# every cell has its record. Needs what slurm.sh needs, and snakemake-executor-plugin-slurm in the environment.
#
#   tests/cluster/try_grid.sh [python]
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
PYTHON="${1:-$ROOT/.venv/bin/python}"
WORK="$(mktemp -d)"
cleanup() { "$HERE/slurm.sh" stop || true; rm -rf "$WORK"; }
trap cleanup EXIT

"$PYTHON" -c "import snakemake_executor_plugin_slurm" || { echo "no Slurm plugin of Snakemake: pip install snakemake-executor-plugin-slurm" >&2; exit 2; }
"$HERE/slurm.sh" start 2

# A plant that takes no time, and cells that take a little: sampled answers, many seeds.
"$PYTHON" - "$WORK" <<'PY'
import sys
from pathlib import Path

import yaml

from steerlib.world.grow import grow

work = Path(sys.argv[1])
plant = grow("almanac-seedling", work / "almanac-seedling", device="cpu", progress=False)
over = {"plant": [str(plant)], "task": ["truth"], "limit": [20], "kind": ["sampled"], "seed": list(range(16))}
(work / "grid.yml").write_text(yaml.safe_dump({"blocks": [{"over": over}]}))
PY

cd "$WORK"
"$PYTHON" -m snakemake --snakefile "$ROOT/steerlib/workflow/cells.smk" --profile "$ROOT/steerlib/workflow/slurm" \
  --jobs 4 --slurm-init-seconds-before-status-checks 5 --seconds-between-status-checks 5 \
  --config grid="$WORK/grid.yml" store="$WORK/store" shards=8 > "$WORK/snakemake.log" 2>&1 &
flow=$!

records() { find "$WORK/store" -name '*.json' -path '*/??/*' 2>/dev/null | wc -l; }
for _ in $(seq 1 240); do
  if [[ "$(records)" -ge 2 ]]; then break; fi
  sleep 0.5
done
before="$(records)"
squeue -o "%i %N %T" || true
"$HERE/slurm.sh" kill-node trial2
echo "switched trial2 off with $before of 16 records written"
if ! wait "$flow"; then tail -n 60 "$WORK/snakemake.log" >&2; exit 1; fi
sinfo
after="$(records)"
echo "$after of 16 records after the node was lost"
[[ "$before" -lt 16 ]] || { echo "the node was lost too late to prove anything" >&2; exit 1; }
[[ "$after" -eq 16 ]] || exit 1
