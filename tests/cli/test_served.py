"""From what a person names to a model that can be served."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from magistral.cli.served import Means, load_served, make_engine, name_of, trained_prompt
from magistral.errors import ModelError, UserError
from magistral.serve.elsewhere import Elsewhere

if TYPE_CHECKING:
    from magistral.models.transformer import Transformer


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2", "smollm2"),
        ("models/small.gguf", "small"),
        ("medium=https://api.mistral.ai/v1#magistral-medium-latest", "medium"),
    ],
)
def test_a_model_is_asked_for_by_the_name_of_its_file_or_endpoint(model: str, name: str) -> None:
    assert name_of(model) == name


def test_a_key_in_an_address_is_refused() -> None:
    with pytest.raises(UserError, match="keys go into the environment"):
        name_of("m=https://user:secret@example.com/v1")


def test_a_known_host_without_its_key_says_which_variable_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    with pytest.raises(UserError, match="MISTRAL_API_KEY"):
        load_served("m=https://api.mistral.ai/v1", Means())


def test_an_endpoint_is_served_without_torch() -> None:
    program = (
        "import sys\nfrom magistral.cli.served import Means, load_served\n"
        "served = load_served('m=http://127.0.0.1:9/v1', Means())\n"
        "served.engine.close()\nassert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    served = load_served("m=http://127.0.0.1:9/v1", Means(window=9000))
    assert isinstance(served, Elsewhere)
    assert (served.name, served.window) == ("m", 9000)
    served.engine.close()  # type: ignore[attr-defined]


@pytest.fixture
def folder(tiny: Callable[..., Transformer], tmp_path: Path) -> Path:
    from magistral.models.load import save_model
    from magistral.text.tokens import byte_tokenizer

    made = tiny(n_words=byte_tokenizer().n_words)
    save_model(tmp_path, made, byte_tokenizer(), made.named_parameters())
    return tmp_path


def test_a_window_longer_than_the_model_s_and_a_folder_for_llama_cpp_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="over that of"):
        load_served(str(folder), Means(window=500, threads=1))
    with pytest.raises(ModelError, match=r"reads \.gguf files"):
        load_served(str(folder), Means(engine="llamacpp", threads=1))


def test_a_cache_that_holds_no_window_and_replicas_of_an_endpoint_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="--cache-mb is for the native engine"):
        load_served(str(folder), Means(engine="llamacpp", cache_mb=1, threads=1))
    with pytest.raises(UserError, match="leave --replicas out"):
        load_served("m=http://127.0.0.1:9/v1", Means(replicas=2))


def test_the_memory_of_the_engine_s_caches_can_be_set(folder: Path) -> None:
    engine: Any = make_engine(str(folder), Means(n_slots=2, threads=1, cache_mb=1, prefix_mb=0), "text")[0]
    assert engine.prefixes.n_places == 0


def test_a_folder_is_served_by_our_engine_which_does_what_the_others_do_not(folder: Path) -> None:
    served = load_served(str(folder), Means(n_slots=2, weights="float32", threads=1))
    assert (served.name, served.window, served.max_tokens) == (folder.name, 128, 64)
    assert {"mask", "draft", "n_top"} <= served.able
    assert served.weights.endswith(":float32")


def test_a_runs_recipe_brings_its_system_prompt(tmp_path: Path) -> None:
    recipe = """
name = "a"
prompt.system = "think first"
reward = {l_max = 100, l_cache = 20}
eval.max_tokens = 100
[problems]
n_train = 1
n_held_out = 1
families = [{name = "chain_sum"}]
"""
    (tmp_path / "recipe.toml").write_text(recipe)
    assert (trained_prompt(str(tmp_path)).system, trained_prompt("smollm2").system) == ("think first", "")
