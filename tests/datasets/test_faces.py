"""Folders of people: who is held out, and what is refused."""

from pathlib import Path

import pytest
from PIL import Image

from recipes.core.errors import InputError
from recipes.datasets.faces import open_faces


@pytest.mark.parametrize(("each", "found"), [(1, "none"), (2, "")])
def test_people_of_a_test_part_are_tested_on_or_it_is_refused(each: int, found: str, tmp_path: Path) -> None:
    for part, people, count in (("train", 6, 2), ("test", 3, each)):
        for number in range(people * count):
            path = tmp_path / part / f"{part} {number // count}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 20 * number).save(path)
    if found:
        with pytest.raises(InputError, match=f"2 people with two or more pictures in the test part, found {found}"):
            open_faces(tmp_path)
    else:
        assert [len(part.classes) for part in open_faces(tmp_path)] == [6, 3]
