"""Runs inside vLLM's workers (0.32): takes the weights that `vllm_weights` sealed. vLLM is not there to be type-checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from magistral.engines.vllm_weights import checksum


@dataclass
class Folder(WeightTransferInitInfo):  # type: ignore[misc]
    folder: str


@dataclass
class File(WeightTransferUpdateInfo):  # type: ignore[misc]
    path: str
    checksum: str


class Receiver(WeightTransferEngine[Folder, File]):  # type: ignore[misc]
    """Touches the model only once the bytes were found to be those that were sent."""

    init_info_cls = Folder
    update_info_cls = File

    def init_transfer_engine(self, init_info: Folder) -> None:
        if not os.access(init_info.folder, os.R_OK | os.X_OK):
            raise ValueError(f"{init_info.folder} cannot be read from this server: name a folder that both sides see")

    def start_weight_update(self) -> None:
        """Nothing is touched yet."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.receive_weights(self.parse_update_info(update_info))
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: File) -> None:
        found = checksum(Path(update_info.path))
        if found != update_info.checksum:
            raise ValueError(f"{update_info.path} has the checksum {found}, and {update_info.checksum} was sent")
        initialize_layerwise_reload(self.model)
        with safe_open(update_info.path, framework="pt") as file:
            self.model.load_weights((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 - no mapping
        finalize_layerwise_reload(self.model, self.model_config)
        for layer in self.model.modules():
            if isinstance(
                layer, ParallelLMHead
            ):  # on a CPU a head tied to the embedding is a packed copy, which a reload forgets
                layer.quant_method.process_weights_after_loading(layer)

    def finish_weight_update(self) -> None:
        """All was done when the file was taken."""

    def shutdown(self) -> None:
        """Nothing is held open."""
