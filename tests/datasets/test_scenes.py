"""Opening scenes with boxes and masks: the bundled set, each format, and what is refused."""

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from recipes.core.errors import InputError
from recipes.core.loading import batches
from recipes.core.options import Options
from recipes.datasets.bundled import bundled
from recipes.datasets.plain import scenes_coco, scenes_png, scenes_voc
from recipes.datasets.scenes import VOID, Boxes, Masks, open_boxes, open_masks

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
real = pytest.mark.real
REAL = os.environ.get("RECIPES_REAL_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="RECIPES_REAL_DATA is not set")


@pytest.fixture(scope="module")
def maker() -> Any:
    path = Path(__file__).parents[2] / "data" / "make_scenes.py"
    spec = importlib.util.spec_from_file_location("make_scenes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def boxes() -> tuple[Boxes, Boxes]:
    return open_boxes()


@pytest.fixture(scope="module")
def masks() -> tuple[Masks, Masks]:
    return open_masks()


def save_picture(path: Path, size: tuple[int, int] = (20, 20), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def save_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def rectangle(left: int, top: int, right: int, bottom: int, value: int = 1, size: int = 20) -> np.ndarray:
    values = np.zeros((size, size), np.uint8)
    values[top:bottom, left:right] = value
    return values


def coco(folder: Path, split: str = "train", pictures: int = 2, **changes: Any) -> Path:
    """Writes a small COCO set of 20 x 20 pictures, one box each, and gives the JSON's path."""
    for i in range(pictures):
        save_picture(folder / split / f"{i}.png", seed=i)
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 20} for i in range(pictures)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {
                "id": 100 + i,
                "image_id": i,
                "category_id": 7,
                "bbox": [2, 4, 6, 8],
                "iscrowd": 0,
                "segmentation": [[2, 4, 8, 4, 8, 12, 2, 12]],
            }
            for i in range(pictures)
        ],
    }
    content.update({key: value for key, value in changes.items() if key in content})
    content["annotations"][0].update(changes.get("annotation", {}))
    content["images"][0].update(changes.get("image", {}))
    path = folder / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>
<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""
SIZE = "<size><width>20</width><height>20</height><depth>3</depth></size>"


def voc(home: Path, stem: str, objects: str, size: str = SIZE) -> Path:
    save_picture(home / "JPEGImages" / f"{stem}.jpg", seed=len(stem))
    path = home / "Annotations" / f"{stem}.xml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"<annotation>{size}{objects}</annotation>")
    return path


def voc_object(name: str = "cat", box: tuple[int, ...] = (3, 5, 8, 12), difficult: int | str = 0) -> str:
    return OBJECT.format(name=name, box=box, difficult=difficult)


def refused(folder: Any, *texts: str, opener: Any = open_boxes) -> None:
    with pytest.raises(InputError) as caught:
        opener(folder)
    message = str(caught.value)
    assert "\n" not in message
    for text in texts:
        assert text in message


class TestBundled:
    def test_shapes_and_counts(self, boxes: tuple[Boxes, Boxes], masks: tuple[Masks, Masks]) -> None:
        for part, count in zip((*boxes, *masks), (640, 160) * 2, strict=True):
            assert len(part) == len(part.files) == count
            assert part.images.shape == (count, 3, 64, 64)
            assert part.images.dtype == torch.uint8
        assert boxes[0].classes == ["zero", "one", "four", "seven"]
        assert masks[0].classes == ["background", *boxes[0].classes]
        assert masks[0].masks.unique().tolist() == [0, 1, 2, 3, 4]
        assert all(1 <= len(labels) <= 4 for part in boxes for labels in part.labels)
        assert torch.cat(boxes[0].labels).bincount().min() > 300

    def test_batches(self, boxes: tuple[Boxes, Boxes], masks: tuple[Masks, Masks]) -> None:
        images, targets = next(iter(batches(boxes[0], Options(batch_size=8))))
        assert images.shape == (8, 3, 64, 64)
        assert images.dtype == torch.float32
        assert 0.5 < images.max() <= 1
        assert set(targets[0]) == {"boxes", "labels"}
        images, labels = next(iter(batches(masks[0], Options(batch_size=8))))
        assert labels.shape == (8, 64, 64)
        assert labels.dtype == torch.int64
        image, target = boxes[0][3]
        assert torch.equal(image, boxes[0].images[3] / 255)
        assert torch.equal(target["boxes"], boxes[0].boxes[3])
        assert torch.equal(masks[0][3][1], masks[0].masks[3].long())

    def test_boxes_are_tight(self, boxes: tuple[Boxes, Boxes], masks: tuple[Masks, Masks]) -> None:
        reference = COCO(bundled("scenes") / "annotations" / "instances_test.json")
        for annotation in reference.anns.values():
            shape = reference.annToMask(annotation)
            rows, columns = shape.any(1).nonzero()[0], shape.any(0).nonzero()[0]
            box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert box in boxes[1].boxes[annotation["image_id"] - 1].int().tolist()
            assert shape.sum() == annotation["area"]
            mask = masks[1].masks[annotation["image_id"] - 1].numpy()
            assert (mask[shape > 0] == annotation["category_id"]).all()

    def test_no_source_in_both_parts(self, maker: Any) -> None:
        sources = {}
        for split in ("train", "test"):
            path = bundled("scenes") / "annotations" / f"instances_{split}.json"
            sources[split] = {record["source"] for record in json.loads(path.read_text())["annotations"]}
            assert sources[split] <= set(maker.SOURCES[split])
        assert not sources["train"] & sources["test"]
        assert not set(maker.SOURCES["train"]) & set(maker.SOURCES["test"])

    def test_maker_gives_the_same_scenes(self, maker: Any, tmp_path: Path) -> None:
        maker.make(tmp_path, {"train": 6, "test": 3})
        for split in ("train", "test"):
            for path in sorted((tmp_path / split).iterdir()):
                ours = np.asarray(Image.open(bundled("scenes") / split / path.name).convert("RGB"))
                assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), ours)
            name = f"annotations/instances_{split}.json"
            lines = {line.rstrip(",") for line in (bundled("scenes") / name).read_text().splitlines()}
            assert {line.rstrip(",") for line in (tmp_path / name).read_text().splitlines()} <= lines

    def test_overlap_is_small(self, boxes: tuple[Boxes, Boxes], maker: Any) -> None:
        for part in boxes:
            for found in part.boxes:
                corners = [(l, t, r - l, b - t) for l, t, r, b in found.tolist()]
                for i, one in enumerate(corners):
                    # a digit in front can hide the edge of another, which makes that one's box smaller
                    assert all(maker.overlap(one, two) <= 0.3 for two in corners[:i])

    def test_colour_does_not_tell_the_class(self, masks: tuple[Masks, Masks]) -> None:
        pictures = masks[0].images.float().permute(0, 2, 3, 1)
        means = torch.stack([pictures[masks[0].masks == label].mean(0) for label in range(1, 5)])
        assert (means - means.mean(0)).abs().max() < 20


