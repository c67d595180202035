"""A run ends in time, says why, and leaves nobody behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from magistral.errors import UserError
from magistral.verifiers.pool import PACKAGES
from magistral.verifiers.sandbox.box import Box
from magistral.verifiers.sandbox.host import find_host, python, scratch, sweep, weaker
from magistral.verifiers.sandbox.limits import End, Limits, Ran, Tier

TIERS = [Tier.FULL, Tier.BUBBLEWRAP, Tier.UID]
SHORT = Limits(wall_s=1.5, memory_mb=64, n_processes=16, output_mb=0.1, tmp_mb=16)


@pytest.fixture(scope="module", params=TIERS, ids=str)
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    host = weaker(request.param)
    if host.tier is not request.param:
        pytest.skip(f"this host has no tier {request.param!s}: {host.why or 'only root may change its user'}")
    with Box(2, host=host) as box:
        yield box


def run(box: Box, source: str, stdin: bytes = b"", *, limits: Limits = SHORT) -> Ran:
    with box.folder({"main.py": source.encode()}) as folder:
        return box.run([python(), "-I", "-S", "{box}/main.py"], folder, stdin, limits=limits)


def test_a_program_gets_its_input_and_its_output_comes_back(box: Box) -> None:
    ran = run(box, "import sys; print(input()[::-1]); print('e', file=sys.stderr); sys.exit(3)", b"abc\n")
    assert (ran.end, ran.exit_code, ran.stdout, ran.stderr) == (End.EXITED, 3, b"cba\n", b"e\n")
    assert ran.tier is box.host.tier


@pytest.mark.parametrize(
    ("source", "end"),
    [
        ("import time; time.sleep(99)", End.TIMED_OUT),
        ("while True: pass", End.TIMED_OUT),
        ("x = b'1' * (200 << 20)", End.MEMORY),
        ("while True: print('x' * 999)", End.OUTPUT),
        ("import sys\nwhile True: print('x' * 999, file=sys.stderr)", End.OUTPUT),
        ("import os\nos.close(1); os.close(2)\nwhile True: pass", End.TIMED_OUT),
        ("import os, time\nif os.fork() == 0: time.sleep(99)", End.EXITED),
        ("import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(99)", End.EXITED),
    ],
    ids=[
        *("sleep", "loop", "memory", "flood", "flood of errors", "closes its output and goes on"),
        *("a child holds the pipe", "a grandchild in its own session"),
    ],
)
def test_how_a_run_ends(box: Box, source: str, end: End) -> None:
    start = time.monotonic()
    assert run(box, source).end is end
    assert time.monotonic() - start < SHORT.wall_s + 3  # a busy machine is slow to tidy up, but does
    assert run(box, "print(1)").stdout == b"1\n"


def test_a_signal_is_told_by_its_number(box: Box) -> None:
    assert run(box, "import os; os.kill(os.getpid(), 11)").exit_code == 128 + 11


def test_large_input_that_nobody_reads_holds_nobody_up(box: Box) -> None:
    ran = run(box, "print(1)", b"x" * 5_000_000)
    assert (ran.end, ran.stdout) == (End.EXITED, b"1\n")


def test_all_output_is_kept_up_to_the_limit(box: Box) -> None:
    assert len(run(box, "print('x' * 99_000, end='')").stdout) == 99_000


def test_of_many_errors_the_first_and_the_last_are_kept(box: Box) -> None:
    ran = run(box, "import sys\nprint('first', *range(2000), 'last', file=sys.stderr)")
    assert ran.stderr.startswith(b"first 0 1")
    assert ran.stderr.endswith(b"1999 last\n")
    assert len(ran.stderr) < 5000


@pytest.mark.parametrize("call", ["socket.socket()", "socket.socket(socket.AF_UNIX)"])
def test_there_is_no_network(box: Box, call: str) -> None:
    assert b"PermissionError" in run(box, f"import socket; {call}").stderr


def test_a_program_is_told_nothing_of_us(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    assert b"SECRET" not in run(box, "import os; print(os.environ)").stdout


def test_its_folder_cannot_be_changed_and_is_gone_after(box: Box) -> None:
    ran = run(box, "import os\ntry: open(__file__, 'a')\nexcept OSError as e: print('no')")
    assert ran.stdout == b"no\n"
    with box.folder({"a": b""}) as folder:
        assert folder.exists()
    assert not folder.exists()


def test_threads_wait_for_a_slot_and_none_mixes_up_its_output(box: Box) -> None:
    seen: dict[int, bytes] = {}
    threads = [threading.Thread(target=lambda i=i: seen.update({i: run(box, f"print({i})").stdout})) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {i: f"{i}\n".encode() for i in range(6)}


def test_a_run_alone_has_all_slots(box: Box) -> None:
    with box.folder({}) as folder:
        assert box.run(["/bin/sh", "-c", "echo a"], folder, alone=True).stdout == b"a\n"
    assert box._slots.qsize() == box.n_slots


def test_a_launcher_that_dies_is_replaced_and_its_run_done_again(box: Box) -> None:
    launchers = [slot.launcher for slot in box._slots.queue]

    def kill() -> None:
        for launcher in launchers:
            if launcher._process is not None:
                launcher._process.kill()

    run(box, "")
    kill()
    assert run(box, "print(1)").stdout == b"1\n"
    during = threading.Timer(0.3, kill)
    during.start()
    assert run(box, "import time; time.sleep(0.8); print(1)").stdout == b"1\n"
    during.join()


@pytest.mark.skipif(not find_host().bwrap, reason="without bubblewrap a program may outlive us")
def test_whoever_is_killed_takes_a_program_along() -> None:
    seconds = str(10_000 + os.getpid())  # how we know it again
    source = (
        "import sys\nfrom magistral.verifiers.sandbox import box, limits\nwith box.Box(1) as b, b.folder({}) as folder:\n"
        "    b.run(['/usr/bin/sleep', sys.argv[1]], folder, limits=limits.Limits(wall_s=60))\n"
    )
    ours = subprocess.Popen([sys.executable, "-c", source, seconds], env={**os.environ, "PYTHONPATH": str(PACKAGES)})
    wait_for(lambda: n_running(f"/usr/bin/sleep\0{seconds}\0") > 0 or ours.poll() is not None)
    assert ours.poll() is None
    ours.kill()
    ours.wait()
    wait_for(lambda: n_running(f"/usr/bin/sleep\0{seconds}\0") == 0)


def n_running(command: str) -> int:
    """Processes of this command and no other, so neither ours nor bubblewrap's."""
    return [read(file) for file in Path("/proc").glob("[0-9]*/cmdline")].count(command)


