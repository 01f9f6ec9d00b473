"""Pictures of a pixel or three: every classifier gives a result, or one line that names the least size."""

from pathlib import Path

import pytest
from PIL import Image

import recipes
from recipes.core.errors import InputError

CLASSIFIERS = [name for name in recipes.names() if name.startswith("vision.classification")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for side in (1, 3, 7):
        for name, color in (("a", 40), ("b", 200)):
            (folder / f"{side}" / name).mkdir(parents=True)
            for number in range(8):
                picture = Image.new("RGB", (side, side), (color, number, 9 * number))
                picture.save(folder / f"{side}" / name / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("side", [1, 3, 7])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_result_or_one_line(name: str, side: int, tiny: Path) -> None:
    given = {"data": str(tiny / f"{side}"), "device": "cpu", "epochs": 1, "claims": False}
    known = recipes.catalog.find(name).options or given
    line = ""
    try:
        result = recipes.run(name, **{key: value for key, value in given.items() if key in known})
    except InputError as error:
        line = str(error)
    if line:
        assert "pixels" in line
        assert "\n" not in line
    else:
        assert 0 <= result["accuracy"] <= 1
