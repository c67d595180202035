"""A recipe is checked whole, and each fault says what to change."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from magistral.errors import RecipeError
from magistral.recipe import Recipe, load_recipe, save_recipe
from magistral.recipe_train import parallel_flags

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))

SMALL = """
name = "small"

[model]
base = "scratch"
window = 64
scratch = { dim = 32, n_layers = 2, n_heads = 4, n_kv_heads = 2, hidden_dim = 64 }

[problems]
n_train = 8
n_held_out = 4
families = [{ name = "chain_sum", weight = 2, options = { max_terms = 3 } }]

[reward]
l_max = 40
l_cache = 10

[sft]
lr = 1e-3
n_traces = 8
n_batch = 4

[rl]
lr = 1e-4
steps = 2
group_size = 4
n_batch = 16
n_minibatch = 8
n_async = 32
eps_low = 0.2
eps_high = 0.28
temperature = 1.0
max_tokens = 40

[eval]
max_tokens = 40
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(SMALL, encoding="utf-8")
    return file


def fault(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value).removeprefix(f"{path}: ")


def test_defaults_are_filled_in(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.rl is not None
    assert recipe.rl.betas == (0.9, 0.95)
    assert recipe.reward.correctness == 0.9
    assert recipe.problems.source == "reasoning_gym"
    assert recipe.problems.families[0].options == {"max_terms": 3}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rl.n_asinc=32", "unknown key 'rl.n_asinc'; did you mean 'n_async'? known: betas, "),
        ("evl={}", "unknown key 'evl'; did you mean 'eval'? known: curation, distill, engine, eval, "),
        ("model.scratch.dims=3", "unknown key 'model.scratch.dims'; did you mean 'dim'? known: dim, "),
        ("sft.lora={rank=4, alpha=8, layers=2}", "unknown key 'sft.lora.layers'; did you mean 'last_layers'? known: alpha, "),
        (
            "problems.families=[{name='gcd', wieght=2}]",
            "unknown key 'problems.families.0.wieght'; did you mean 'weight'? known: name, ",
        ),
    ],
    ids=["in a section", "a section", "two deep", "in an optional section", "in a list"],
)
def test_an_unknown_key_names_the_nearest(path: Path, override: str, expected: str) -> None:
    assert fault(path, override).startswith(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rl.steps='many'", "rl.steps: Input should be a valid integer, unable to parse string as an integer (got 'many')"),
        ("rl.steps=0", "rl.steps: Input should be greater than 0 (got 0)"),
        ("rl.lr=nan", "rl.lr: Input should be a finite number (got nan)"),
        ("rl.eps_low=1.0", "rl.eps_low: Input should be less than 1 (got 1.0)"),
        ("rl.group_size=1", "rl.group_size: Input should be greater than 1 (got 1)"),
        ("engine.weights='int4'", "engine.weights: Input should be 'float32' or 'int8' (got 'int4')"),
        ("problems.families=[]", "problems.families: Tuple should have at least 1 item after validation, not 0 (got [])"),
        ("reward.correctness=-1", "reward.correctness: Input should be greater than 0 (got -1)"),
        ("reward.correctness=0", "reward.correctness: Input should be greater than 0 (got 0)"),
        ("reward.language=-0.1", "reward.language: Input should be greater than or equal to 0 (got -0.1)"),
        ("seed=-1", "seed: Input should be greater than or equal to 0 (got -1)"),
        ("eval.top_p=1.5", "eval.top_p: Input should be less than or equal to 1 (got 1.5)"),
        ("sft.betas=[1.0, 0.9]", "sft.betas.0: Input should be less than 1 (got 1.0)"),
        (f"seed={2**63}", f"seed: Input should be less than {2**63} (got {2**63})"),
        (
            f"rl.steps={'9' * 5000}",
            "rl.steps: Unable to parse input string as an integer, exceeded maximum size (got '999999999999...9999999999999')",
        ),
    ],
    ids=[
        "type",
        "no steps",
        "not a number",
        "clip to nothing",
        "group of one",
        "choice",
        "no family",
        "being right is punished",
        "being right pays nothing",
        "a language is punished",
        "negative",
        "over 1",
        "no decay",
        "seed over torch's",
        "endless number",
    ],
)
def test_a_wrong_value_says_what_it_should_be(path: Path, override: str, expected: str) -> None:
    assert fault(path, override) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rl.n_async=36", "rl: n_async=36 is over 2 * n_batch=32: lower n_async or raise n_batch"),
        ("rl.n_async=12", "rl: n_async=12 is under n_batch=16: a batch would never fill; raise n_async"),
        ("rl.n_minibatch=12", "rl: n_minibatch=12 does not divide n_batch=16: make it a divisor"),
        ("rl.n_minibatch=6", "rl: n_minibatch=6 must be a multiple of group_size=4: batches hold whole groups"),
        ("rl.max_tokens=64", "rl.max_tokens=64 leaves no room for a prompt in model.window=64: lower it or raise that"),
        ("eval.max_tokens=65", "eval.max_tokens=65 leaves no room for a prompt in model.window=64: lower it or raise that"),
        ("eval.n_runs=65", "eval.n_runs=65 is over engine.n_slots=64: a group is written at once; raise it"),
        ("engine={urls=['http://a']}", "engine: urls=('http://a',) is for kind = \"vllm\": leave it out"),
        ("engine={kind='vllm', weights='int8'}", 'engine: weights=int8 is for kind = "native": leave it out'),
        (
            "engine={kind='vllm', urls=['http://a'], flags=['-x']}",
            "engine: flags is for a server that the run starts, and urls names some that are there: leave one out",
        ),
        (
            "engine={kind='vllm', urls=['http://a', 'http://b']}",
            "runtime.n_generators=3 share 2 engine.urls: name one for each, or lower n_generators",
        ),
        ("rl.stages=[{name='a'}, {name='b'}]", "rl: stage 'a' never ends: give it steps or until"),
        (
            "rl.stages=[{name='a', n_batch=12}]",
            "rl: in stage 'a': n_minibatch=6 must be a multiple of group_size=4: batches hold whole groups",
        ),
        (
            "rl.stages=[{name='a', steps=1}, {name='b', n_batch=8}]",
            "rl: in stage 'b': n_async=32 is over 2 * n_batch=16: lower n_async or raise n_batch",
        ),
        (
            "rl.stages=[{name='a', families=['chian_sum']}]",
            "stage 'a': no family named 'chian_sum' in problems.families; did you",
        ),
        ("rl.stages=[{name='a', max_tokens=9}]", "stage 'a': max_tokens=9 is under reward.l_cache=10"),
        (
            "rl.stages=[{name='a', max_tokens=64}]",
            "rl.stages.0.max_tokens=64 leaves no room for a prompt in model.window=64: lower it or raise that",
        ),
        ("reward.l_cache=41", "reward: l_cache=41 is over l_max=40: lower l_cache or raise l_max"),
        ("engine={kind='vllm', prefix_mb=0}", 'engine: prefix_mb=0 is for kind = "native": leave it out'),
        ("model.base='smollm2'", 'model: base = "scratch" and a section [model.scratch] go together'),
        ("model.scratch.n_kv_heads=3", "model.scratch: n_kv_heads=3 must divide n_heads=4"),
        ("model.scratch.dim=36", "model.scratch: dim=36 must be n_heads=4 times an even number"),
        (
            "prompt.begin_thinking=true",
            "prompt.begin_thinking is for models without [sft]: traces teach the opening mark; leave one out",
        ),
    ],
    ids=[
        "too stale",
        "batch never full",
        "minibatch not dividing",
        "half a group",
        "rl over the window",
        "eval over the window",
        "runs over slots",
        "servers of another engine",
        "rounded weights of another engine",
        "flags for a server that is there",
        "fewer servers than generators",
        "stage without an end",
        "half a group in a stage",
        "stale in a stage",
        "stage of no family",
        "stage under the cache",
        "stage over the window",
        "cache over l_max",
        "a native setting for vllm",
        "scratch sizes for another base",
        "heads not shared evenly",
        "odd head",
        "thinking begun for a model that learns the mark",
    ],
)
def test_an_impossible_combination_names_both_values_and_the_remedy(path: Path, override: str, expected: str) -> None:
    assert fault(path, "runtime.n_generators=3", "runtime.kind=ray", override).startswith(expected)


