"""The cluster examples are well formed, name what is there, and ask for the GPUs that their recipe asks for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from magistral.recipe import load_recipe

ROOT = Path(__file__).parents[1]
SLURM, KUBERAY = ROOT / "examples" / "slurm.sh", ROOT / "examples" / "kuberay.yaml"


def n_gpus(recipe: str) -> float:
    runtime = load_recipe(ROOT / "recipes" / recipe).runtime
    return runtime.n_generators * runtime.generator_gpus + runtime.n_trainers * runtime.trainer_gpus


def one(pattern: str, text: str) -> str:
    (found,) = set(re.findall(pattern, text))
    return str(found)


def test_the_slurm_example_is_a_shell_script_with_enough_gpus() -> None:
    assert subprocess.run([shutil.which("bash") or "bash", "-n", str(SLURM)], check=False).returncode == 0
    text = SLURM.read_text(encoding="utf-8")
    n = int(one(r"#SBATCH --nodes=(\d+)", text)) * int(one(r"#SBATCH --gpus-per-node=(\d+)", text))
    assert n >= n_gpus(one(r"(\w+\.toml)", text))


def test_the_kuberay_example_has_enough_gpus() -> None:
    yaml = pytest.importorskip("yaml", reason="comes with Ray")
    spec = yaml.safe_load(KUBERAY.read_text(encoding="utf-8"))["spec"]
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert group["replicas"] * int(limits["nvidia.com/gpu"]) >= n_gpus(one(r"(\w+\.toml)", spec["entrypoint"]))
