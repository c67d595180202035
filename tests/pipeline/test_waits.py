from __future__ import annotations

import json
from pathlib import Path

from magistral.pipeline.waits import Waits, explain


def test_who_waits_for_whom_stands_in_the_file_and_is_said_longest_first(tmp_path: Path) -> None:
    file = tmp_path / "waits.json"
    with Waits(file) as waits, waits("train", "verify", "3 of 8 groups are scored"):
        with waits("verify", "verifier-0", "over before anybody looked"):
            pass
        with waits("generate", "generator-1", "news of 4 groups"):
            waits.workers["generator-1"] = {"pid": 4711, "host": "node-3"}
            waits.fault("trainer", "no answer for 600 s: step 9")
            waits.write()
            lines = explain(file, alive=True)
    assert lines[0] == "the run is going on"
    assert [line.split(", since")[0] for line in lines[1:3]] == ["train waits for verify", "generate waits for generator-1"]
    assert lines[3] == "generator-1 is process 4711 on node-3"
    assert lines[4].endswith("ago: trainer: no answer for 600 s: step 9")


def test_the_file_of_a_run_that_ended_names_no_wait(tmp_path: Path) -> None:
    file = tmp_path / "waits.json"
    with Waits(file) as waits, waits("train", "verify", "3 of 8 groups are scored"):
        pass
    assert json.loads(file.read_text())["waits"] == []
    assert explain(file, alive=False) == ["no process holds this run: what stands here is how it was at the end"]


def test_a_run_without_the_file_is_not_guessed_at(tmp_path: Path) -> None:
    assert "nothing is known" in explain(tmp_path / "waits.json", alive=True)[0]