def test_where_stages_change_the_length_the_penalty_begins_at_the_first_limit(path: Path) -> None:
    changes = ("rl.stages=[{name='a', max_tokens=50}]", "reward.l_max=41")
    expected = "reward.l_max=41 is not rl.max_tokens=40: make them equal where stages change the length"
    assert fault(path, *changes) == expected


def test_a_stage_has_what_those_before_it_say_and_as_many_minibatches(path: Path) -> None:
    stages = "[{name='a', steps=1, n_batch=32}, {name='b', steps=1, max_tokens=48, n_async=64}, {name='c', n_batch=64}]"
    rl = load_recipe(path, (f"rl.stages={stages}",)).rl
    assert rl is not None
    found = [rl.in_stage(i) for i in range(3)]
    assert [(s.max_tokens, s.n_batch, s.n_minibatch, s.n_async) for s in found] == [
        (40, 32, 16, 32), (48, 32, 16, 64), (48, 64, 32, 64),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "override",
    ["rl.n_async=16", "rl.n_minibatch=16", "rl.max_tokens=63", "reward.l_cache=40", "engine={kind='vllm', urls=['http://a']}"],
    ids=["staleness 0", "one minibatch", "one token of prompt", "penalty from the first token", "a server for each generator"],
)
def test_the_last_value_that_is_allowed_is_allowed(path: Path, override: str) -> None:
    load_recipe(path, (override,))


