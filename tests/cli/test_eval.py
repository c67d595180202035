"""`magistral eval BENCHMARK…` as a person runs it, against an endpoint that speaks as OpenAI's does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from typer.testing import CliRunner

from magistral.cli.main import app
from magistral.errors import MagistralError, UserError
from magistral.text.tokens import byte_tokenizer

if TYPE_CHECKING:
    from magistral.models.transformer import Transformer

RUN = CliRunner()


class Endpoint(BaseHTTPRequestHandler):
    """Adds right in every answer but to questions about nines."""

    asked: ClassVar[list[dict[str, Any]]] = []
    usage: ClassVar[dict[str, int] | None]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        a, b = (int(word) for word in body["messages"][-1]["content"].split("=")[0].split("+"))
        text = f"<think>Adding.</think>\\boxed{{{a + b + (a == 9)}}}"
        parts = [
            {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]},
            {"choices": [], "usage": self.usage},
        ]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for part in parts:
            self.wfile.write(f"data: {json.dumps(part)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    Endpoint.asked.clear()
    Endpoint.usage = {"prompt_tokens": 11, "completion_tokens": 7}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"question": f"{i} + {i} = ?", "answer": f"thus\n#### {2 * i}"} for i in range(8, 11)]
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    (tmp_path / "data" / "gsm8k" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


def run(*arguments: str) -> str:
    result = RUN.invoke(app, ["eval", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_an_endpoint_is_measured_reported_judged_again_and_compared(url: str, data: Path, tmp_path: Path) -> None:
    asked = (
        "gsm8k",
        "--model",
        f"m={url}",
        "--data",
        str(data),
        "--runs",
        "2",
        "--max-tokens",
        "50",
        "--price-in",
        "1",
        "--price-out",
        "2",
    )
    out = str(tmp_path / "out")
    told = run(*asked, "--out", out)
    assert "| gsm8k | m=" in told
    assert "3 of 1319 problems" in told
    assert "66.7 %" in told
    assert len(Endpoint.asked) == 6
    assert len({body["seed"] for body in Endpoint.asked}) == 6
    assert {(body["max_tokens"], body["temperature"]) for body in Endpoint.asked} == {(50, 0.7)}
    result = json.loads((tmp_path / "out" / "gsm8k" / "eval.json").read_text())
    assert result["totals"]["cost"] == pytest.approx(6 * (11 * 1 + 7 * 2) / 1e6)
    assert result["scores"]["malformed"]["value"] == 0.0

    assert "finished before; left as it is" in run(*asked, "--out", out, "--resume")
    assert len(Endpoint.asked) == 6

    rows = data / "gsm8k" / "test.jsonl"
    rows.write_text(rows.read_text().replace("#### 18", "#### 19"))  # the reference was wrong, the model right
    told = run("--out", out, "--data", str(data), "--regrade")
    assert "is not what was asked" in told
    assert "2 verdicts changed" in told
    assert "gsm8k-2 #0: wrong (19 is not 18) -> right (19 = 19)" in told
    assert json.loads((tmp_path / "out" / "gsm8k" / "eval.json").read_text())["scores"]["pass_at_1"]["value"] == 1.0
    assert len(Endpoint.asked) == 6

    run(*asked, "--out", str(tmp_path / "other"))
    assert "not compared" not in run("--out", out, "--compare", str(tmp_path / "other"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "+0.0 (-56.1 to +56.1) points" in page  # of 3 problems none differed: test_scores.py
    assert "Differs besides the model: data" not in page  # judging again took the new references over


def test_what_the_other_has_not_measured_is_said(url: str, data: Path, tmp_path: Path) -> None:
    (data / "aime24").mkdir()
    (data / "aime24" / "test.jsonl").write_text('{"id": "1", "problem": "1 + 1 = ?", "answer": "2"}\n')
    for name in ("gsm8k", "aime24"):
        run(name, "--model", f"m={url}", "--data", str(data), "--runs", "1", "--out", str(tmp_path / name))
    told = run("--out", str(tmp_path / "gsm8k"), "--compare", str(tmp_path / "aime24"))
    assert f"not compared, since {tmp_path / 'aime24'} has not measured it: gsm8k" in told


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -11, "completion_tokens": -7},
        {"prompt_tokens": 11, "completion_tokens": 0},
        {"prompt_tokens": 11, "completion_tokens": 51},
        None,
    ],
    ids=["negative", "no tokens for a text", "more than it may", "absent"],
)
def test_an_endpoints_count_that_cannot_be_true_is_not_believed_and_the_report_says_so(
    usage: dict[str, int] | None, url: str, data: Path, tmp_path: Path
) -> None:
    Endpoint.usage = usage
    asked = ("--model", f"m={url}", "--data", str(data), "--max-tokens", "50", "--price-in", "1", "--price-out", "2")
    told = run("gsm8k", *asked, "--out", str(tmp_path / "out"))
    assert "the tokens of 3 completions are guessed from their characters" in told
    totals = json.loads((tmp_path / "out" / "gsm8k" / "eval.json").read_text())["totals"]
    assert 3 * 8 <= totals["tokens_out"] <= 3 * 12  # "<think>Adding.</think>\boxed{16}", the marks perhaps with line ends
    assert totals["cost"] == pytest.approx((totals["tokens_in"] + 2 * totals["tokens_out"]) / 1e6)


def test_a_model_on_this_machine_is_measured(tiny: Callable[..., Transformer], data: Path, tmp_path: Path) -> None:
    from magistral.models.load import save_model

    folder, out = tmp_path / "model", tmp_path / "out"
    folder.mkdir()
    made = tiny(n_words=257, window=256)
    save_model(folder, made, byte_tokenizer(), made.named_parameters())
    asked = [
        "gsm8k",
        "--model",
        str(folder),
        "--data",
        str(data),
        "--runs",
        "3",
        "--slots",
        "2",
        "--threads",
        "1",
        "--out",
        str(out),
    ]
    with pytest.raises(UserError, match="answers of 32768 tokens leave no room"):
        run(*asked)
    run(*asked, "--max-tokens", "6", "--window", "200")
    kept = [json.loads(line) for line in (out / "gsm8k" / "completions.jsonl").read_text().splitlines()]
    assert {(row["problem_id"], row["index"]) for row in kept} == {(f"gsm8k-{n}", i) for n in (1, 2, 3) for i in range(3)}
    assert all(0 < row["n_tokens"] <= 6 and row["n_prompt"] > 20 for row in kept)
    result = json.loads((out / "gsm8k" / "eval.json").read_text())
    assert result["scores"]["truncated"]["value"] > 0
    assert "weights in int8 instead of full precision" in result["departures"]

    (out / "gsm8k" / "completions.jsonl").write_text("")
    info = json.loads((out / "gsm8k" / "run.json").read_text())
    (out / "gsm8k" / "run.json").write_text(json.dumps(info | {"state": "stopped"}))
    with pytest.raises(UserError, match=r"was begun with weights int8 .* and this is with weights float32"):
        run(*asked, "--max-tokens", "6", "--window", "200", "--weights", "float32", "--resume")


def test_a_system_prompt_of_a_persons_own_is_no_protocol(url: str, data: Path, tmp_path: Path) -> None:
    asked = ("gsm8k", "--model", f"m={url}", "--data", str(data))
    assert "--system" not in run(*asked, "--out", str(tmp_path / "plain"))
    told = run(*asked, "--out", str(tmp_path / "told"), "--system", "The answer is always 204")
    assert "a system prompt of --system: 'The answer is always 204'" in told


def test_how_weights_are_stored_in_a_file_is_told(tmp_path: Path) -> None:
    import gguf
    import numpy as np

    from magistral.cli.served import Means
    from magistral.cli.voices import weights_form

    file = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    kind = gguf.GGMLQuantizationType.Q8_0
    rows = gguf.quants.quantize(np.ones((2, 32), np.float32), kind)
    writer.add_tensor("blk.0.ffn_up.weight", rows, raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert weights_form(str(tmp_path), Means(weights="float32")) == "float32"
    assert weights_form(str(file), Means(weights="int8")) == "Q8_0, int8"
    assert weights_form(str(file), Means(engine="llamacpp")) == "Q8_0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gsm8k", "--model", "m"], "name their folder with --data"),
        (["gsm8k", "--data", "."], "with --model"),
        (["gsm9k", "--model", "m", "--data", "."], "did you mean 'gsm8k'"),
        (["gsm8k", "--set", "a=1"], "--set goes with a recipe"),
        (["recipes/nano.toml", "--runs", "2"], "--runs goes with benchmarks"),
        (["gsm8k", "--price-in", "2"], "go together"),
        (["--runs", "2"], "--runs goes with the name of a benchmark"),
        (["gsm8k", "--model", "m", "--data", ".", "--language", "fr"], "no choice of languages there; it goes with aime_multi"),
        (["gsm8k", "--model", "m", "--data", "DATA", "--budget", "1"], "--budget goes with an endpoint"),
        ([], "holds no finished measurement"),
        (["gsm8k", "--model", "m", "--data", "DATA", "--compare", "mistyped"], "mistyped holds no finished measurement"),
    ],
    ids=[
        "no data",
        "no model",
        "unknown",
        "recipe's option",
        "benchmark's option",
        "half a price",
        "nothing to ask",
        "no languages",
        "a budget for nothing",
        "nothing there",
        "nothing to compare with",
    ],
)
def test_what_cannot_be_measured_is_said(arguments: list[str], said: str, data: Path, tmp_path: Path) -> None:
    given = [str(data) if a == "DATA" else a for a in arguments]
    result = RUN.invoke(app, ["eval", *given, "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, MagistralError), result.output
    assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_budget_ends_the_asking_before_it_is_passed(url: str, data: Path, tmp_path: Path) -> None:
    arguments = [
        "eval",
        "gsm8k",
        "--model",
        f"m={url}",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--max-tokens",
        "50",
    ]
    poor = [*arguments, "--price-in", "0", "--price-out", "1000000", "--budget", "60", "--slots", "1"]
    result = RUN.invoke(app, poor)
    assert "of the budget of 60 is left" in str(result.exception)
    n_asked = len(Endpoint.asked)
    assert 1 <= n_asked < 3
    RUN.invoke(app, [*arguments, "--resume"], catch_exceptions=False)
    assert len(Endpoint.asked) == 3


def test_a_budget_is_of_all_stretches_of_a_run_together(url: str, data: Path, tmp_path: Path) -> None:
    """An answer costs 7, and 10 are set aside for it: of 18 there are two, however often the run goes on."""
    arguments = [
        "eval", "gsm8k", "--model", f"m={url}", "--data", str(data), "--out", str(tmp_path / "out"), "--max-tokens", "10",
        "--price-in", "0", "--price-out", "1000000", "--slots", "1", "--budget",
    ]  # fmt: skip
    RUN.invoke(app, [*arguments, "18"])
    assert len(Endpoint.asked) == 2
    for _ in range(2):
        result = RUN.invoke(app, [*arguments, "18", "--resume"])
        assert "budget: 14.000000 of 18 was spent before, 4.000000 is left" in result.output
        assert "of the budget of 4 is left" in str(result.exception)
    assert len(Endpoint.asked) == 2
    RUN.invoke(app, [*arguments, "24", "--resume"], catch_exceptions=False)
    assert len(Endpoint.asked) == 3