class TestFormats:
    def test_coco_polygons_and_run_lengths(self, tmp_path: Path) -> None:
        shape = rectangle(2, 4, 8, 12)
        packed = rle.encode(np.asfortranarray(shape))
        runs = np.diff(np.flatnonzero(np.diff(shape.T.ravel(), prepend=1 - shape[0, 0], append=2)))
        for name, outline in (
            ("polygon", [[2, 4, 8, 4, 8, 12, 2, 12]]),
            ("packed", {"size": [20, 20], "counts": packed["counts"].decode()}),
            ("plain", {"size": [20, 20], "counts": runs.tolist()}),
        ):
            folder = tmp_path / name
            coco(folder, "train2017", annotation={"segmentation": outline})
            coco(folder, "val2017")
            train, test = open_masks(folder)
            assert train.files == ["train2017/0.png", "train2017/1.png"]
            assert torch.equal(train.masks[0], torch.from_numpy(shape) * 2)  # cat is the second by its id
            assert len(test) == 2
            train_boxes, _ = open_boxes(folder)
            assert train_boxes.classes == ["dog", "cat"]
            assert train_boxes.boxes[0].tolist() == [[2, 4, 8, 12]]
            assert train_boxes.labels[0].tolist() == [1]

    def test_coco_one_file_with_pictures_beside(self, tmp_path: Path) -> None:
        path = coco(tmp_path, pictures=10)
        for picture in (tmp_path / "train").iterdir():
            picture.rename(tmp_path / picture.name)
        path.rename(tmp_path / "labels.json")
        train, test = open_boxes(tmp_path)
        assert (len(train), len(test)) == (8, 2)
        assert not set(train.files) & set(test.files)
        assert open_boxes(tmp_path)[1].files == test.files
        assert any(open_boxes(tmp_path, seed=seed)[1].files != test.files for seed in range(1, 4))

    def test_coco_crowd_and_empty_pictures(self, tmp_path: Path) -> None:
        path = coco(tmp_path, annotation={"iscrowd": 1})
        coco(tmp_path, "test")
        train, _ = open_boxes(tmp_path)
        assert train.boxes[0].shape == (0, 4)
        assert train.labels[0].shape == (0,)
        crowd = rectangle(2, 4, 8, 12, VOID)
        assert torch.equal(open_masks(tmp_path)[0].masks[0], torch.from_numpy(crowd))
        content = json.loads(path.read_text())
        large = {"iscrowd": 0, "segmentation": [[0, 8, 20, 8, 20, 20, 0, 20]]}
        content["annotations"].append(content["annotations"][0] | large)
        content["annotations"][0]["bbox"] = None
        path.write_text(json.dumps(content))
        crowd[8:] = 2
        assert torch.equal(open_masks(tmp_path)[0].masks[0], torch.from_numpy(crowd)), "void lies below larger objects"

    def test_coco_folders_with_their_own_json(self, tmp_path: Path) -> None:
        for split in ("train", "valid"):
            path = coco(tmp_path, split)
            path.rename(tmp_path / split / "_annotations.coco.json")
        train, test = open_boxes(tmp_path)
        assert train.files[0] == "train/0.png"
        assert test.files[0] == "valid/0.png"

    def test_pictures_are_warped_with_their_boxes(self, tmp_path: Path) -> None:
        path = coco(tmp_path)
        coco(tmp_path, "test")
        content = json.loads(path.read_text())
        content["images"][0].update(width=40, height=10)
        content["annotations"][0].update(bbox=[10, 5, 20, 5], segmentation=[[10, 5, 30, 5, 30, 10, 10, 10]])
        path.write_text(json.dumps(content))
        save_picture(tmp_path / "train" / "0.png", (40, 10))
        train, test = open_boxes(tmp_path, image_size=80, letterbox=False)
        assert train.images.shape == test.images.shape == (2, 3, 80, 80)
        assert train.boxes[0].tolist() == [[20, 40, 60, 80]]
        assert open_boxes(tmp_path, image_size=80)[0].boxes[0].tolist() == [[20, 10, 60, 20]], "in proportion"
        assert torch.equal(open_masks(tmp_path, image_size=80)[0].masks[0].nonzero()[0], torch.tensor([40, 20]))
        assert open_boxes(tmp_path)[0].images.shape[-1] == 128  # sizes differ

    def test_voc(self, tmp_path: Path) -> None:
        home = tmp_path / "VOCdevkit" / "VOC2007"
        hard = voc_object("bat", difficult=1) + voc_object("bat", difficult="True")
        voc(home, "a", voc_object() + voc_object("dog", (1, 1, 20, 20)) + hard)
        voc(home, "bb", voc_object("dog", (4, 4, 4, 4)))
        lists = home / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\n")
        (lists / "val.txt").write_text("bb 1\n")
        (lists / "trainval.txt").write_text("a\nbb\n")
        for folder in (tmp_path, home):
            train, test = open_boxes(folder)
            assert train.classes == test.classes == ["cat", "dog"]
            assert train.boxes[0].tolist() == [[2, 4, 8, 12], [0, 0, 20, 20]]
            assert train.labels[0].tolist() == [0, 1]
            assert test.boxes[0].tolist() == [[3, 3, 4, 4]]  # one pixel
        refused(tmp_path, "boxes only", opener=open_masks)
        save_mask(home / "SegmentationClass" / "a.png", rectangle(2, 4, 8, 12, 2) + rectangle(0, 0, 1, 20, VOID))
        save_mask(home / "SegmentationClass" / "bb.png", rectangle(3, 3, 4, 4, 1))
        masks, _ = open_masks(tmp_path)
        assert masks.classes == ["background", "class 1", "class 2"]
        assert masks.masks.unique().tolist() == [0, 2, VOID]

    def test_voc_without_lists(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for stem in ("a", "bb", "ccc", "dddd", "eeeee"):
            voc(tmp_path, stem, voc_object())
        save_picture(tmp_path / "JPEGImages" / "not annotated.jpg")
        train, test = open_boxes(tmp_path)
        assert (len(train), len(test)) == (4, 1)
        assert capsys.readouterr().err == f"{tmp_path}: 1 pictures without a file in Annotations left out\n"

    def test_numbered_objects(self, tmp_path: Path) -> None:
        for i in range(5):
            save_picture(tmp_path / "PNGImages" / f"p{i}.png", seed=i)
            values = rectangle(2, 4, 8, 12, 1) + rectangle(10, 0, 20, 3, 2)
            save_mask(tmp_path / "PedMasks" / f"p{i}_mask.png", values)
        train, test = open_boxes(tmp_path)
        assert (len(train), len(test), train.classes) == (4, 1, ["object"])
        assert train.boxes[0].tolist() == [[2, 4, 8, 12], [10, 0, 20, 3]]
        masks, _ = open_masks(tmp_path)
        assert masks.classes == ["background", "object"]
        assert masks.masks[0].sum() == 48 + 30

    def test_class_values(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            save_picture(tmp_path / split / "a.png")
            values = rectangle(0, 0, 20, 20, 1) + rectangle(2, 2, 4, 4, 1)
            save_mask(tmp_path / f"{split}annot" / "a.png", values)
        train, _ = open_masks(tmp_path)
        assert train.classes == ["class 0", "class 1", "class 2"]
        assert train.masks.unique().tolist() == [1, 2]
        (tmp_path / "classes.txt").write_text("void\nroad\ncar\n")
        train, _ = open_masks(tmp_path)
        assert train.classes == ["road", "car"]
        assert train.masks.unique().tolist() == [0, 1]
        (tmp_path / "classes.txt").write_text("sky\nroad\n")
        refused(tmp_path, "a.png", "value 2", opener=open_masks)
        refused(tmp_path, str(tmp_path), "boxes cannot be derived")
        (tmp_path / "classes.txt").write_text("sky\n\nroad\ncar\n")
        refused(tmp_path, "classes.txt, line 2: expected a name", opener=open_masks)

    def test_camvid_void(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            save_picture(tmp_path / split / "a.png")
            save_mask(tmp_path / f"{split}annot" / "a.png", rectangle(5, 5, 9, 9, 11))
        train, _ = open_masks(tmp_path)
        assert len(train.classes) == 11
        assert train.masks.unique().tolist() == [0, VOID]

    def test_images_and_masks_within_splits(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            save_picture(tmp_path / split / "images" / "a.jpg")
            save_mask(tmp_path / split / "masks" / "a.png", rectangle(5, 5, 9, 9))
        train, test = open_masks(tmp_path)
        assert train.files == ["train/images/a.jpg"]
        assert test.files == ["val/images/a.jpg"]
        for split in ("train", "val"):
            save_mask(tmp_path / split / "masks" / "a.png", np.full((20, 20), 255))
        refused(tmp_path, str(tmp_path), "255", opener=open_masks)


class TestAsPeopleHaveThem:
    """What pycocotools and torchvision take, or leave out, without a word."""

    def told(self, capsys: pytest.CaptureFixture[str]) -> str:
        (line,) = capsys.readouterr().err.splitlines()
        return line

    def test_coco_boxes_without_area_or_past_the_picture(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = coco(tmp_path)
        coco(tmp_path, "test")
        content = json.loads(path.read_text())
        boxes = [[8, 4, 6, 0], [8, 4, -3, 8], [30, 4, 6, 8], [18, 4, 6, 8], [-0.6, 4, 21.5, 8]]
        content["annotations"] += [content["annotations"][0] | {"id": i, "bbox": box} for i, box in enumerate(boxes)]
        path.write_text(json.dumps(content))
        train, _ = open_boxes(tmp_path)
        assert train.boxes[0].tolist() == [[2, 4, 8, 12], [18, 4, 20, 12], [0, 4, 20, 12]]
        expected = "2 boxes without area left out, 1 boxes outside their picture left out, 1 boxes clipped"
        assert self.told(capsys).startswith(f"{tmp_path}: {expected}")

    def test_coco_orphans(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = coco(tmp_path)
        coco(tmp_path, "test")
        content = json.loads(path.read_text())
        for change in ({"image_id": 5}, {"image_id": "5"}, {"category_id": 99}):
            content["annotations"].append(content["annotations"][0] | change)
        path.write_text(json.dumps(content))
        assert len(open_boxes(tmp_path)[0].labels[0]) == 1
        expected = "2 annotations of pictures that are not listed left out, 1 annotations of categories that are not"
        assert self.told(capsys).startswith(f"{tmp_path}: {expected}")

    @pytest.mark.parametrize(
        "change",
        [
            {"width": 20.0, "height": "20"},
            {"width": None},
            {"height": 0},
            {"file_name": "sub\\whole.png"},
            {"file_name": "sub/whole.PNG"},
            {"id": 0.0},
            {"id": "0"},
        ],
    )
    def test_coco_spellings(self, tmp_path: Path, change: dict[str, Any]) -> None:
        coco(tmp_path, image=change)
        coco(tmp_path, "test")
        save_picture(tmp_path / "train" / "sub" / "whole.png")
        assert open_boxes(tmp_path)[0].boxes[0].tolist() == [[2, 4, 8, 12]]

    @pytest.mark.parametrize("folder", ["images", "images/default"])
    def test_coco_of_cvat(self, tmp_path: Path, folder: str) -> None:
        path = coco(tmp_path, pictures=5)
        path.rename(path.with_name("instances_default.json"))
        (tmp_path / folder).mkdir(parents=True)
        for picture in (tmp_path / "train").iterdir():
            picture.rename(tmp_path / folder / picture.name)
        train, _ = open_boxes(tmp_path)
        assert sorted(train.files)[0].startswith(f"{folder}/")

    def test_coco_ids_that_are_names(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            path = coco(tmp_path, split, image={"id": "first"}, annotation={"image_id": "first", "category_id": "7"})
            content = json.loads(path.read_text())
            del content["images"][1]["width"]
            path.write_text(json.dumps(content))
        train, _ = open_boxes(tmp_path)
        assert train.classes == ["dog", "cat"]
        assert train.labels[0].tolist() == [1]

    def test_coco_outlines(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        square = [2, 4, 8, 4, 8, 12, 2, 12]
        for name, outline, count in (
            ("line", [[1, 2, 3, 4], square], 48),
            ("line alone", [[1, 2, 3, 4]], 0),
            ("nothing", None, 0),
            ("empty", [], 0),
            ("past", [[10, 0, 900, 0, 900, 900, 10, 900]], 200),
            ("far", [[10, 0, 1e9, 0, 1e9, 1e9, 10, 1e9]], 200),
        ):
            coco(tmp_path / name, annotation={"segmentation": outline})
            coco(tmp_path / name, "test")
            assert (open_masks(tmp_path / name)[0].masks[0] > 0).sum() == count, name
            assert len(open_boxes(tmp_path / name)[0].boxes[0]) == 1
        lines = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]
        assert lines == [
            "1 polygons of fewer than three points left out",
            "1 polygons of fewer than three points left out, 1 objects without an outline left out",
            *["1 objects without an outline left out"] * 2,
        ]
        for split in ("train", "test"):
            path = coco(tmp_path / "boxes alone", split, 1, annotation={"segmentation": None})
        assert path.exists()
        refused(tmp_path / "boxes alone", "no object has an outline", opener=open_masks)

    def test_coco_parts_in_any_case(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for split in ("Training", "Evaluation", "TEST"):
            path = coco(tmp_path, split)
            path.rename(tmp_path / split / "_annotations.coco.json")
            (tmp_path / split / "._annotations.coco.json").write_bytes(b"left by a Mac")
        assert [part.files[0] for part in open_boxes(tmp_path)] == ["Training/0.png", "TEST/0.png"]
        assert self.told(capsys) == f"{tmp_path}: the val part is left out, since there is a test part"

    def test_a_part_without_an_object(self, tmp_path: Path) -> None:
        coco(tmp_path)
        coco(tmp_path, "test", annotations=[{"image_id": 0, "category_id": 7, "iscrowd": 1}])
        for opener in (open_boxes, open_masks):
            refused(tmp_path, str(tmp_path), "no object is left in the test part", opener=opener)

    @pytest.mark.parametrize("orientation", [3, 6])
    def test_phone_photos_with_boxes(self, tmp_path: Path, orientation: int) -> None:
        """Stored turned; annotated as they are seen, red in the box."""
        turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        for i, stem in enumerate(("a", "bb", "ccc", "dddd", "eeeee")):
            voc(tmp_path / "voc", stem, voc_object(), SIZE.replace("<height>20", "<height>30"))
            picture = Image.new("RGB", (20, 30))
            picture.paste((255, 0, 0), (2, 4, 8, 12))
            picture.transpose(turn).save(tmp_path / "voc" / "JPEGImages" / f"{stem}.jpg", exif=exif, quality=95)
            coco(tmp_path / "coco", pictures=5, image={"height": 30})
            for j in range(5):
                path = tmp_path / "coco" / "train" / f"{j}.png"
                picture.transpose(turn).save(path, exif=exif)
            assert i < 5
        content = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())
        for image in content["images"]:
            image["height"] = 30
        (tmp_path / "coco" / "annotations" / "instances_train.json").write_text(json.dumps(content))
        for data in (tmp_path / "voc", tmp_path / "coco"):
            train, _ = open_boxes(data, image_size=60, letterbox=False)
            left, top, right, bottom = train.boxes[0][0].int().tolist()
            assert train.boxes[0].tolist() == [[6, 8, 24, 24]]
            red = train.images[0, 0].float()
            assert red[top + 2 : bottom - 2, left + 2 : right - 2].mean() > 200
            red[top - 2 : bottom + 2, left - 3 : right + 3] = 0
            assert red.mean() < 5
        masks, _ = open_masks(tmp_path / "coco", image_size=60)
        assert masks.images[0, 0][masks.masks[0] > 0].float().mean() > 200

    def test_voc(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for stem, content, size in (
            ("my photo 1", voc_object(), ""),
            ("photo", voc_object("dog"), SIZE.replace("20", "0")),
            ("a.b", voc_object() + voc_object(box=(9, 5, 3, 12)), SIZE.replace("20", "20.0")),
            ("nothing", "", SIZE),
            ("past", voc_object(box=(9, 5, 30, 12)), SIZE),
        ):
            voc(tmp_path, stem, content, size)
            (tmp_path / "JPEGImages" / f"{stem}.jpg").rename(tmp_path / "JPEGImages" / f"{stem}.JPG")
        (tmp_path / "Annotations" / "._past.xml").write_bytes(b"left by a Mac")
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Main" / "Training.txt").write_text("my photo 1\nphoto -1\r\na.b  1\n")
        (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("nothing\npast.JPG\n")
        train, test = open_boxes(tmp_path)
        assert train.files == [f"JPEGImages/{stem}.JPG" for stem in ("my photo 1", "photo", "a.b")]
        assert [len(boxes) for boxes in train.boxes + test.boxes] == [1, 1, 1, 0, 1]
        assert test.boxes[1].tolist() == [[8, 4, 20, 12]]
        assert "1 boxes without area left out, 1 boxes clipped to their picture" in self.told(capsys)
        (tmp_path / "ImageSets" / "Main" / "val.txt").write_bytes("é".encode("latin-1"))
        refused(tmp_path, "val.txt, line 1: expected UTF-8")

    @pytest.mark.parametrize("names", ["", "sky\nroad\n"])
    def test_black_and_white_masks(self, tmp_path: Path, names: str, capsys: pytest.CaptureFixture[str]) -> None:
        for i, suffix in enumerate(("png", "PNG", "gif", "bmp", "tif")):
            save_picture(tmp_path / "images" / f"{i}.jpg", seed=i)
            save_mask(tmp_path / "masks" / f"{i}.{suffix}", rectangle(2, 4, 8, 12, 255))
        (tmp_path / "images" / "Thumbs.db").write_bytes(b"x")
        if names:
            (tmp_path / "classes.txt").write_text(names)
        train, test = open_masks(tmp_path)
        assert train.classes == (names.split() or ["class 0", "class 1"])
        for mask in (*train.masks, *test.masks):
            assert torch.equal(mask, torch.from_numpy(rectangle(2, 4, 8, 12)))
        assert self.told(capsys).startswith(f"{tmp_path}: its masks have the values 0 and 255 alone")

    def test_masks_saved_in_color_and_in_one_bit(self, tmp_path: Path) -> None:
        for i, mode in enumerate(("RGB", "RGBA", "LA", "1", "L")):
            save_picture(tmp_path / "images" / f"{i}.png", seed=i)
            (tmp_path / "masks").mkdir(exist_ok=True)
            mask = Image.fromarray(rectangle(2, 4, 8, 12, 255 if mode == "1" else 1))
            mask.convert(mode).save(tmp_path / "masks" / f"{i}.png")
        train, test = open_masks(tmp_path)
        for found in (*train.masks, *test.masks):
            assert torch.equal(found, torch.from_numpy(rectangle(2, 4, 8, 12)))

    def test_a_list_that_cannot_be_read_is_not_taken_as_absent(self, tmp_path: Path) -> None:
        for i in range(3):
            save_picture(tmp_path / "images" / f"{i}.png", seed=i)
            save_mask(tmp_path / "masks" / f"{i}.png", rectangle(1, 1, 5, 5))
        (tmp_path / "classes.txt").mkdir()
        refused(tmp_path, "classes.txt: it is a folder", opener=open_masks)
        (tmp_path / "classes.txt").rmdir()
        (tmp_path / "classes.txt").write_bytes("Straße\nHäuser".encode("latin-1"))
        refused(tmp_path, "classes.txt, line 1: expected UTF-8", opener=open_masks)

    def test_postscript_is_never_run(self, tmp_path: Path) -> None:
        coco(tmp_path)
        coco(tmp_path, "test")
        Image.new("RGB", (20, 20)).save(tmp_path / "train" / "0.eps")
        (tmp_path / "train" / "0.eps").rename(tmp_path / "train" / "0.png")
        refused(tmp_path, "train/0.png: expected a whole picture", "none of JPEG")

    @pytest.mark.parametrize("side", [1, 3])
    def test_small_pictures(self, tmp_path: Path, side: int) -> None:
        square = {"bbox": [0, 0, 1, 1], "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]]}
        for split in ("train", "test"):
            coco(tmp_path, split, 1, annotation=square, image={"width": side, "height": side})
            save_picture(tmp_path / split / "0.png", (side, side))
        with pytest.raises(InputError, match=f"of {side} pixels a side, expected at least 8 to find objects in"):
            open_boxes(tmp_path)
        boxes, _ = open_boxes(tmp_path, image_size=8)
        assert boxes.boxes[0][0].tolist() == pytest.approx([0, 0, 8 / side, 8 / side])
        masks, _ = open_masks(tmp_path)
        assert masks.masks.shape == (1, side, side)
        assert masks.masks[0, 0, 0] == 2


class TestRefused:
    def test_folders(self, tmp_path: Path) -> None:
        refused(tmp_path / "missing", "missing")
        refused(tmp_path, str(tmp_path), "found no scenes")
        (tmp_path / "PNGImages").mkdir()
        (tmp_path / "PedMasks").mkdir()
        refused(tmp_path, str(tmp_path), "no picture")

    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_damaged_pictures(self, tmp_path: Path, suffix: str) -> None:
        coco(tmp_path, image={"file_name": f"whole.{suffix}"})
        coco(tmp_path, "test")
        picture = tmp_path / "train" / f"whole.{suffix}"
        save_picture(picture)
        content = picture.read_bytes()
        open_boxes(tmp_path)
        for length in (0, 10, len(content) // 2, len(content) - 30):
            picture.write_bytes(content[:length])
            refused(tmp_path, f"whole.{suffix}")
        if suffix == "png":
            picture.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
            refused(tmp_path, "whole.png")
        picture.write_text("not a picture")
        refused(tmp_path, f"whole.{suffix}")

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"image": {"file_name": "none.png"}}, "none.png"),
            ({"image": {"file_name": "../train/0.png"}}, "leaves the folder"),
            ({"image": {"file_name": "/etc/hosts"}}, "leaves the folder"),
            ({"image": {"file_name": "C:\\0.png"}}, "leaves the folder"),
            ({"image": {"file_name": 3}}, "file_name"),
            ({"image": {"width": 30}}, "0.png"),
            ({"image": {"id": 1}}, "twice"),
            ({"image": {"file_name": "1.png"}}, "1.png: is listed twice"),
            ({"categories": [{"id": 7, "name": "cat"}, {"id": 7, "name": "dog"}]}, "7 of 'dog' is given twice"),
            ({"annotation": {"bbox": [1, 2, 3]}}, "annotation 100"),
            ({"annotation": {"bbox": [1, 2, 3, "4"]}}, "annotation 100"),
            ({"annotation": {"bbox": [1, 2, 3, 1e39]}}, "annotation 100"),
            ({"annotation": {"bbox": [1, 2, 3, 10**400]}}, "annotation 100"),
            ({"annotation": {"image_id": 0.5}}, "image_id"),
            ({"annotation": {"category_id": None}}, "category_id"),
            ({"annotation": {"bbox": [1, 2, 3, float("nan")]}}, "annotation 100"),
            ({"annotation": {"bbox": None}}, "annotation 100"),
            ({"categories": 4}, "categories"),
            ({"categories": [{"id": 7}]}, "category 0"),
            ({"images": [{}]}, "image 0"),
            ({"annotations": [{}]}, "annotation 0"),
        ],
    )
    def test_coco_records(self, tmp_path: Path, change: dict[str, Any], text: str) -> None:
        coco(tmp_path, **change)
        coco(tmp_path, "test")
        file = "0.png" if "width" in change.get("image", {}) else "instances_train.json"
        refused(tmp_path, file, text)

    @pytest.mark.parametrize(
        "outline",
        [
            [[1, 2, 3, 4, 5, 6, 7]],
            [["a"]],
            "text",
            {"size": [20, 20]},
            {"size": [10, 20], "counts": [200]},
            {"size": [20, 20], "counts": [200]},
            {"size": [20, 20], "counts": [500, -100]},
            {"size": [20, 20], "counts": "00000"},
            {"size": [20, 20], "counts": "~~~~~~~~~~~"},
        ],
    )
    def test_coco_outlines(self, tmp_path: Path, outline: Any) -> None:
        coco(tmp_path, annotation={"segmentation": outline})
        coco(tmp_path, "test")
        refused(tmp_path, "instances_train.json", "annotation 100", opener=open_masks)

    def test_coco_json(self, tmp_path: Path) -> None:
        path = coco(tmp_path)
        coco(tmp_path, "test")
        text = path.read_text()
        for broken in (text[:-5], "[]", "3", ""):
            path.write_text(broken)
            refused(tmp_path, "instances_train.json")
        path.write_text(text.replace("dog", "cow"))
        refused(tmp_path, "categories differ")

    def test_rounding_is_clipped(self, tmp_path: Path) -> None:
        coco(tmp_path, annotation={"bbox": [-0.6, 4, 21.5, 8]})
        coco(tmp_path, "test")
        assert open_boxes(tmp_path)[0].boxes[0].tolist() == [[0, 4, 20, 12]]

    def test_one_picture_cannot_be_split(self, tmp_path: Path) -> None:
        coco(tmp_path, pictures=1)
        refused(tmp_path, str(tmp_path), "test part")

    def test_voc_records(self, tmp_path: Path) -> None:
        for content, size, text in (
            (voc_object(name=""), SIZE, "object 1"),
            ("<object><name>cat</name></object>", SIZE, "object 1"),
            ("<object>", SIZE, "XML"),
        ):
            for stem in ("a", "bb"):
                voc(tmp_path, stem, voc_object())
            voc(tmp_path, "bb", content, size)
            refused(tmp_path, "bb.xml", text)
        voc(tmp_path, "bb", voc_object())
        (tmp_path / "JPEGImages" / "bb.jpg").unlink()
        refused(tmp_path, "bb.jpg", "missing")
        (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("../a\n")
        refused(tmp_path, "train.txt", "leaves the folder")
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
        (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("a\n")
        refused(tmp_path, "a.jpg: is listed twice", "expected once, in one part")

    def test_masks(self, tmp_path: Path) -> None:
        for i in range(3):
            save_picture(tmp_path / "images" / f"{i}.png", seed=i)
            save_mask(tmp_path / "masks" / f"{i}.png", rectangle(1, 1, 5, 5))
        mask = tmp_path / "masks" / "1.png"
        save_mask(mask, rectangle(1, 1, 5, 5, size=30))
        refused(tmp_path, "masks/1.png", "30 x 30", opener=open_masks)
        save_picture(mask)
        refused(tmp_path, "masks/1.png", "one value a pixel", opener=open_masks)
        mask.write_bytes((tmp_path / "masks" / "0.png").read_bytes()[:60])
        refused(tmp_path, "masks/1.png", opener=open_masks)
        mask.unlink()
        refused(tmp_path, "images/1.png", "mask is missing", opener=open_masks)
        shutil.rmtree(tmp_path / "images")
        refused(tmp_path, "found no scenes", opener=open_masks)


class Yours(torch.utils.data.Dataset[Any]):
    """A Dataset of the samples it is given."""

    def __init__(self, *samples: Any, classes: list[str] | None = None) -> None:
        self.samples = samples
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def target(*labels: int, box: tuple[float, ...] = (2, 4, 8, 12)) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor([box] * len(labels)).float().view(-1, 4), "labels": torch.tensor(labels).long()}


class TestYourDatasets:
    def test_boxes_as_torchvision_takes_them(self) -> None:
        picture = Image.new("RGB", (40, 20), "red")
        train = Yours((picture, target(1, 3)), (picture, target()))
        test = Yours((torch.zeros(3, 20, 40), {"boxes": [[2, 4, 8, 12]], "labels": [2]}))
        first, second = open_boxes((train, test), image_size=80, letterbox=False)
        assert first.classes == ["class 1", "class 2", "class 3"]
        assert [labels.tolist() for labels in first.labels] == [[0, 2], []]
        assert first.boxes[0].tolist() == [[4, 16, 16, 48]] * 2
        assert first.boxes[1].shape == (0, 4)
        assert first.images.shape == (2, 3, 80, 80)
        assert first.images[0, :, 5, 5].tolist() == [255, 0, 0]
        assert second.labels[0].tolist() == [1]
        assert open_boxes((first, second)) == (first, second), "what was opened before"
        first.ignored = [target(1), target()]
        half, _ = open_boxes((first, second), image_size=40)
        assert half.images.shape == (2, 3, 40, 40)
        assert (half.boxes[0][0].tolist(), half.ignored[0]["boxes"].tolist()) == ([2, 8, 8, 24], [[1, 2, 4, 6]])

    @pytest.mark.parametrize(
        ("labels", "classes", "expected", "numbers"),
        [
            ((1, 2), ["cat", "dog"], ["cat", "dog"], [0, 1]),
            ((0, 1), ["cat", "dog"], ["cat", "dog"], [0, 1]),
            ((1, 2), ["__background__", "cat", "dog"], ["cat", "dog"], [0, 1]),
            ((0, 1), None, ["class 0", "class 1"], [0, 1]),
        ],
    )
    def test_how_classes_are_named(self, labels: Any, classes: Any, expected: list[str], numbers: list[int]) -> None:
        part = Yours((torch.zeros(3, 20, 20), target(*labels)), classes=classes)
        train, _ = open_boxes((part, part))
        assert train.classes == expected
        assert train.labels[0].tolist() == numbers
        assert train.image_size == 20, "small square pictures keep their size"

    def test_masks(self) -> None:
        mask = torch.from_numpy(rectangle(2, 2, 9, 9, 2)).long()
        mask[0] = VOID
        pictures = Image.new("L", (20, 20)), torch.zeros(3, 20, 20, dtype=torch.uint8)
        train = Yours((pictures[0], mask), (pictures[1], Image.fromarray(mask.numpy().astype(np.uint8))))
        first, second = open_masks((train, train))
        assert first.classes == ["background", "class 1", "class 2"]
        assert torch.equal(first.masks[0].long(), mask)
        assert torch.equal(first.masks[1], first.masks[0])
        twice, _ = open_masks((first, second), image_size=40)
        assert twice.images.shape == (2, 3, 40, 40)
        assert torch.equal(twice.masks[0], first.masks[0].repeat_interleave(2, 0).repeat_interleave(2, 1))
        named = Yours(*train.samples, classes=["sky", "void", "road"])
        first, second = open_masks((named, named))
        assert first.classes == ["sky", "road"]
        assert second.masks.unique().tolist() == [0, 1, VOID]

    @pytest.mark.parametrize(
        ("sample", "text"),
        [
            (torch.zeros(3, 20, 20), "train sample 1: expected (image, "),
            ((torch.zeros(3, 20, 20), torch.zeros(20, 20)), "dict with 'boxes' and 'labels', got a Tensor"),
            ((torch.zeros(3, 20, 20), {"boxes": []}), "got a dict with 'boxes'"),
            ((torch.zeros(3, 20, 20), {"boxes": [[1, 2, 3, 4]], "labels": [1, 1]}), "shapes (1, 4) and (2,)"),
            ((torch.zeros(3, 20, 20), {"boxes": [[1, 2, 3, 4]], "labels": [1.5]}), "whole numbers"),
            ((torch.zeros(3, 20, 20), {"boxes": "text", "labels": [1]}), "as tensors"),
            ((torch.zeros(3, 20, 20), target(1, box=(8, 4, 2, 12))), "sample 1: box 0: the box from (8, 4)"),
            ((torch.zeros(3, 20, 20), target(1, box=(0, 0, 30, 9))), "leaves the picture"),
            ((torch.zeros(3, 20, 20), target(9)), "labels from 1 to 2, got 9"),
            ((torch.zeros(5, 20, 20), target(1)), "expected a PIL picture"),
        ],
    )
    def test_refused_boxes(self, sample: Any, text: str) -> None:
        part = Yours((torch.zeros(3, 20, 20), target(1)), sample, classes=["cat", "dog"])
        refused((part, part), "data: train sample 1", text)

    @pytest.mark.parametrize(
        ("mask", "text"),
        [
            (torch.zeros(10, 20), "whole numbers"),
            (torch.zeros(10, 20).long(), "20 x 10 pixels, expected 20 x 20"),
            (torch.full((20, 20), 256), "from 0 to 255"),
            (Image.new("RGB", (20, 20)), "a mask (height, width)"),
        ],
    )
    def test_refused_masks(self, mask: Any, text: str) -> None:
        part = Yours((torch.zeros(3, 20, 20), mask))
        refused((part, part), "data: train sample 0", text, opener=open_masks)

    def test_boxes_as_shares_of_the_picture(self) -> None:
        part = Yours(*[(torch.zeros(3, 20, 20), target(1, box=(0.1, 0.2, 0.5, 1)))] * 2)
        refused((part, part), "data: expected boxes in pixels, but all of them lie within 0 to 1")
        one_small = Yours(part.samples[0], (torch.zeros(3, 20, 20), target(1)))
        open_boxes((one_small, one_small))

    def test_boxes_of_torchvision_in_another_form(self) -> None:
        from torchvision import tv_tensors

        boxes = tv_tensors.BoundingBoxes(torch.tensor([[2, 4, 8, 12]]), format="XYWH", canvas_size=(20, 20))
        part = Yours((torch.zeros(3, 20, 20), {"boxes": boxes, "labels": torch.tensor([1])}))
        refused((part, part), "got boxes as XYWH")

    def test_pictures_that_are_cut(self, tmp_path: Path) -> None:
        """A Dataset of Pillow's pictures reads them late."""
        save_picture(tmp_path / "a.jpg", (60, 60))
        (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-500])
        part = Yours((Image.open(tmp_path / "a.jpg"), target(1)))
        refused((part, part), "data: train sample 0: expected a PIL picture", "cannot be read")


def equal(lean: Any, whole: Any) -> None:
    """What a copy opens is what the library opens."""
    for mine, theirs in zip(lean, whole, strict=True):
        assert mine.classes == theirs.classes
        assert torch.equal(mine.images, theirs.images)
        for name in ("boxes", "labels", "masks"):
            for one, other in zip(getattr(mine, name, []), getattr(theirs, name, []), strict=True):
                assert torch.equal(one, other)


class TestLeanOpeners:
    """Those of boxes keep the pictures' proportions, as all detectors ask for it."""

    def test_coco(self) -> None:
        for size in (None, 40):
            equal(scenes_coco.open_boxes(image_size=size), open_boxes(image_size=size, letterbox=True))
            equal(scenes_coco.open_masks(image_size=size), open_masks(image_size=size))

    def test_voc(self, tmp_path: Path) -> None:
        home, lists = tmp_path / "VOCdevkit" / "VOC2007", tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets"
        for number, stem in enumerate(("a", "bb", "ccc", "dddd")):
            boxes = [voc_object("cat", (3, 5, 8, 12)), voc_object("dog", (1, 1, 9, 20)), voc_object(difficult=1)]
            voc(home, stem, "".join(boxes[number % 2 :]))
            save_mask(home / "SegmentationClass" / f"{stem}.png", rectangle(3, 3, 9, 9, number % 3 + 1))
        for kind in ("Main", "Segmentation"):
            (lists / kind).mkdir(parents=True)
            (lists / kind / "train.txt").write_text("a\nccc\nbb\n")
            (lists / kind / "val.txt").write_text("dddd\n")
        equal(scenes_voc.open_boxes(str(tmp_path)), open_boxes(tmp_path, image_size=128, letterbox=True))
        equal(scenes_voc.open_boxes(str(tmp_path), image_size=16), open_boxes(tmp_path, image_size=16, letterbox=True))
        equal(scenes_voc.open_masks(str(tmp_path), image_size=16), open_masks(tmp_path, image_size=16))

    def test_png(self, tmp_path: Path) -> None:
        for i in range(7):
            save_picture(tmp_path / "people" / "PNGImages" / f"{i}.png", size=(30, 20), seed=i)
            values = np.zeros((20, 30))
            values[3:9, i : i + 5], values[12:18, 20 - i : 28] = 1, 2
            save_mask(tmp_path / "people" / "PedMasks" / f"{i}_mask.png", values)
            save_picture(tmp_path / "roads" / "images" / f"{i}.jpg", size=(30, 20), seed=i)
            save_mask(tmp_path / "roads" / "masks" / f"{i}.png", values)
        for seed in (0, 1):
            people = tmp_path / "people"
            equal(scenes_png.open_boxes(str(people), seed=seed), open_boxes(people, seed=seed, letterbox=True))
            equal(scenes_png.open_masks(str(tmp_path / "roads"), seed=seed), open_masks(tmp_path / "roads", seed=seed))

    @real
    @needs_real
    def test_real(self) -> None:
        equal(scenes_voc.open_boxes(f"{REAL}/BCCD"), open_boxes(f"{REAL}/BCCD", letterbox=True))
        equal(scenes_png.open_boxes(f"{REAL}/PennFudanPed"), open_boxes(f"{REAL}/PennFudanPed", letterbox=True))


@real
@needs_real
class TestReal:
    def test_bccd(self) -> None:
        train, test = open_boxes(Path(str(REAL)) / "BCCD")
        assert (len(train), len(test)) == (205, 72)
        assert train.classes == ["Platelets", "RBC", "WBC"]
        assert all(boxes[:, 2:].max() <= 128 for boxes in train.boxes)

    def test_penn_fudan(self) -> None:
        train, test = open_boxes(Path(str(REAL)) / "PennFudanPed")
        assert (len(train), len(test)) == (32, 8)
        masks, _ = open_masks(Path(str(REAL)) / "PennFudanPed")
        assert masks.masks.unique().tolist() == [0, 1]

    def test_camvid(self) -> None:
        train, test = open_masks(Path(str(REAL)) / "CamVid")
        assert (len(train), len(test), len(train.classes)) == (30, 10, 11)
        assert train.classes[0] == "sky"
        assert set(train.masks.unique().tolist()) <= {*range(11), VOID}
