"""A grid of cells as jobs: each computes a part of the grid, and all write into one store.

    snakemake --snakefile steerlib/workflow/cells.smk --cores 4 --config grid=data/grids/push.yml shards=16

On a cluster with Slurm, the same with a profile:

    snakemake --snakefile steerlib/workflow/cells.smk --profile steerlib/workflow/slurm --config grid=... shards=64

The store must lie on a disk that all nodes share. A job that is lost with its node is begun again, and computes only
what its part still lacks. What `--config` may say stands in `steerlib.workflow.part.Settings`.
"""

import sys

from steerlib.experiment.grid import part_of, read_grid
from steerlib.workflow.part import Settings, shard_of

SETTINGS = Settings.read(config)
CELLS = read_grid(SETTINGS.grid)


def due(wildcards):
    """What a part must hold: another weight, source or version makes the job due again.

    Asked where jobs are chosen, not in a job: there, reading a plant's weights and importing torch would only cost.
    """
    if not workflow.is_main_process:
        return []
    from steerlib.experiment.keys import key_of

    return sorted(key_of(cell) for cell in part_of(CELLS, shard_of(wildcards.part)))


localrules: all,


rule all:
    input:
        expand(SETTINGS.done(), part=SETTINGS.parts(CELLS)),


rule part:
    output:
        touch(SETTINGS.done()),
    params:
        due=due,
        python=sys.executable,
        grid=str(SETTINGS.grid),
        store=str(SETTINGS.store),
        device=SETTINGS.device,
    threads: 1
    retries: 3
    resources:
        mem_mb=2000,
        runtime=120,
        gpu=int(SETTINGS.device.startswith("cuda")),
    shell:
        "{params.python:q} -m steerlib.workflow.part {params.grid:q} --store {params.store:q} --part {wildcards.part} "
        "--device {params.device:q} 2>&1"
