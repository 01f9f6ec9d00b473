"""What an architecture has learned, opened again and exported."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recipes import using
from recipes.core.result import Result

ARCHITECTURES = ["alexnet", "densenet", "efficientnet", "inception", "lenet", "mobilenet", "vgg", "vit"]


@pytest.mark.parametrize("name", [f"vision.classification.{one}" for one in ARCHITECTURES])  # which is also its group
def test_what_was_trained_is_used_with_the_same_answers(
    name: str, default_run: Callable[[str], Result], tmp_path: Path
) -> None:
    result = default_run(name)
    result.save(tmp_path / "out")
    trained = using.trained(tmp_path / "out", device="cpu")
    answers = trained(result.test_set.pixels(torch.arange(20)).unbind(0))
    with torch.no_grad():
        shares = result.model.eval()(result.test_set.__getitems__(range(20))[0]).softmax(1)
    found = torch.tensor([list(answer["classes"].values()) for answer in answers])
    torch.testing.assert_close(found, shares, atol=1e-5, rtol=0)
    assert trained.export(tmp_path / "model.pt2") < 1e-4
