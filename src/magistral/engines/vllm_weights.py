"""New weights on their way to vLLM servers: a file that both sides see, sealed with version and checksum.

vLLM lets others add a way for weights to come (`--weight-transfer-config`), next to its own between GPUs. This one is a file:
in shared memory on one machine, on a shared disc between several. It works on CPUs too, and each side checks the bytes. Where
open-magistral is installed beside vLLM, vLLM finds `register` by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from magistral.errors import UserError
from magistral.weights.names import their_name

if TYPE_CHECKING:
    from torch import Tensor

BACKEND = "magistral"
"""Its name in vLLM's `--weight-transfer-config`."""
MEMORY = Path("/dev/shm")
PIECE = 2**24
"""Bytes read at once (chosen: enough that the disc is the limit)."""


@dataclass(frozen=True, slots=True)
class Sealed:
    path: Path
    version: int
    checksum: str
    """XXH3 (128 bits) of the file."""

    @property
    def label(self) -> str:
        """What a server calls its weights after it took these: told with every token that they write."""
        return f"{self.version}-{self.checksum}"


class Shelf:
    """Where new weights lie while servers take them: a folder of our own, in one that they see too.

    `whole`: the weights that are never put here, since training leaves them alone; `base`: None for this machine's shared
    memory; `name`: the same for whoever follows this process, so that what one that died had left there is replaced; `dtype`:
    what they are rounded to, as torch calls it. Raises UserError where the folder cannot be made or is another user's."""

    def __init__(
        self, whole: Mapping[str, Tensor] | None = None, *, base: Path | None = None, name: str = "", dtype: str = "float32"
    ) -> None:
        self._whole, self._dtype = dict(whole or {}), dtype
        if base is None:
            base = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
        self.folder = base / f"magistral-{os.getuid()}-{xxhash.xxh3_64_hexdigest(name.encode())}"
        try:
            self.folder.mkdir(mode=0o755, exist_ok=True)
        except OSError as e:
            raise UserError(f"engine.folder: {self.folder} cannot be made: {e.strerror}") from None
        if self.folder.is_symlink() or self.folder.stat().st_uid != os.getuid():
            raise UserError(f"engine.folder: {self.folder} is another user's: name another folder")

    def put(self, weights: Mapping[str, Tensor], version: int) -> Sealed:
        """All weights as one file in Hugging Face's names; it is the caller's to delete. Raises DiscFull."""
        import torch
        from safetensors.torch import save_file

        from magistral.log import require_space  # here, since vLLM's environment does not have all that it needs

        self._whole.update(weights)
        dtype: torch.dtype = getattr(torch, self._dtype)
        require_space(self.folder, sum(tensor.numel() * dtype.itemsize for tensor in self._whole.values()))
        path = self.folder / "weights.safetensors"
        save_file({their_name(name, "hf"): t.detach().to("cpu", dtype).contiguous() for name, t in self._whole.items()}, path)
        return Sealed(path, version, checksum(path))

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def checksum(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def transfer_config() -> str:
    """The value of vLLM's option `--weight-transfer-config`."""
    return json.dumps({"backend": BACKEND})


def register() -> None:
    """Called by vLLM when it starts (entry point `vllm.general_plugins`)."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    WeightTransferEngineFactory.register_engine(BACKEND, "magistral.engines.vllm_receiver", "Receiver")
