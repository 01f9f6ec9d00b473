"""Opens scenes with boxes or masks, bundled or yours: COCO, Pascal VOC, masks beside pictures, your Datasets.

The layout of the folder tells the format; the first that fits is read:

- COCO: `annotations/instances_SPLIT.json`, or JSON files with `images` and `annotations` in the folder
  or one below. A picture is looked for in `SPLIT/`, `images/SPLIT/`, `images/`, beside the JSON file and
  in the folder itself. Polygons and run lengths are read; objects with `iscrowd` are
  not learned, and scoring ignores what is found on them: in masks they are void.
- Pascal VOC: `JPEGImages` and `Annotations` or `SegmentationClass`, here, in `VOC*/` or in
  `VOCdevkit/VOC*/`; splits from `ImageSets/Main/*.txt` (for masks `ImageSets/Segmentation/*.txt`, where
  that exists). Coordinates start at 1 and include the last pixel; `difficult`
  objects are not learned, and scoring ignores what is found on them.
- Numbered objects, one class: `PNGImages/X.png` and `PedMasks/X_mask.png` (PennFudan), or `images/X.*`
  and `objects/X.png`. In a mask 0 is background, each other value one object.
- Classes as values: `images/X.*` and `masks/X.png`, or `SPLIT/X.*` and `SPLITannot/X.png` (CamVid).

The two with masks may also lie within `train/`, `val/` and `test/`; masks may be GIF, BMP or TIFF as well. Train
and test parts are used where they are given (val if there is no test), else a fifth of the pictures is held out.

Pictures are turned upright as their EXIF says, and annotations are of what is then seen. A box without area, outside
its picture or of a picture that is not listed is left out, one that leaves its picture is clipped, and so are
outlines; how many were is told in one line.

Where values stand for classes (VOC's too), 255 is void, unless there is no other value but 0. A file `classes.txt`
names the value 0 in its first line, 1 in the next, and so on; values named `void` become void. Without it the classes
are numbered up to the highest value; in the CamVid layout a highest value of 11 means CamVid's eleven classes and void.

A pair of Datasets (train, test) is read once, as its transforms give it, and held in memory:

- (image, {"boxes", "labels"}), as torchvision's detectors take it: boxes (n, 4) left, top, right, bottom in
  pixels; labels count from 1, and 0 is background. Where some object has the label 0, they count from 0.
- (image, mask): a class for each pixel, (H, W), 0 background and 255 void.

Their attribute `classes` names the classes; a first name `background` stands for 0.
"""

from recipes.datasets.scenes.opening import open_boxes, open_masks, read_letterboxed, read_warped
from recipes.datasets.scenes.pairs import letterboxed, scale_of
from recipes.datasets.scenes.sets import VOID, Boxes, Masks
