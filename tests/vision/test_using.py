"""Pictures as trained networks are given them, and answers beside what they show."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from recipes.core.errors import InputError
from recipes.core.task import Task
from recipes.predicting import draw_answer
from recipes.vision.classification.using import Classification
from recipes.vision.detection.using import Detection
from recipes.vision.segmentation.using import Segmentation
from recipes.vision.using import Picture

CLASSIFICATION = Classification(classes=["a"], shape=[3, 16, 16], mean=[0.0] * 3, std=[1.0] * 3)
DETECTION = Detection(classes=["a"], image_size=16)
PIXELS = torch.randint(256, (3, 40, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("task", [CLASSIFICATION, DETECTION, Segmentation(classes=["a"], image_size=16)])
def test_pictures_are_taken_as_their_files_are(task: Task, tmp_path: Path) -> None:
    image, path = Image.fromarray(PIXELS.permute(1, 2, 0).numpy()), tmp_path / "a.png"
    image.save(path)
    (expected,) = task.batch([task.load(str(path))])
    for same in (path, image, PIXELS, PIXELS.numpy(), PIXELS.float() / 255, PIXELS.double().numpy() / 255):
        assert torch.equal(task.batch([task.load(same)])[0], expected)
    assert task.batch([task.load(PIXELS[0]), task.load(PIXELS[:1])])[0].shape == (2, 3, 16, 16)  # gray ones
    for other in (None, 3, b"a.png", [path], PIXELS.permute(1, 2, 0), PIXELS[None], PIXELS.float()):
        with pytest.raises(InputError, match="in place of a path: expected"):
            task.load(other)


def test_boxes_beside_the_picture_are_left_out() -> None:
    picture = Picture(None, (8, 16), torch.zeros(3, 16, 16, dtype=torch.uint8))  # the square's lower half is empty
    boxes = torch.tensor([[2.0, 9, 6, 15], [2.0, 4, 6, 12]])
    found = {"boxes": boxes, "labels": torch.tensor([0, 0]), "scores": torch.tensor([0.9, 0.8])}
    (answer,) = DETECTION.answers([found], [picture])
    assert answer["boxes"].tolist() == [[2, 4, 6, 8]]
    assert (answer["labels"], len(answer["scores"]), len(answer["objects"])) == (["a"], 1, 1)


def test_every_answer_is_drawn_whatever_its_class_is_called(tmp_path: Path) -> None:
    for number, name in enumerate(("x-3.png", "x.png", "z/x.png")):
        answer = {"file": name, "class": "under_$100_to_$", "probability": 1.0}
        draw_answer(CLASSIFICATION, CLASSIFICATION.load(PIXELS), answer, tmp_path, number)
    assert len(list(tmp_path.iterdir())) == 3
