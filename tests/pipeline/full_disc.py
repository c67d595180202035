"""Runs on discs of many small sizes, each of which fills at another moment: python -m tests.pipeline.full_disc FOLDER

It mounts them, so it wants a namespace of its own (`unshare --user --map-root-user --mount`). Says for each size, as a line of
JSON, which file did not fit, and what the audit finds before and after there is space again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
from safetensors.numpy import save_file

from magistral.errors import DiscFull
from magistral.flow import StepReport
from magistral.log import RunFolder
from magistral.pipeline.audit import audit
from tests.pipeline.fakes import FakeGenerator
from tests.pipeline.test_record import CountingTrainer, go_on

N_STEPS = 6


class HeavyTrainer(CountingTrainer):
    async def save(self, folder: Path) -> None:
        save_file({"weights": np.zeros(6000)}, folder / "model.safetensors")


def try_on(disc: Path, kib: int) -> dict[str, object]:
    run, told = RunFolder(disc / "run"), list[StepReport]()

    def go(steps: int) -> None:
        generator = FakeGenerator(Random(kib), longest=9)
        go_on(run, generator, steps=steps, trainer=HeavyTrainer(), checkpoint_every=3, on_step=told.append)

    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", disc], check=True)
    try:
        run.path.mkdir()
        said = ""
        try:
            go(N_STEPS)
        except ExceptionGroup as group:
            (full,) = group.exceptions
            assert isinstance(full, DiscFull), full
            said = str(full)
        left = [str(path.relative_to(disc)) for path in disc.rglob(".*.partial")]
        full_disc = audit(run)
        lost = len(told) - full_disc.step
        subprocess.run(["mount", "-o", "remount,size=16m", disc], check=True)
        go(N_STEPS + 2)
        after = audit(run)
    finally:
        subprocess.run(["umount", "--lazy", disc], check=True)
    faults = [*full_disc.faults, *after.faults]
    return {"kib": kib, "said": said, "left": left, "steps_lost": lost, "faults": faults, "step": after.step}


if __name__ == "__main__":
    for kib in range(24, 320, 4):
        sys.stdout.write(json.dumps(try_on(Path(sys.argv[1]), kib)) + "\n")
