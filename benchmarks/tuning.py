"""What low-rank adapters by DPO and PPO earn on the Almanac's preference task, what they train, and how long it takes.

    python benchmarks/tuning.py --plant almanac-llama-tiny --seeds 3 --folder build/tuning

Needs the extra `tuning`. An adapter is trained for each method and seed, and what is in the folder already is read; the
plant and each tuned plant then answer the same test prompts with the same noise. `gained` is the mean over prompts of
the reward, averaged over seeds, less the plant's, with a bootstrap interval over prompts; `exact` is the expected worth
of how replies begin. Prints a table; the last line is JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from steerlib.errors import SteerlibError
from steerlib.metrics import Estimate, mean_interval
from steerlib.plant import Plant
from steerlib.tasks import Helpfulness
from steerlib.tuning import Training, Tuned, dpo, ppo, preferences, task_reward

#: Requests that PPO answers, again and again.
REQUESTS = 256


def train(method: str, task: Helpfulness, how: Training, folder: Path) -> Tuned:
    """One adapter."""
    place = folder / f"{task.plant.name}-{method}-{how.seed}"
    if method == "dpo":
        return dpo(task.plant, preferences(task, n=how.steps * how.batch, seed=how.seed), folder=place, how=how)
    prompts, reward, room = task_reward(task, n=REQUESTS)
    return ppo(task.plant, prompts, reward, folder=place, max_new_tokens=room, how=how, reward_name=task.name)


def scores(plant: Plant, limit: int) -> dict[str, Float[np.ndarray, " prompts"]]:
    """What a plant earns, prompt by prompt."""
    task = Helpfulness(plant)
    sampled, _ = task.sampled(limit=limit, seed=0)
    return {
        "reward": sampled.more["reward"], "readable": sampled.intact, "exact": task.exact(limit=limit).wanted,
    }  # fmt: skip


def gained(before: Float[np.ndarray, " prompts"], after: list[Float[np.ndarray, " prompts"]]) -> Estimate:
    """How much more is earned on each prompt, averaged over seeds; prompts are the unit."""
    return mean_interval(np.mean(after, 0) - before)


def main(
    plant: Annotated[str, typer.Option(help="plant to tune")] = "almanac-llama-tiny",
    folder: Annotated[Path, typer.Option(help="where adapters are kept")] = Path("build/tuning"),
    seeds: Annotated[int, typer.Option(help="adapters of each method")] = 3,
    dpo_steps: Annotated[int, typer.Option(help="batches of 16 pairs")] = 25,
    ppo_steps: Annotated[int, typer.Option(help="batches of 32 answers")] = 10,
    dpo_rate: Annotated[float, typer.Option(help="learning rate of DPO")] = 2e-4,
    ppo_rate: Annotated[float, typer.Option(help="learning rate of PPO")] = 5e-4,
    prompts: Annotated[int, typer.Option(help="test prompts")] = 60,
) -> None:
    """Measure and print."""
    loaded = Plant.load(plant)
    task, before = Helpfulness(loaded), scores(loaded, prompts)
    hows = {
        "dpo": lambda seed: Training(steps=dpo_steps, batch=16, save_every=10, learning_rate=dpo_rate, seed=seed),
        "ppo": lambda seed: Training(
            steps=ppo_steps, batch=32, rows=16, save_every=4, learning_rate=ppo_rate, seed=seed
        ),
    }
    rows = [{"method": "none", **{name: float(found.mean()) for name, found in before.items()}}]
    for method, how in hows.items():
        try:
            made = [train(method, task, how(seed), folder) for seed in range(seeds)]
        except SteerlibError as error:
            Console(stderr=True).print(str(error), markup=False)
            raise typer.Exit(1) from error
        after = [scores(tuned.plant, prompts) for tuned in made]
        more = {name: gained(before[name], [found[name] for found in after]) for name in ("reward", "exact")}
        rows.append(
            {
                "method": method,
                **{name: float(np.mean([found[name] for found in after])) for name in before},
                **{f"{name} gained": (found.value, found.low, found.high) for name, found in more.items()},
                "parameters": made[0].parameters, "others": made[0].others,
                "seconds": [tuned.seconds for tuned in made], "adapters": [tuned.plant.name for tuned in made],
            }
        )  # fmt: skip
    table = Table(title=f"{loaded}, {prompts} test prompts, {seeds} seeds", title_justify="left")
    for column in ("method", "reward", "gained", "exact", "gained", "readable", "trained", "besides", "seconds"):
        table.add_column(column)
    for row in rows:
        told = [f"{g[0]:+.2f} [{g[1]:+.2f}, {g[2]:+.2f}]" for g in (row.get(f"{n} gained") for n in more) if g]
        table.add_row(
            row["method"], f"{row['reward']:.2f}", told[0] if told else "", f"{row['exact']:.2f}",
            told[1] if told else "", f"{row['readable']:.2f}", f"{row.get('parameters', 0):,}",
            f"{row.get('others', 0):,}", f"{np.mean(row.get('seconds', 0.0)):.0f}",
        )  # fmt: skip
    Console(width=140).print(table)
    print(json.dumps({"plant": loaded.name, "prompts": prompts, "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