def test_every_fault_has_a_line_of_its_own(path: Path) -> None:
    lines = fault(path, "rl.steps=0", "seed=-1").splitlines()
    assert len(lines) == 2
    assert all("Input should be greater than" in line for line in lines)


def test_a_missing_value_is_named(path: Path) -> None:
    path.write_text(SMALL.replace("l_max = 40", ""), encoding="utf-8")
    assert fault(path) == "'reward.l_max' is missing"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert fault(tmp_path / "none.toml") == f"no recipe at {tmp_path / 'none.toml'}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name = \n", "is no TOML: Invalid value (at line 1, column 8)"),
        (b"\x00\xff", "is no TOML: 'utf-8' codec can't decode byte 0xff in position 1"),
        (b"a = " + b"[" * 100_000, "is no TOML: maximum recursion depth exceeded"),
        (b"a = " + b"9" * 5000, "is no TOML: Exceeds the limit (4300 digits)"),
        (b"#" * 2**20 + b"#", "is over 1048576 bytes long: it is no recipe"),
    ],
    ids=["no value", "binary", "deep", "endless number", "huge"],
)
def test_a_file_that_is_not_toml_says_why(content: bytes, expected: str, path: Path) -> None:
    path.write_bytes(content)
    assert fault(path).removeprefix(f"{path} ").startswith(expected)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert fault(tmp_path) == f"{tmp_path} cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rl.steps=7", 7),
        ("rl.lr=3e-4", 3e-4),
        ("rl.lora={rank=4, alpha=8.0}", {"rank": 4, "alpha": 8.0, "last_layers": None}),
        ("name=long", "long"),
        ('name="7"', "7"),
        ("engine.n_slots = 32", 32),
    ],
    ids=["integer", "number", "table", "a bare word is a string", "a quoted number is a string", "a section not in the file"],
)
def test_an_override_is_read_as_toml(path: Path, override: str, expected: object) -> None:
    value: object = load_recipe(path, (override,)).model_dump()
    for key in override.partition("=")[0].strip().split("."):
        assert isinstance(value, dict)
        value = value[key]
    assert value == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rl.steps", "--set 'rl.steps': write SECTION.KEY=VALUE"),
        ("rl..steps=1", "--set 'rl..steps=1': write SECTION.KEY=VALUE"),
        ("name.first=1", "--set 'name.first=1': 'name' is a value, not a section"),
        ("seed=1\nname='x'", "--set \"seed=1\\nname='x'\": write one key, and each other one after a --set of its own"),
        ("name=\udcff", "--set 'name=\\udcff': write it in UTF-8"),
    ],
    ids=["no value", "empty key", "into a value", "two at once", "not UTF-8"],
)
def test_an_override_that_cannot_be_read_is_refused(path: Path, override: str, expected: str) -> None:
    assert fault(path, override) == expected


