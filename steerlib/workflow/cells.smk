"""A grid of cells as jobs: each computes a part of the grid, and all write into one store.

    snakemake --snakefile steerlib/workflow/cells.smk --jobs 4 --config grid=data/grids/push.yml shards=16

On a cluster with Slurm, the same with a profile:

    snakemake --snakefile steerlib/workflow/cells.smk --profile steerlib/workflow/slurm --config grid=... shards=64

The store must lie on a disk that all nodes share. A job that is lost with its node is begun again, and computes only
what its part still lacks.
"""

import sys
from pathlib import Path

from steerlib.experiment.grid import part_of, read_grid
from steerlib.experiment.running import key_of

GRID = Path(str(config["grid"])).resolve()
STORE = Path(str(config.get("store", "build/store"))).resolve()
SHARDS = int(config.get("shards", 8))
CELLS = read_grid(GRID)
PARTS = [f"{k}-of-{SHARDS}" for k in range(1, SHARDS + 1) if part_of(CELLS, f"{k}/{SHARDS}")]


def due(wildcards):
    """What a part must hold: another weight, source or version makes the job due again."""
    return sorted(key_of(cell) for cell in part_of(CELLS, wildcards.part.replace("-of-", "/")))


localrules: all,


rule all:
    input:
        expand(f"{STORE}/parts/{GRID.stem}/{{part}}.done", part=PARTS),


rule part:
    output:
        touch(f"{STORE}/parts/{GRID.stem}/{{part}}.done"),
    params:
        due=due,
        python=sys.executable,
        grid=str(GRID),
        store=str(STORE),
        shard=lambda wildcards: wildcards.part.replace("-of-", "/"),
    threads: 1
    retries: 3
    resources:
        mem_mb=2000,
        runtime=120,
    shell:
        "{params.python:q} -m steerlib.cli run {params.grid:q} --store {params.store:q} --shard {params.shard} "
        "--device ${{STEERLIB_DEVICE:-cpu}} 2>&1"
