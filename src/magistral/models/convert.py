"""From one format to another: what each tensor becomes, and the small files beside the weights. Memory holds a few rows."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gguf import LlamaFileType

from magistral.errors import RunFailed, UserError
from magistral.log import require_space, write_atomically
from magistral.models.find import folder_of
from magistral.models.gguf_header import gguf_header
from magistral.models.sizes import Sizes, check_tensors, sizes_of
from magistral.models.words import tokenizer_of
from magistral.text.tokens import Tokenizer
from magistral.weights.kinds import FLOATS, WRITABLE, fits
from magistral.weights.names import Format, their_name
from magistral.weights.read import Weights, open_weights
from magistral.weights.stored import Stored
from magistral.weights.write import (
    SHARD_BYTES,
    Part,
    Target,
    finish,
    identity_of,
    n_taken,
    shard_index,
    shards,
    unfinished_folder,
    write_parts,
)

BY_LLAMA_CPP = {"Q2_K": 3.2, "Q3_K_M": 4.0, "Q4_K_S": 4.7, "Q4_K_M": 4.9, "Q5_K_S": 5.6, "Q5_K_M": 5.8, "Q6_K": 6.6}
"""Types that llama.cpp's own quantiser makes of a file that we write first, with the bits of a weight (its table, for 8B)."""
_BY_LIBRARY = """
import sys, llama_cpp
settings = llama_cpp.llama_model_quantize_default_params()
settings.ftype = int(sys.argv[3])
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), settings))
"""
TEKKEN, SYSTEM_PROMPT = "tekken.json", "SYSTEM_PROMPT.txt"
_TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What will be done, all of it checked: nothing is written yet."""

    weights: Weights
    sizes: Sizes
    tokenizer: Tokenizer
    form: Format
    targets: tuple[Target, ...]
    kept_plain: tuple[str, ...] = ()
    """Matrices whose rows do not divide into the type's blocks, and which keep a plain type."""

    @property
    def n_bytes(self) -> int:
        return sum(t.n_bytes for t in self.targets)


def plan_conversion(source: Path, out: Path, *, form: Format | None = None, kind: str = "") -> Conversion:
    """`form` empty: GGUF for a name that ends so, else Hugging Face's. `kind` empty: each tensor keeps its type where it can.

    Raises ModelError or UserError for anything that would not come out whole."""
    form = form or ("gguf" if out.suffix == ".gguf" else "hf")
    if (out.suffix == ".gguf") != (form == "gguf"):
        raise UserError(f"OUT is {out} and the format {form}: a GGUF file, and only that, has a name that ends in .gguf")
    if kind and kind not in (WRITABLE if form == "gguf" else FLOATS):
        raise UserError(f"{kind} cannot be written as {form}; what can: {', '.join(WRITABLE if form == 'gguf' else FLOATS)}")
    weights = open_weights(source)
    sizes = sizes_of(weights)
    check_tensors(sizes, weights)
    tokenizer = tokenizer_of(weights, sizes.n_words)
    if form == "mistral":
        sizes.to_params()  # raises for what the format cannot say
        if not (source / TEKKEN).is_file():
            raise UserError(f"a folder in Mistral's format needs the model's tekken.json, and {source} has none")
    targets, plain = [], []
    for name in sizes.shapes():
        tensor = weights.tensors[name]
        chosen = _kind(name, tensor, form, kind)
        if kind and len(tensor.shape) > 1 and kind not in FLOATS and chosen in FLOATS:
            plain.append(name)
        targets.append(Target(source=tensor, name=their_name(name, form), kind=chosen, n_heads=_pairs(name, form, sizes)))
    return Conversion(
        weights=weights, sizes=sizes, tokenizer=tokenizer, form=form, targets=tuple(targets), kept_plain=tuple(plain)
    )


def _kind(name: str, tensor: Stored, form: Format, kind: str) -> str:
    if form != "gguf":
        return kind or (tensor.kind if tensor.kind in FLOATS else "F32")
    if len(tensor.shape) == 1:  # llama.cpp computes with these as they are
        return "F32"
    kind = kind or tensor.kind
    if kind == "Q4_0" != tensor.kind and name in ("embed_tokens.weight", "lm_head.weight"):
        return "Q8_0" if fits("Q8_0", tensor.shape[1]) else "F16"  # these two bear 4 bits badly
    if not fits(kind, tensor.shape[1]):
        return tensor.kind if tensor.kind in FLOATS else "F16"
    return kind


def _pairs(name: str, form: Format, sizes: Sizes) -> int:
    """Heads whose rows lie in rotated pairs in that format."""
    if form == "hf" or (form == "gguf" and sizes.family not in ("llama", "mistral")):
        return 0
    return sizes.n_heads if ".q_proj." in name else sizes.n_kv_heads if ".k_proj." in name else 0


