"""What all tests share: one thread a process, no network, and each recipe's default run done once."""

import functools
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

import recipes
from recipes.core.result import Result
from recipes.proving import is_due

torch.set_num_threads(1)  # two workers of one thread each beat one of two
os.environ["OMP_NUM_THREADS"] = "1"  # and so do the processes that tests start, which must round as this one does
os.environ["HF_HUB_OFFLINE"] = "1"  # where there is no network, it would try five times
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs behind it with Ctrl-C ignored


RESULTS = Path(__file__).parents[1] / "results"
UNTIL = float(os.environ.get("RECIPES_UNTIL") or "inf")  # seconds since 1970 after which slow tests are left out
OVER = "left out: the time for slow tests is over"


def pytest_configure() -> None:
    wanted = os.environ.get("RECIPES_CLAIMS") or "none"
    if wanted not in ("none", "due", "all"):
        raise pytest.UsageError(f"RECIPES_CLAIMS: expected none, due or all, got {wanted!r}")


@functools.cache
def measures_claims(name: str) -> bool:
    """By `RECIPES_CLAIMS`: `all`, or `due`: of recipes proved by other code, and of each once in two weeks."""
    wanted = os.environ.get("RECIPES_CLAIMS") or "none"
    return wanted == "all" or (wanted == "due" and is_due(name, RESULTS, date.today()))


@functools.cache
def run_default(name: str) -> Result:
    return recipes.run(name, device="cpu", claims=measures_claims(name))


@pytest.fixture(scope="session")
def default_run() -> Callable[[str], Result]:
    """The result of a recipe's default run on the CPU: trained once a process, so do not change it.

    Without its claims, which train variants and take most of the time, unless `RECIPES_CLAIMS` asks for them.
    """
    return run_default


@pytest.fixture(scope="session")
def proved_run(default_run: Callable[[str], Result]) -> Callable[[str], Result]:
    """The same run, for tests of its claims; they are skipped where claims are not measured."""

    def proved(name: str) -> Result:
        if not measures_claims(name):
            pytest.skip("takes minutes; RECIPES_CLAIMS=due or all measures claims")
        return default_run(name)

    return proved


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets reach this machine alone, as torchrun's processes must."""
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if host not in ("127.0.0.1", "::1", "localhost", ""):
            raise OSError(f"a test tried to reach {host}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", only_here)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets, for tests marked `real`."""
    folder = os.environ.get("RECIPES_REAL_DATA")
    if not folder:
        pytest.skip("RECIPES_REAL_DATA names no folder")
    return Path(folder)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > UNTIL and (item.get_closest_marker("slow") or item.get_closest_marker("real")):
        pytest.skip(OVER)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    late = sum(OVER in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if late:
        terminalreporter.write_line(f"{late} tests were {OVER}", yellow=True)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of one recipe run in one worker, which then trains it once; those of claims are slow."""
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")  # type: ignore[attr-defined]
        if name:
            item.add_marker(pytest.mark.xdist_group(name))
        if "proved_run" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    # claims first, then the longest, so that two workers end together
    items.sort(
        key=lambda item: (
            "proved_run" not in getattr(item, "fixturenames", ()),
            not (item.get_closest_marker("slow") and item.get_closest_marker("real")),
        )
    )
