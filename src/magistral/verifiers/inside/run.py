"""In the box: runs main.py as a program, with the `exit` and `quit` that come with a whole Python."""

import builtins
import sys

builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
sys.argv = [__file__.replace("run.py", "main.py")]
with open(sys.argv[0], "rb") as file:
    program = compile(file.read(), "main.py", "exec")
exec(program, sys.modules["__main__"].__dict__)
