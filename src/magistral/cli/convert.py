"""`magistral convert IN OUT`: Hugging Face <-> Mistral native <-> GGUF, quantised or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Kind = Literal["keep", "f32", "f16", "bf16", "q8_0", "q4_0", "q2_k", "q3_k_m", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"]


def command(
    source: Annotated[str, typer.Argument(metavar="IN", help="A model folder, a .gguf file, a run's folder, or smollm2.")],
    out: Annotated[Path, typer.Argument(help="A new folder, or a new file that ends in .gguf.")],
    form: Annotated[
        Literal["hf", "mistral", "gguf"] | None,
        typer.Option("--format", help="Of OUT.", show_default="gguf for a name that ends so, else hf"),
    ] = None,
    kind: Annotated[
        Kind,
        typer.Option("--type", help="Of the numbers. Vectors in GGUF stay f32; q..._k are made by llama.cpp's own quantiser."),
    ] = "keep",
) -> None:
    """Write a model in another format. Cut short, the same command goes on where it stopped."""
    from magistral.errors import UserError
    from magistral.models.convert import BY_LLAMA_CPP, llama_quantise
    from magistral.models.find import model_path

    path, wanted = model_path(source), "" if kind == "keep" else kind.upper()
    if wanted in BY_LLAMA_CPP:
        llama_quantise()  # raises before anything is written
        if out.suffix != ".gguf":
            raise UserError(f"{kind} is a type of GGUF files: name OUT so that it ends in .gguf")
        if out.exists():
            raise UserError(f"{out} exists: name another OUT, or remove it first")
    _convert(path, out, form, wanted)


def _convert(path: Path, out: Path, form: Literal["hf", "mistral", "gguf"] | None, kind: str) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from magistral.models.convert import BY_LLAMA_CPP, convert, convert_by_llama_cpp, keep_prompt, plan_conversion

    by_llama_cpp = kind in BY_LLAMA_CPP
    plan = plan_conversion(path, out, form=form, kind="F16" if by_llama_cpp else kind)
    if plan.weights.left_out:
        typer.echo(f"left out: {len(plan.weights.left_out)} tensors of parts that are not text, as {plan.weights.left_out[0]}")
    if plan.kept_plain:
        typer.echo(
            f"kept in a plain type: {len(plan.kept_plain)} matrices whose rows {kind} does not divide, as {plan.kept_plain[0]}"
        )
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"writing {out}", total=plan.n_bytes)
        if by_llama_cpp:
            convert_by_llama_cpp(plan, out, kind, lambda n: bar.update(task, advance=n))
        else:
            convert(plan, out, lambda n: bar.update(task, advance=n))
    if kept := keep_prompt(plan, out):
        typer.echo(kept)
    n_bytes = out.stat().st_size if out.is_file() else plan.n_bytes
    typer.echo(f"{out}: {plan.sizes.n_parameters:,} parameters, {n_bytes / 1e9:.2f} GB")
