#!/usr/bin/env bash
# Runs a grid through Snakemake on a trial cluster of two nodes, switches one node off in the middle, and checks that
# every cell has its record, that none is torn, and that nothing was computed twice but what the node took with it.
# Needs what slurm.sh needs, and snakemake-executor-plugin-slurm in the environment. Cleans up whatever happens.
#
#   tests/cluster/try_grid.sh [python]
#
# Exit codes: 0 all of it holds, 1 something does not, 77 cannot be tried here (see slurm.sh).
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
PYTHON="${1:-$ROOT/.venv/bin/python}"
LOST=trial2
LIMIT=900  # seconds for the whole trial, which takes about 100 where nothing else runs

case "$PYTHON" in /*) ;; *) PYTHON="$PWD/$PYTHON" ;; esac
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
"$HERE/slurm.sh" check || exit $?
"$PYTHON" -c "from importlib.util import find_spec as f; raise SystemExit(not f('snakemake_executor_plugin_slurm'))" \
  || { echo "no Slurm plugin of Snakemake in $PYTHON. Fix: pip install 'steerlib[cluster]'" >&2; exit 1; }

say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }

# A folder with a space in its name: jobs must not stumble over one.
WORK="$(mktemp -d "${TMPDIR:-/tmp}/trial grid.XXXXXX")"
# Snakemake does not quote the path of its own Python when it writes a job (snakemake-interface-executor-plugins 9.4.0).
LINKS="$(mktemp -d /tmp/trial-python.XXXXXX)"
if [[ "$PYTHON" == *" "* ]]; then
  ln -s "$(dirname "$(dirname "$PYTHON")")" "$LINKS/env"
  PYTHON="$LINKS/env/bin/$(basename "$PYTHON")"
fi
flow=""
started=""
cleanup() {
  local code=$?
  trap - EXIT INT TERM
  if [[ -n "$flow" ]] && kill -0 "$flow" 2>/dev/null; then kill -KILL "$flow" 2>/dev/null || true; fi
  if [[ -n "$started" ]]; then "$HERE/slurm.sh" stop || true; fi
  if [[ "$code" != 0 && -e "$WORK/snakemake.log" ]]; then
    tail -n 60 "$WORK/snakemake.log" >&2
    find "$WORK/.snakemake/slurm_logs" -name '*.log' -exec tail -n 20 {} + >&2 2>/dev/null || true
  fi
  rm -rf "$WORK" "$LINKS"
  exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() { say "FAILED: $*" >&2; exit 1; }

# A start that fails cleans up after itself: what runs already is not this script's to stop.
"$HERE/slurm.sh" start 2 || exit $?
started=yes
say "two nodes of one core are up"

"$PYTHON" "$HERE/trial.py" plan "$WORK"
total="$(wc -l < "$WORK/parts.tsv")"
parts="$(cut -f 1 "$WORK/parts.tsv" | sort -u | wc -l)"
say "a grid of $total cells in $parts parts"

cd "$WORK"
run_snakemake() {
  "$PYTHON" -m snakemake --snakefile "$ROOT/steerlib/workflow/cells.smk" --profile "$ROOT/steerlib/workflow/slurm" \
    --latency-wait 10 --slurm-init-seconds-before-status-checks 2 --seconds-between-status-checks 2 \
    --slurm-keep-successful-logs "$@" --config grid="$WORK/grid.yml" store="$WORK/store" shards="$parts"
}
run_snakemake > "$WORK/snakemake.log" 2>&1 &
flow=$!

# How many records a part has.
records() {
  local key found=0
  while read -r key; do
    if [[ -e "$WORK/store/${key:0:2}/$key.json" ]]; then found=$((found + 1)); fi
  done < <(awk -v part="$1" '$1 == part {print $2}' "$WORK/parts.tsv")
  echo "$found"
}

# The part that the node is at, from the comment that the plugin gives its jobs.
part_on() { squeue -h -w "$1" -t RUNNING -O comment:100 2>/dev/null | sed -n 's/^rule_part_wildcards_\(\S*\)\s*$/\1/p'; }

lost=""
while [[ -z "$lost" ]]; do
  [[ "$SECONDS" -lt "$LIMIT" ]] || fail "no part was caught half way on $LOST"
  kill -0 "$flow" 2>/dev/null || fail "Snakemake ended before a part was caught half way on $LOST"
  now="$(part_on "$LOST")"
  if [[ -n "$now" ]] && (( $(records "$now") >= 2 && $(records "$now") <= 5 )); then lost="$now"; else sleep 0.1; fi
done
"$HERE/slurm.sh" kill-node "$LOST"
"$PYTHON" "$HERE/trial.py" snapshot "$WORK"
kept="$(records "$lost")"
say "switched $LOST off; part $lost had $kept of its $((total / parts)) records"
(( kept < total / parts )) || fail "the node was lost too late to prove anything"

while kill -0 "$flow" 2>/dev/null; do
  [[ "$SECONDS" -lt "$LIMIT" ]] || fail "the grid is not done after $LIMIT s: $(squeue -h -o '%i %T %r' | tr '\n' ';')"
  sleep 1
done
wait "$flow" || fail "Snakemake ended with code $?"
flow=""
[[ "$(sinfo -h -N -n "$LOST" -o %t)" == down* ]] || fail "$LOST was not missed: $(sinfo -h -N -o '%N is %T')"
say "Snakemake is done; $(sinfo -h -N -o '%N is %T' | tr '\n' ' ')"

"$PYTHON" "$HERE/trial.py" check "$WORK" "$lost"
run_snakemake --dry-run > "$WORK/again.log" 2>&1 || { cat "$WORK/again.log" >&2; fail "the second run failed"; }
grep -q "Nothing to be done" "$WORK/again.log" || { cat "$WORK/again.log" >&2; fail "a second run would work again"; }
echo "ok: a second run has nothing to do"
say "$total cells in $parts parts on 2 nodes, 1 lost with $kept of $((total / parts)) cells of part $lost: all $total complete, none torn, none twice"
