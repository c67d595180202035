"""`magistral rl RECIPE --dry-run`: the resolved recipe, memory of GPUs and hosts, what the loop does there in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w
import typer

from magistral.cli.wiring import progress
from magistral.recipe import Recipe
from magistral.recipe_train import Rl, Runtime

if TYPE_CHECKING:
    from magistral.models.sizes import Sizes
    from magistral.pipeline.forecast import Gpu, Memory
    from magistral.pipeline.simulate import Forecast


def print_plan(recipe: Recipe, rl: Rl, model: str, gpu_name: str) -> None:
    """Raises UserError for a card or a model whose sizes are not known."""
    from magistral.errors import UserError
    from magistral.pipeline.forecast import GPUS
    from magistral.registry import nearest

    if gpu_name not in GPUS:
        raise UserError(f"--gpu {gpu_name}: {nearest(gpu_name, GPUS)}")
    sizes = _sizes(model)
    typer.echo(tomli_w.dumps(recipe.model_dump(exclude_none=True, mode="json")))
    _print_stages(rl)
    runtime = recipe.runtime
    if not (runtime.generator_gpus and runtime.trainer_gpus):
        typer.echo("No GPUs are asked for (runtime.generator_gpus, runtime.trainer_gpus): a CPU's speed is not planned.")
        return
    n_gpus = runtime.n_generators * runtime.generator_gpus + runtime.n_trainers * runtime.trainer_gpus
    typer.echo(f"# {model}: {sizes.n_parameters:,} parameters, on {n_gpus:g} {gpu_name.upper()}")
    _print_hosts(runtime, rl, sizes)
    planned: list[Rl] = []
    for number in range(max(1, len(rl.stages))):
        in_stage = rl.in_stage(number)
        if in_stage in planned:  # it differs in problems alone
            continue
        planned.append(in_stage)
        if len(planned) > 1:
            typer.echo(f"# in stage {rl.stages[number].name}:")
        _print_memory(recipe, in_stage, sizes, GPUS[gpu_name])
        _print_forecast(recipe, in_stage, sizes, GPUS[gpu_name])
    typer.echo("# assumed: lengths, shares of the card's peak and links as in docs/scaling.md; the loop ran in virtual time")


def _print_stages(rl: Rl) -> None:
    for number, stage in enumerate(rl.stages):
        now = rl.in_stage(number)
        until = f"a {stage.until.of} plateau over {stage.until.steps} steps (gain {stage.until.gain:g})" if stage.until else ""
        end = " or ".join(filter(None, (until, f"{stage.steps} steps" if stage.steps else ""))) or "the end"
        problems = f"; problems of {', '.join(stage.families)}" if stage.families else ""
        solved = "; solved problems left out" if stage.drop_solved else ""
        pace = f"up to {now.max_tokens:,} tokens, n_batch {now.n_batch:,}, n_async {now.n_async:,}"
        typer.echo(f"# stage {stage.name}, until {end}: {pace}{problems}{solved}")


def _sizes(model: str) -> Sizes:
    from magistral.errors import ModelError
    from magistral.models.find import model_path
    from magistral.models.sizes import BASES, SIZES, sizes_of
    from magistral.weights.read import open_weights

    known, name = SIZES | BASES, Path(model).name
    if not Path(model).exists() and name in known:
        return known[name]
    if model == "scratch":
        raise ModelError('base = "scratch" is made when a run starts, and too small for a plan: name a --model')
    return sizes_of(open_weights(model_path(model)))


def _print_memory(recipe: Recipe, rl: Rl, sizes: Sizes, gpu: Gpu) -> None:
    from magistral.pipeline.forecast import generator_memory, mean_held, trainer_memory

    runtime = recipe.runtime
    n_slots = min(recipe.engine.n_slots, -(-rl.n_async // runtime.n_generators))
    held = generator_memory(sizes, gpu, runtime, n_slots=n_slots, n_tokens=mean_held(rl))
    _print_one(f"{runtime.n_generators} generators of {runtime.generator_gpus:g}, each with {n_slots} completions", held)
    _print_one(f"{runtime.n_trainers} trainers of {runtime.trainer_gpus:g}", trainer_memory(sizes, gpu, runtime, rl))


def _print_hosts(runtime: Runtime, rl: Rl, sizes: Sizes) -> None:
    from magistral.engines.plan import GIB
    from magistral.pipeline.forecast import host_memory, hosts

    for n_generators, n_trainers in hosts(runtime):
        found = host_memory(sizes, rl, n_generators=n_generators, n_trainers=n_trainers)
        parts = ", ".join(f"{name} {part / GIB:.0f}" for name, part in (found.parts | found.shared).items() if part)
        who = " and ".join(f"{n} {name}" for n, name in ((n_generators, "generators"), (n_trainers, "trainers")) if n)
        total, shared = found.total / GIB, found.n_shared / GIB
        typer.echo(f"# a host of {who}: {total:,.0f} GiB of its memory, {shared:,.0f} of them in /dev/shm ({parts})")
    whole = 4 * sizes.n_parameters / GIB
    typer.echo(f"# where the run is started: {3 * whole:,.0f} GiB of memory, {whole:,.0f} of them in /dev/shm")


def _print_one(title: str, memory: Memory) -> None:
    from magistral.engines.plan import GIB

    parts = ", ".join(f"{name} {part / GIB:.1f}" for name, part in memory.parts.items())
    verdict = "fits" if memory.fits else "DOES NOT FIT"
    typer.echo(f"# {title}: {memory.total / GIB:.1f} of {memory.limit / GIB:.1f} GiB, {verdict} ({parts})")


def _print_forecast(recipe: Recipe, rl: Rl, sizes: Sizes, gpu: Gpu) -> None:
    from magistral.pipeline.forecast import speeds_of
    from magistral.pipeline.simulate import N_SIMULATED, bottleneck, setting_of

    with progress("simulating", N_SIMULATED) as advance:
        found, what, gains = bottleneck(setting_of(recipe, rl, speeds_of(sizes, gpu, recipe.runtime, rl)), advance)
    typer.echo(_told(found, rl))
    typer.echo(f"# what limits it: {what} (twice as fast: {gains[what]:.2f} times the tokens a second)")


def _told(f: Forecast, rl: Rl) -> str:
    days = rl.steps * f.step_s / 86_400
    return (
        f"# expected: {f.tokens_per_s:,.0f} tokens/s; a step of {f.step_s:,.0f} s, {rl.steps} of them in {days:.1f} days; "
        f"staleness {f.staleness:.2f}; padding {f.padding:.0%};\n"
        f"# idle: generators {f.generator_idle:.0%} (slots filled {f.slots_filled:.0%}), trainers {f.trainer_idle:.0%}, "
        f"verifiers {f.verifier_idle:.0%}"
    )