def read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def wait_for(done: Callable[[], bool], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_memory_is_counted_for_the_whole_family() -> None:
    host = weaker(Tier.FULL)
    if host.tier is not Tier.FULL:
        pytest.skip(f"this host cannot: {host.why}")
    source = (
        "import os\nfor _ in range(4):\n    if os.fork() == 0: x = b'1' * (40 << 20); os._exit(0)\nfor _ in range(4): os.wait()"
    )
    with Box(1, host=host) as box:
        ran = run(box, source)
        assert (ran.end, ran.peak_mb) == (End.MEMORY, 64)
        ran = run(box, "x = b'1' * (30 << 20)")
        assert ran.peak_mb is not None
        assert 30 < ran.peak_mb < 50
        assert ran.cpu_s is not None
        assert 0 < ran.cpu_s < 1


def test_less_isolation_than_required_is_refused() -> None:
    with pytest.raises(UserError, match=r"isolation bubblewrap\+cgroups is required, and this host gives"):
        Box(1, require_isolation=True, host=weaker(Tier.UID))


def test_code_is_not_run_with_our_own_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral.verifiers.sandbox.box.find_host", lambda: weaker(Tier.RLIMITS))
    with pytest.raises(UserError, match="Install bubblewrap"):
        Box(1)


def test_two_boxes_never_share_a_user_id() -> None:
    host = weaker(Tier.UID)
    if host.tier is not Tier.UID:
        pytest.skip("only root may change its user")
    with Box(2, host=host) as a, Box(2, host=host) as b:
        taken = [box._slots.get().number for box in (a, a, b, b)]
    assert len(set(taken)) == 4


def test_where_the_kernel_counts_memory_the_program_s_own_word_for_it_is_nothing(box: Box) -> None:
    ran = run(box, "import sys; sys.exit('out of memory')")
    assert ran.end is (End.EXITED if box.host.tier is Tier.FULL else End.MEMORY)


def test_the_folders_of_a_killed_process_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, ours, other = (scratch() / name for name in (f"box-{ended.pid}-a", f"box-{os.getpid()}-a", "stdc++-a"))
    for folder in (left, ours, other):
        (folder / "in").mkdir(parents=True)
    sweep()
    assert [folder.exists() for folder in (left, ours, other)] == [False, True, True]