@pytest.mark.parametrize(
    ("n_gpus", "flags", "added"),
    [
        (0, ("-tp", "2"), ()),
        (0.5, (), ()),
        (1, (), ()),
        (2, (), ("--tensor-parallel-size", "2")),
        (2, ("--quantization", "fp8"), ("--tensor-parallel-size", "2")),
        (2, ("--tensor-parallel-size=2",), ()),
        (8, ("-tp", "4", "--pipeline-parallel-size", "2"), ()),
        (8, ("-pp", "2"), ("--tensor-parallel-size", "4")),
        (4, ("--data-parallel-size", "4"), ()),
    ],
    ids=["no GPU of ours", "half a card", "one", "two", "other flags", "named", "named twice", "one named", "replicas"],
)
def test_a_vllm_server_shares_its_work_among_all_gpus_of_its_generator(
    n_gpus: float, flags: tuple[str, ...], added: tuple[str, ...]
) -> None:
    assert parallel_flags(flags, n_gpus) == added


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            ("engine.kind=vllm", "runtime.generator_gpus=2", "engine.flags=['-tp', '4']"),
            "=2 and engine.flags (-tp 4)",
        ),
        (
            ("engine.kind=vllm", "runtime.generator_gpus=3", "engine.flags=['-pp', '2']"),
            "=3 and engine.flags (-pp 2)",
        ),
        (
            ("engine.kind=vllm", "runtime.generator_gpus=1.5"),
            "=1.5 and engine.flags (a whole number of GPUs) do not",
        ),
        (("runtime.generator_gpus=1",), 'writes on the CPU: set engine.kind = "vllm", or leave generator_gpus out'),
    ],
    ids=["another number", "not to be divided", "one and a half", "native"],
)
def test_gpus_that_a_generator_would_not_use_are_refused(path: Path, changes: tuple[str, ...], expected: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(expected)):
        load_recipe(path, changes)


@pytest.mark.parametrize(
    "overrides", [(), ("rl.lora={rank=4, alpha=8}", "prompt.system='Think \"first\".\\n'")], ids=["plain", "lora"]
)
def test_a_resolved_recipe_loads_as_itself(path: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    recipe = load_recipe(path, overrides)
    save_recipe(recipe, tmp_path / "resolved.toml")
    assert load_recipe(tmp_path / "resolved.toml") == recipe


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.name)
def test_every_recipe_of_the_repository_loads(recipe: Path) -> None:
    assert isinstance(load_recipe(recipe), Recipe)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.name)
def test_every_value_of_a_recipe_says_beside_it_or_above_it_where_it_comes_from(recipe: Path) -> None:
    lines = ["", *recipe.read_text(encoding="utf-8").splitlines()]
    is_value = re.compile(r"[a-z_.]+ = ")
    bare = [
        line
        for above, line in pairwise(lines)
        if is_value.match(line) and not line.startswith("name = ") and "#" not in line and not above.startswith("#")
    ]
    assert bare == []


def test_the_repository_has_a_quickstart_recipe() -> None:
    assert "quickstart.toml" in [path.name for path in RECIPES]
