"""`magistral plan MODEL`: what of a model fits on a machine, and how to run it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from magistral.engines.plan import Choice, Kind, Machine
    from magistral.models.sizes import Sizes


def command(
    model: Annotated[str, typer.Argument(help="A model folder, a .gguf file, smollm2, or a name as magistral-small-2507.")],
    gpu: Annotated[
        float | None,
        typer.Option(min=1, help="Plan for a GPU of so many GiB (a card sold as 24 GB has 24) instead of this machine."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many such GPUs.")] = 1,
    ram: Annotated[float | None, typer.Option(min=1, help="Plan for a machine without a GPU and with so many GiB.")] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Tokens of question and answer together.", show_default="what the model is advised")
    ] = None,
) -> None:
    """Sizes of weights and cache, what fits, and the engine and flags to use."""
    from magistral.engines.plan import GIB, Machine
    from magistral.errors import UserError

    if gpu is not None and ram is not None:
        raise UserError("--gpu and --ram name two machines: leave one out")
    if gpu is not None:
        machine = Machine(memory=int(gpu * GIB), n_gpus=gpus)
    else:
        machine = Machine(memory=int(ram * GIB), n_cores=_cores()) if ram is not None else this_machine()
    subject = _subject(model, machine)
    if window is not None and window > subject.sizes.window:
        raise UserError(f"--window {window} is over the model's own {subject.sizes.window}: lower it")
    wanted = window or subject.advised
    _table(subject, machine)
    _advice(subject, machine, wanted)


@dataclass(frozen=True)
class Subject:
    """What is planned for."""

    name: str
    sizes: Sizes
    kinds: tuple[Kind, ...]
    advised: int
    """Tokens of the window that the model is advised for."""
    version: str = ""
    """Of Magistral Small, where it was named as one."""
    flags: tuple[str, ...] = ()
    """That vLLM needs for it."""


def _subject(model: str, machine: Machine) -> Subject:
    from magistral.engines.plan import kind_of_file, mistral_flags
    from magistral.errors import UnknownName
    from magistral.models.find import model_path
    from magistral.models.sizes import SIZES, sizes_of
    from magistral.models.words import tokenizer_of
    from magistral.registry import nearest
    from magistral.text.trace import THINK_TOKENS
    from magistral.text.versions import ALIASES, VERSIONS
    from magistral.weights.read import open_weights

    version = ALIASES.get(model, model)
    if version in SIZES and not Path(model).exists():
        name = f"mistralai/Magistral-Small-{version.rsplit('-', 1)[-1]}"
        known = VERSIONS[version]
        flags = mistral_flags(known.layout, native=True, thinks=known.marks == THINK_TOKENS)
        return Subject(name, SIZES[version], machine.kinds, known.advised, version, flags)
    if not Path(model).exists() and model != "smollm2":
        names = [*SIZES, *ALIASES, "smollm2", *(file.name for file in Path().glob("*.gguf"))]
        raise UnknownName(f"no model {model!r}, neither a file or folder nor a name; {nearest(model, names)}")
    weights = open_weights(model_path(model))
    sizes = sizes_of(weights)
    own = (kind_of_file(weights.tensors, sizes.n_parameters),) if weights.form == "gguf" else machine.kinds
    name = str(weights.path) if weights.form == "gguf" else model
    flags = ()
    if (weights.path / "tekken.json").is_file():
        tokenizer = tokenizer_of(weights, sizes.n_words)
        flags = mistral_flags(tokenizer.layout, native=weights.form == "mistral", thinks=tokenizer.marks_are_tokens)
    return Subject(name, sizes, own, min(sizes.window, 40_960), flags=flags)


def this_machine() -> Machine:
    """Its first GPU and those like it, as nvidia-smi tells; else its memory and cores."""
    from magistral.engines.plan import GIB, Machine

    program = shutil.which("nvidia-smi")
    if program:
        asked = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False)
        sizes = [int(line) * 2**20 for line in told.stdout.split() if line.isdigit()]
        if told.returncode == 0 and sizes:
            return Machine(memory=min(sizes), n_gpus=len(sizes))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(memory=min([memory if memory > 0 else GIB, *memory_limits()]), n_cores=_cores())


def memory_limits(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Bytes that the kernel lets this process and those of its groups have: a container's or a scheduler's limits."""
    limits = []
    for line in own.read_text(encoding="utf-8").splitlines() if own.exists() else []:
        _, controllers, place = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top, name = (groups / "memory", "memory.limit_in_bytes") if controllers else (groups, "memory.max")
        group = top / place.strip("/")  # which a container may not see: its own is then at the top
        for folder in (group, *(p for p in group.parents if p.is_relative_to(top))):
            text = (folder / name).read_text(encoding="utf-8").strip() if (folder / name).is_file() else ""
            limits += [int(text)] if text.isdigit() else []  # "max" is none
    return limits


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _table(subject: Subject, machine: Machine) -> None:
    from rich.console import Console
    from rich.table import Table

    from magistral.engines.plan import GIB, cache_bytes, fits, weight_bytes, windows

    sizes = subject.sizes
    typer.echo(f"{sizes.n_parameters:,} parameters; {cache_bytes(sizes, 1) / 1024:g} KiB of keys and values a token (16 bits)")
    typer.echo(f"{machine}: {machine.usable / GIB:.1f} GiB for weights and cache\n")
    table = Table("weights", "GiB", *(f"{w}" if w % 1024 else f"{w // 1024} k" for w in windows(sizes)))
    table.add_row("cache alone", "", *(f"{cache_bytes(sizes, w) / GIB:.2f} GiB" for w in windows(sizes)))
    for kind in subject.kinds:
        cells = [_cell(fits(sizes, machine, kind, w)) for w in windows(sizes)]
        table.add_row(kind.name, f"{weight_bytes(sizes, kind) / GIB:.1f}", *cells)
    Console().print(table)


