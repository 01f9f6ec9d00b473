"""The wheel holds all that a checkout does, and works away from it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked, as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder


def test_wheel_holds_code_data_and_the_typing_mark(installed: Path) -> None:
    site = installed / "site"
    for name in (
        "recipes/cli.py",
        "recipes/py.typed",
        "recipes/data/digits",
        "recipes/data/scenes",
        "recipes/data/reviews",
    ):
        assert (site / name).exists(), name
    assert not (site / "tests").exists()


def test_wheel_runs_away_from_the_checkout(installed: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(installed / 'site')!r})\n"
        f"sys.argv = ['recipes', 'run', 'vision.classification', '--epochs', '1', '--json']\n"
        "import recipes; from recipes.cli import main\n"
        f"assert recipes.__file__.startswith({str(installed)!r})\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["metrics"]["accuracy"] > 0.5


def test_every_data_set_has_its_card() -> None:
    text = (ROOT / "data" / "README.md").read_text("utf-8")
    folders = [path for path in (ROOT / "data").iterdir() if path.is_dir() and path.name != "__pycache__"]
    for folder in folders:
        assert f"\n## {folder.name}\n" in text
        assert (ROOT / "data" / f"make_{folder.name}.py").is_file()
    assert sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()) < 8e6
