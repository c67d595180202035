"""`magistral eval RECIPE`: the recipe's held-out problems, measured."""

from __future__ import annotations

import typer

from magistral.cli.wiring import (
    N_THREADS,
    ModelName,
    Out,
    RecipePath,
    Resume,
    Set,
    Threads,
    load,
    progress,
    prompter,
    read_recipe,
    scorer_of,
    unfinished,
)


def command(
    recipe: RecipePath, out: Out, model: ModelName = None, resume: Resume = False, set_: Set = None, threads: Threads = N_THREADS
) -> None:
    """Measure a model on the recipe's held-out problems: pass@1, maj@k, reward, form, length, with 95 % intervals."""
    checked = read_recipe(recipe, set_)

    name = model or checked.model.base
    with unfinished(out, checked, "eval", name, resume=resume) as folder:
        if folder is None:
            return
        loaded, tokenizer, _, held_out = load("eval", checked, model, threads)
        from magistral.engines.native.engine import NativeEngine, Request
        from magistral.eval.run import run_eval
        from magistral.pipeline.growing import completion_of
        from magistral.pipeline.ledger import seed_of

        e, prompt_of = checked.eval, prompter(checked, tokenizer)
        engine = NativeEngine(
            loaded, tokenizer.eos, n_slots=checked.engine.n_slots, window=checked.model.window, weights=checked.engine.weights
        )
        del loaded
        requests = [
            (p, Request(
                prompt=prompt_of(p), seeds=tuple(seed_of(checked.seed, "eval", p.id, i) for i in range(e.n_runs)),
                max_tokens=e.max_tokens, temperature=e.temperature, top_p=e.top_p, key=ordinal,
            ))
            for ordinal, p in enumerate(held_out)
        ]  # fmt: skip
        with (
            scorer_of(checked, tokenizer) as scorer,
            progress(f"eval: {name}", len(requests) * e.n_runs) as advance,
        ):
            result = run_eval(
                checked,
                engine,
                requests,
                lambda w, p, group: scorer.score(completion_of(w, p, group, tokenizer.decode)),
                folder,
                on_written=advance,
            )
    for score, s in result["scores"].items():
        typer.echo(f"{score:12} {s['value']:8.3f}  [{s['low']:.3f}, {s['high']:.3f}]")