def _cell(choice: Choice | None) -> str:
    if choice is None:
        return "no"
    cache = "" if choice.cache == "f16" else f", cache {choice.cache}"
    return f"{choice.n_at_once} at once{cache}"


def _advice(subject: Subject, machine: Machine, window: int) -> None:
    from magistral.engines.plan import GIB, best, smallest_need
    from magistral.engines.plan import command as to_type

    choice = best(subject.sizes, machine, subject.kinds, window)
    if choice is None:
        need = smallest_need(subject.sizes, machine, subject.kinds, window) / GIB
        typer.echo(f"Nothing fits with a window of {window}: that needs {need:.1f} GiB at least.")
        return
    cache = "" if choice.cache == "f16" else f", the cache in {choice.cache}"
    typer.echo(f"With a window of {window}: {choice.kind.name}{cache}; {choice.n_at_once} at once. To run it:")
    typer.echo("  " + to_type(choice, machine, subject.name, version=subject.version, flags=subject.flags))
    if choice.kind.engine == "vllm" and choice.n_gpus < machine.n_gpus:
        heads = f"{subject.sizes.n_heads} heads and {subject.sizes.n_kv_heads} key heads"
        typer.echo(f"  (on {choice.n_gpus} of the {machine.n_gpus} GPUs: {heads} divide among no more of them)")
    if choice.kind.engine == "llamacpp" and not subject.name.endswith(".gguf"):
        kind = choice.kind.name.split("(")[-1].rstrip(")").lower()
        folder, file = ("FOLDER" if subject.version else subject.name), subject.name.rstrip("/").rsplit("/", 1)[-1]
        typer.echo(f"  (first: magistral convert {folder} {file}.gguf --type {kind})")
    _native(subject.sizes, machine)


def _native(sizes: Sizes, machine: Machine) -> None:
    from magistral.engines.plan import GIB

    need = 2 * sizes.n_parameters * 4  # float32 as it is loaded, and the engine's own copy
    if not machine.n_gpus and need <= machine.usable:
        typer.echo(
            'For many completions at once, and for training: the native engine, with engine.weights = "int8" '
            f"({need / GIB:.1f} GiB while it loads).\nFor one at a time llama.cpp reads fewer bytes a token and is the faster."
        )
