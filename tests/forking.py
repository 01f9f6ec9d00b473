"""Python programs in new processes that have the slow imports behind them, which take most of a short program's time.

A server is started afresh, imports the modules, and forks for every program: nothing that the tests hold is in it.
"""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

SERVER = """
import importlib, json, os, runpy, sys, traceback
for module in sys.argv[1:]:
    importlib.import_module(module)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(job["cwd"])
            file = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.environ.update(job["environment"])
            sys.argv = job["words"]
            runpy.run_path(job["words"][0], run_name="__main__")
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def server(modules: tuple[str, ...]) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-c", SERVER, *modules]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_file(words: list[str], folder: Path, modules: tuple[str, ...], environment: dict[str, str]) -> tuple[int, str]:
    """Runs a Python file in a new process.

    Args:
        words: the file, and what follows it on the command line.
        folder: to run it in.
        modules: that the process has imported already.
        environment: variables that it gets beside those at hand when the first such process was started.

    Returns:
        Its exit status, and what it printed on both streams.
    """
    started = server(modules)
    assert started.stdin is not None
    assert started.stdout is not None
    output = folder / "printed.txt"
    words = [str(folder / words[0]), *words[1:]]  # by its whole path, since processes that it starts look for it
    job = {"words": words, "cwd": str(folder), "output": str(output), "environment": environment}
    started.stdin.write(json.dumps(job) + "\n")
    started.stdin.flush()
    status = int(started.stdout.readline())
    return status, output.read_text("utf-8", errors="replace")
