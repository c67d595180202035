"""`magistral sandbox doctor`: what this host enforces on code that nobody trusts."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(name="sandbox", no_args_is_help=True, help="Where code that a model wrote is run.")


@app.callback()
def _group() -> None:
    """Where code that a model wrote is run."""


@app.command()
def doctor(
    require_isolation: Annotated[bool, typer.Option("--require-isolation", help="Leave with 2 unless everything holds.")] = False,
    tier: Annotated[str, typer.Option("--tier", help="Examine a weaker tier: bubblewrap, uid+rlimits, rlimits.")] = "",
) -> None:
    """Run programs that try to break out, and print what holds them here."""
    from magistral.errors import UnknownName, UserError
    from magistral.registry import nearest
    from magistral.verifiers.sandbox.box import Box
    from magistral.verifiers.sandbox.doctor import examine
    from magistral.verifiers.sandbox.host import find_host, weaker
    from magistral.verifiers.sandbox.limits import Tier

    if tier and tier not in list(Tier):
        raise UnknownName(f"no tier named {tier!r}; {nearest(tier, Tier)}")
    host = weaker(Tier(tier)) if tier else find_host()
    with Box(1, require_isolation=require_isolation, host=host) as box:
        typer.echo(f"tier: {host.tier!s}{f' ({host.why})' if host.why else ''}")
        groups = f"version {host.cgroups.version}" if host.cgroups else "none"
        typer.echo(f"control groups: {groups}; refused system calls: {'yes' if host.seccomp else 'no table for this machine'}")
        failed = 0
        for finding in examine(box):
            failed += not finding.holds
            typer.echo(f"{'holds' if finding.holds else 'OPEN':6} {finding.name:34} {finding.what}")
    typer.echo("everything holds" if not failed else f"{failed} not held: see docs/sandbox.md for what each tier can hold")
    if failed and require_isolation:
        raise UserError(f"{failed} of the probes broke out")
