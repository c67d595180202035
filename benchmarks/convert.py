"""Memory and time of `magistral convert` on a model shaped like Magistral Small with fewer layers.

    python benchmarks/convert.py [FOLDER] [--layers 2]     FOLDER: room for three times the model's 5 GB

The weights are random (seed 0): nothing here depends on their values. Needs mistral-common, for a vocabulary of the real size.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from magistral.log import machine
from magistral.models.sizes import MAGISTRAL_SMALL, Sizes
from magistral.weights.names import their_name
from magistral.weights.safetensors import header_bytes

ROOT = Path(__file__).parents[1]
OUTS = {
    "hf, bf16": ("hf", "keep"),
    "gguf, bf16": ("b.gguf", "keep"),
    "gguf, q8_0": ("q8.gguf", "q8_0"),
    "gguf, q4_0": ("q4.gguf", "q4_0"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=None)
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    sizes = replace(MAGISTRAL_SMALL, n_layers=options.layers)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        source = Path(name) / "native"
        write_native(source, sizes)
        n_bytes = (source / "consolidated.safetensors").stat().st_size
        largest = 2 * max(int(np.prod(shape)) for shape in sizes.shapes().values())
        rows = {title: measure(source, Path(name) / out, kind) for title, (out, kind) in OUTS.items()}
    result = {
        "machine": machine(),
        "seed": 0,
        "layers": options.layers,
        "source_gb": round(n_bytes / 1e9, 2),
        "largest_tensor_gb": round(largest / 1e9, 2),
        "limit_gb": round(largest / 1e9 + 1, 2),
        "conversions": rows,
    }
    (ROOT / "benchmarks" / "results" / "convert.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def write_native(folder: Path, sizes: Sizes) -> None:
    folder.mkdir()
    tensors = {their_name(name, "mistral"): ("BF16", shape) for name, shape in sizes.shapes().items()}
    noise = np.random.default_rng(0).normal(scale=0.02, size=2**24).astype(np.float32)
    bits = (noise.view(np.uint32) >> 16).astype(np.uint16)
    with (folder / "consolidated.safetensors").open("wb") as file:
        file.write(header_bytes(tensors))
        for _, shape in tensors.values():
            n = int(np.prod(shape))
            for start in range(0, n, len(bits)):
                file.write(bits[: min(len(bits), n - start)].data)
    (folder / "params.json").write_text(json.dumps(sizes.to_params()), encoding="utf-8")
    write_tekken(folder)


def write_tekken(folder: Path) -> None:
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        sys.exit("needs mistral-common: scripts/install mistral-common")
    data = json.loads((Path(spec.origin).parent / "data" / "tekken_240911.json").read_text(encoding="utf-8"))
    data["config"]["version"] = "v11"
    (folder / "tekken.json").write_text(json.dumps(data), encoding="utf-8")


def measure(source: Path, out: Path, kind: str) -> dict[str, float]:
    """Seconds, and the most memory that was resident, of a process of its own."""
    code = "from magistral.cli.main import main; main()"
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, "convert", str(source), str(out), "--type", kind])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"the conversion to {out.name} failed")
    size = sum(f.stat().st_size for f in out.rglob("*")) if out.is_dir() else out.stat().st_size
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    return {"seconds": round(seconds, 1), "out_gb": round(size / 1e9, 2), "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2)}


if __name__ == "__main__":
    main()
