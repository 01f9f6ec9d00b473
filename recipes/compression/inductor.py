"""Networks in 8-bit integers by torchao, compiled by inductor for this processor."""

import hashlib
import importlib.util
import logging
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.compression.graphs import with_products, without_lone_batch_norm
from recipes.core.errors import InputError
from recipes.core.files import write_whole
from recipes.core.task import digest
from recipes.datasets.images import ImageFiles, Images


@contextmanager
def quiet_and_single() -> Iterator[None]:
    """One thread, as latencies are measured, and no warnings of what compiles; then as it was before."""
    threads, level = torch.get_num_threads(), logging.root.manager.disable
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)
        torch.set_num_threads(threads)


def missing_for_integers() -> str:
    """What this machine lacks to compute with 8-bit integers fast, or an empty text."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    if importlib.util.find_spec("torchao") is None:
        return "torchao"
    if platform.machine() not in ("x86_64", "AMD64"):
        return "an x86 processor"
    if not any(torch.cpu.get_capabilities().get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        return "VNNI instructions"
    try:
        get_cpp_compiler()
    except RuntimeError:
        return "a C++ compiler"
    return ""


def has_products() -> bool:
    """Whether inductor itself writes fast integer products for this processor, beside those it calls oneDNN for."""
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_vnni", "amx_int8"))


def quantize_by_torchao(graph: nn.Module, pictures: Tensor, *, dynamic: bool = False) -> nn.Module:
    """The exported graph with roundings around its layers, by the ranges seen while it is given the pictures.

    With `dynamic`, only linear layers are rounded, by the ranges of the batch at hand.

    The compiler then replaces them and the layer between them by one integer operation. A ReLU module that a
    network uses in several places would need several ranges: give each place its own.

    Raises:
        InputError: torchao is not installed.
    """
    try:
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    except ImportError:
        raise InputError('torchao is not installed: pip install "pytorch-recipes[compression]"') from None
    config = x86.get_default_x86_inductor_quantization_config(is_dynamic=dynamic)
    quantizer = x86.X86InductorQuantizer().set_global(config)
    if not dynamic and has_products():
        graph = with_products(graph, pictures)
    observed = prepare_pt2e(without_lone_batch_norm(graph, pictures), quantizer)
    with torch.no_grad():
        observed(pictures)
    return convert_pt2e(observed)


class HalfPrecision(nn.Module):
    """The model with convolutions and matrix products in bfloat16, in a way that export can see."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(inputs).float()


