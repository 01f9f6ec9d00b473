"""`recipes prove`: what it writes."""

import json
from pathlib import Path

from PIL import Image

from recipes.proving import hours, prove


def test_it_writes_the_spread_the_claims_and_the_figure(tmp_path: Path) -> None:
    proof = prove("training.regularization", 2, tmp_path, ["--epochs", "1", "--device", "cpu"])
    written = json.loads((tmp_path / "training.regularization.json").read_text("utf-8"))
    assert written == proof
    assert written["options"] == {"epochs": 1}
    metric = written["metrics"]["accuracy"]
    assert metric["mean"] == sum(metric["values"]) / 2
    assert all(claim["held"] <= 2 for claim in written["claims"])
    with Image.open(tmp_path / "training.regularization.png") as figure:
        left, top, right, bottom = json.loads(figure.info["thumbnail"])
        assert 0 <= left < right <= figure.width
        assert 0 <= top < bottom <= figure.height
        assert right - left < figure.width, "one of two panels"
    assert "about 0.0 hours" in hours(tmp_path, 2)
    assert hours(tmp_path / "empty", 2) == ""