def convert(conversion: Conversion, out: Path, advance: Advance) -> None:
    """Write it. Cut short, the same call goes on where it stopped; only a whole model ever has the name `out`."""
    require_space(_nearest_folder(out), conversion.n_bytes - n_taken(out))
    with unfinished_folder(out) as folder:
        if conversion.form == "gguf":
            write_parts(folder, [_gguf_part(conversion, out)], advance)
            check_tensors(conversion.sizes, open_weights(folder / out.name))
            finish(folder, out, single=out.name)
            return
        stem = "model" if conversion.form == "hf" else "consolidated"
        parts = shards(conversion.targets, stem, limit=SHARD_BYTES if conversion.form == "hf" else 2**62)
        write_parts(folder, parts, advance)
        if len(parts) > 1:
            write_atomically(folder / f"{stem}.safetensors.index.json", shard_index(parts))
        _write_small_files(conversion, folder)
        check_tensors(conversion.sizes, open_weights(folder))
        finish(folder, out)


def _gguf_part(conversion: Conversion, out: Path) -> Part:
    header = gguf_header(conversion.sizes, conversion.tokenizer, conversion.weights, conversion.targets)
    return Part(name=out.name, header=header, targets=conversion.targets, alignment=32)


def _write_small_files(conversion: Conversion, folder: Path) -> None:
    tokenizer, source = conversion.tokenizer, conversion.weights.path
    if conversion.form == "hf":
        matrices = [t.kind for t in conversion.targets if len(t.source.shape) > 1]
        config = conversion.sizes.to_config(_TORCH[max(set(matrices), key=matrices.count)])
        bos = tokenizer.backend.token_to_id(tokenizer.bos) if tokenizer.bos else None
        write_atomically(
            folder / "config.json", json.dumps({**config, "eos_token_id": tokenizer.eos, "bos_token_id": bos}, indent=1) + "\n"
        )
        tokenizer.save(folder)
    else:
        write_atomically(folder / "params.json", json.dumps(conversion.sizes.to_params(), indent=1) + "\n")
    for name in (TEKKEN, SYSTEM_PROMPT):
        if (folder_of(source) / name).is_file() and (source.is_dir() or name == SYSTEM_PROMPT):
            shutil.copyfile(folder_of(source) / name, folder / name)


def keep_prompt(conversion: Conversion, out: Path) -> str:
    """Put a model's SYSTEM_PROMPT.txt beside its GGUF file, unless another model's is there; what became of it, for people."""
    own, beside = folder_of(conversion.weights.path) / SYSTEM_PROMPT, out.with_name(SYSTEM_PROMPT)
    if conversion.form != "gguf" or not own.is_file() or (beside.exists() and beside.samefile(own)):
        return ""
    if beside.exists() and beside.read_bytes() != own.read_bytes():
        return f"left out: {SYSTEM_PROMPT}, since {beside} is another model's; in a folder of its own the file is served with it"
    shutil.copyfile(own, beside)
    return f"{beside}: the model's own, for the .gguf files beside it"


def convert_by_llama_cpp(conversion: Conversion, out: Path, kind: str, advance: Advance) -> None:
    """Write `conversion`, a plain GGUF file, and have llama.cpp make K-quants of it.

    The plain file lies hidden beside `out`; it stays if the quantiser fails, and the same conversion then takes it again."""
    plain, noted = out.with_name(f".{out.stem}.f16.gguf"), out.with_name(f".{out.stem}.f16.json")
    identity = identity_of([_gguf_part(conversion, plain)])
    if not noted.is_file() or noted.read_text(encoding="utf-8") != identity:
        plain.unlink(missing_ok=True)  # of who knows which model
    to_write = 0 if plain.exists() else conversion.n_bytes - n_taken(plain)
    to_make = int(conversion.sizes.n_parameters * BY_LLAMA_CPP[kind] / 8) - n_taken(out)
    require_space(_nearest_folder(out), max(0, to_write) + max(0, to_make))
    if not plain.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(noted, identity)  # before the file, which has its name only when it is whole
        convert(conversion, plain, advance)
    quantise_with_llama_cpp(plain, out, kind)
    plain.unlink()
    noted.unlink()


def quantise_with_llama_cpp(plain: Path, out: Path, kind: str) -> None:
    """Have llama.cpp make K-quants of a plain GGUF file. Raises UserError where it is not installed."""
    command = llama_quantise()
    number = int(getattr(LlamaFileType, f"MOSTLY_{kind}"))
    with unfinished_folder(out) as folder:
        made = subprocess.run(
            [*command, str(plain), str(folder / out.name), str(number)], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            (folder / out.name).unlink(missing_ok=True)
            said = (made.stderr or made.stdout).strip().splitlines()[-1:] or ["no word"]
            raise RunFailed(f"llama.cpp's quantiser left with {made.returncode}: {said[0]}")
        open_weights(folder / out.name)
        finish(folder, out, single=out.name)


def llama_quantise() -> list[str]:
    """What to call with a file, a new file and the number of a type: the program, or the package's library."""
    program = shutil.which("llama-quantize")
    if program is not None:
        return [program]
    if importlib.util.find_spec("llama_cpp") is not None:
        return [sys.executable, "-c", _BY_LIBRARY]
    raise UserError(
        f"{', '.join(BY_LLAMA_CPP)} are made by llama.cpp's own quantiser: put llama-quantize on PATH or install "
        "llama-cpp-python, or choose q8_0 or q4_0"
    )


def _nearest_folder(path: Path) -> Path:
    return next(p for p in path.absolute().parents if p.exists())