def compiled(
    graph: nn.Module, picture: Tensor, folder: Path, *, batch_sizes: Sequence[int] = (1, 32)
) -> Callable[[Tensor], Tensor]:
    """The exported graph compiled by inductor into programs for batches of these sizes, see `load_compiled`.

    A program is kept where torch keeps what it compiles (TORCHINDUCTOR_CACHE_DIR), and taken from there when the same
    graph with the same weights is compiled again.

    Args:
        graph: from `exported`, or that quantized.
        picture: one input, without a batch.
        folder: for the programs, a file for each batch size: integer convolutions are not compiled for all at once.
        batch_sizes: of the programs.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    folder.mkdir(exist_ok=True)
    name = name_of(graph)
    for batch_size in batch_sizes:
        inputs = picture.repeat(batch_size, *[1] * picture.ndim)
        program = f"{batch_size}-{'x'.join(map(str, picture.shape))}-{str(picture.dtype)[6:]}"
        kept = Path(cache_dir()) / "recipes" / f"{name}-{program}.pt2"
        if not kept.exists():
            write_whole(kept, partial(write_program, graph, inputs))
        # A sum x + f(x) with an integer layer f may be written into x: the file's name says whether it is.
        shutil.copyfile(kept, folder / f"{program}{'-writes' if writes_into(kept, inputs) else ''}.pt2")
    return load_compiled(folder)


def name_of(graph: Any) -> str:
    """A word that tells the graph and its tensors, this processor, torch's version and the way to compile from others.

    The number is of `write_program`, and rises when that writes other programs.
    """
    tensors: dict[str, Tensor] = {}  # constants, too, which are in no state dict
    for path, module in graph.named_modules():
        held = vars(module) | module._parameters | module._buffers
        tensors |= {f"{path}.{name}": one.detach() for name, one in held.items() if isinstance(one, Tensor)}
    kinds = [(name, one.dtype, one.shape) for name, one in tensors.items()]
    way = (graph.code, kinds, torch.__version__, torch.cpu.get_capabilities(), torch.get_num_threads(), 2)
    return f"{hashlib.sha256(repr(way).encode()).hexdigest()[:16]}{digest(tensors)}"


@torch.no_grad()
def write_program(graph: Any, inputs: Tensor, path: Path) -> None:
    """Compiles the graph for inputs of this shape.

    oneDNN's integer product of a single input orders its weight anew at every call, so inductor writes the products
    itself; but not where their result is added to something or their ranges are dynamic, which torch 2.14 gets wrong.
    Answers are compared besides.
    """
    from torch._inductor import aoti_compile_and_package, aoti_load_package, config

    program = torch.export.export(graph, (inputs,))
    # Freezing makes the weights part of the program, ready in the layout it wants. As an option of a single
    # compilation it fails on these graphs; in the configuration it works, where no gradients are recorded.
    if has_products() and products_are_plain(graph):
        with config.patch(freezing=True, max_autotune_gemm=True, max_autotune_gemm_backends="CPP"):
            aoti_compile_and_package(program, package_path=str(path))
        expected = graph(inputs)
        (answers,) = aoti_load_package(str(path)).loader.run([inputs.clone()])
        if (answers - expected).norm() <= 0.05 * expected.norm():
            return
    with config.patch(freezing=True):
        aoti_compile_and_package(program, package_path=str(path))


def products_are_plain(graph: Any) -> bool:
    """Whether there are integer products, none with dynamic ranges, and none that is added to something."""
    linear, integer = torch.ops.aten.linear.default, "dequantize_per_channel"
    found = [node for node in graph.graph.nodes if node.target is linear and integer in str(node.args[1].target)]
    after = [user.target for node in found for user in node.users]
    added = any("aten.add" in str(target) for target in after)
    return bool(found) and not added and "choose_qparams" not in graph.code


def writes_into(program: Path, inputs: Tensor) -> bool:
    """Whether the program writes into its inputs, which does not depend on what they are."""
    from torch._inductor import aoti_load_package

    inputs = torch.randn(inputs.shape) if inputs.is_floating_point() else inputs
    given = inputs.clone()
    aoti_load_package(str(program)).loader.run([given])
    return not torch.equal(given, inputs)


def load_compiled(folder: Path) -> Callable[[Tensor], Tensor]:
    """The programs that `compiled` wrote, as one function of batches of any size: they are split, and filled up.

    It is C++ from end to end, which saves the time that Python takes from operation to operation.

    Raises:
        InputError: there are none in the folder; and when called with inputs of another type or shape, which a
            program does not look at.
    """
    from torch._inductor import aoti_load_package

    files = {int(path.stem.partition("-")[0]): path for path in folder.glob("*-*-*.pt2")}
    programs = {size: aoti_load_package(str(path)).loader for size, path in files.items()}
    written = {size for size, path in files.items() if path.stem.endswith("-writes")}
    if not programs:
        raise InputError(f"{folder}: expected programs that `compiled` wrote, files *.pt2")
    most, exact = max(programs), {size: program for size, program in programs.items() if size not in written}
    _, sides, kind = files[most].stem.split("-")[:3]
    shape, dtype = [int(side) for side in sides.split("x") if side], getattr(torch, kind)

    def call(images: Tensor) -> Tensor:
        if images.dtype != dtype or not images.ndim or [*images.shape[1:]] != shape or images.device.type != "cpu":
            given = f"{images.dtype} of shape {tuple(images.shape)} on {images.device.type}"
            raise InputError(f"compiled program: expected a batch of {dtype} of shape {shape} on cpu, got {given}")
        count = len(images)
        if not count:
            return call(images.new_zeros(1, *shape))[:0]
        if count in exact:  # nothing to copy: a program that is not among the written ones leaves what it is given
            (answers,) = exact[count].boxed_run([images.contiguous()])
            return answers
        if count > most:
            return torch.cat([call(part) for part in images.split(most)])
        size = min(size for size in programs if size >= count)
        if count < size:
            images = torch.cat([images, images[:1].expand(size - count, *images.shape[1:])])
        else:
            images = images.clone()
        (answers,) = programs[size].boxed_run([images.contiguous()])
        return answers[:count]

    return call


@torch.no_grad()
def accuracy_of(call: Callable[[Tensor], Tensor], dataset: Images | ImageFiles) -> float:
    """Share of right answers, 32 pictures at a time."""
    right = 0
    for rows in torch.arange(len(dataset)).split(32):
        images, labels = dataset.__getitems__(rows)
        right += int((call(images).argmax(dim=1) == labels).sum())
    return right / len(dataset)
