"""A CUDA device without hardware: tensors that say `cuda:0`, compute on the CPU, and refuse what CUDA refuses.

    with pretend_cuda():
        recipes.run("vision.classification", device="cuda")

Each tensor of the device is a wrapper around a CPU tensor. Every operation of torch passes through `compute`, which
makes wrappers where the device was asked for, and raises where CUDA would: tensors of both devices in one operation,
indices or a generator of the wrong one, `.numpy()`, a process forked after CUDA began, an operation without a kernel.

Float64, which a Mac refuses, is refused too.

What it cannot show: what a CUDA kernel computes and how fast, its memory, the dtypes it takes, streams, cuDNN, NCCL,
torch.compile, and what other processes do. It stands on private names of torch, and so has a process to itself.
"""

import contextlib
import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import torch._dynamo  # before anything is replaced: it lists what torch has
from torch import Tensor, nn
from torch._decomp.decompositions import gru_impl
from torch.optim.optimizer import _foreach_supported_types
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from recipes.core.device import pick_device
from recipes.core.errors import InputError
from recipes.smoke import line, smoke

CUDA = torch.device("cuda", 0)  # what Python hears
BETWEEN_DEVICES = {"_to_copy", "copy_", "copy", "_copy_from", "set_", "_has_same_storage_numel", "is_same_size"}
BETWEEN_DEVICES |= {"lift_fresh"}
STAYS_ON_CPU = {"index": 1, "index_put": 1, "index_put_": 1, "_index_put_impl_": 1, "_unsafe_index": 1}
STAYS_ON_CPU |= {"_pack_padded_sequence": 1, "_pack_padded_sequence_backward": 2}  # the argument's number
TAKES_A_CPU_SCALAR = {"masked_fill", "masked_fill_", "index_fill", "index_fill_", "fill", "fill_", "clamp", "clamp_"}
TAKE_CPU_SCALARS = ("_foreach_", "_fused_", "_amp_", "where", "index_put", "_index_put")  # names that begin so


class Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


# What torch's C++ hears: told of CUDA, autograd would ask the driver for its devices, and there is none.
_setup_privateuseone_for_python_backend("pretended", Backend())
INSIDE = torch.device("pretended", 0)
NAMES = (CUDA.type, INSIDE.type)


class OnDevice(Tensor):
    """A tensor that says it is on the device; `held` is the CPU tensor with its values."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        shape = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        kind = {"dtype": held.dtype, "layout": held.layout, "device": INSIDE}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, **shape, **kind)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(operation, args, kwargs or {})

    def __tensor_flatten__(self) -> tuple[list[str], None]:  # with this, modules swap the tensors that they move
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> "OnDevice":
        return OnDevice(parts["held"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            if not self.is_leaf:
                raise RuntimeError("only tensors created explicitly by the user support deepcopy")
            twin = self.detach().clone().requires_grad_(self.requires_grad)
            memo[id(self)] = nn.Parameter(twin, self.requires_grad) if isinstance(self, nn.Parameter) else twin
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return OnDevice, (self.held.clone(),)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        copy = kwargs.pop("copy", False)
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type not in NAMES:
            return super().to(device, dtype or self.dtype, non_blocking, copy)
        order = {} if layout is None else {"memory_format": layout}
        return super().to(dtype=dtype or self.dtype, non_blocking=non_blocking, copy=copy, **order)

    def cuda(self, *_: Any, **__: Any) -> Any:
        return self

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {CUDA} device type tensor to numpy. Use Tensor.cpu() first.")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __repr__(self, **_: Any) -> str:
        return f"{self.held!r} on {CUDA}"


torch.serialization.add_safe_globals([OnDevice])  # so that torch.load takes a file that holds them


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(operation, args, kwargs or {})


class State:
    """The process in which CUDA began, and the generators that are the device's."""

    def __init__(self) -> None:
        self.process = 0
        self.generators: dict[int, torch.Generator] = {}

    def start(self) -> None:
        self.process = self.process or os.getpid()
        if self.process != os.getpid():
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")


state = State()


def compute(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU tensors behind its arguments, if CUDA would take it."""
    if is_composite(operation):  # of inference tensors, which autograd has not taken to pieces
        with Mode():
            return operation.decompose(*args, **kwargs)
    flat, structure = tree_flatten((args, kwargs))
    tensors = [one for one in flat if isinstance(one, Tensor)]
    ours = [one for one in tensors if isinstance(one, OnDevice)]
    to_ours = kwargs.get("device") is not None and torch.device(kwargs["device"]).type in NAMES
    if not ours and not to_ours:
        return operation(*args, **kwargs)
    state.start()
    name = operation._schema.name.partition("::")[2]
    if ours and name not in BETWEEN_DEVICES:
        check(operation, name, args, tensors)
    here = to_ours or (bool(ours) and kwargs.get("device") is None)
    for one in flat:
        if isinstance(one, torch._C.Generator) and (one._cdata in state.generators) != here:
            raise RuntimeError(f"Expected a '{'cuda' if here else 'cpu'}' device type for generator ({operation})")
    if name == "_fused_sdp_choice":
        return 0  # attention in small operations: the others have a kernel for each device
    if name == "copy_":
        here = isinstance(args[0], OnDevice)
    held = [one.held if isinstance(one, OnDevice) else one for one in flat]
    held_args, held_kwargs = tree_unflatten(held, structure)
    if "device" in held_kwargs and held_kwargs["device"] is not None:
        held_kwargs["device"] = torch.device("cpu")
    if held_kwargs.get("pin_memory"):
        held_kwargs["pin_memory"] = False
    answer = operation(*held_args, **held_kwargs)
    if torch.Tag.inplace_view in operation.tags:
        with no_dispatch():  # the wrapper takes the new shape as well
            operation(*args, **kwargs)
    wrappers = {id(one.held): one for one in ours}

    def wrap(tensor: Tensor) -> Tensor:
        if here and tensor.dtype == torch.float64:
            raise TypeError("the MPS framework doesn't support float64")  # as a Mac answers
        if id(tensor) in wrappers:
            return wrappers[id(tensor)]
        if not here or isinstance(tensor, OnDevice) or any(tensor is one for one in tensors):
            return tensor
        if operation.is_view and not ours[0].is_inference():  # a part of an ordinary tensor is an ordinary one
            with torch.inference_mode(False):
                return OnDevice(tensor)
        return OnDevice(tensor)

    wrapped = tree_map_only(Tensor, wrap, answer)
    return (wrapped[0], answer[1]) if name == "_pack_padded_sequence" else wrapped  # lengths stay on the CPU


@functools.cache
def is_composite(operation: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), "CompositeImplicitAutograd")


def check(operation: Any, name: str, args: Any, tensors: list[Tensor]) -> None:
    """Raises what CUDA raises where devices meet, or where it has no kernel."""
    if not torch._C._dispatch_has_computed_kernel_for_dispatch_key(operation.name(), "CUDA"):
        raise NotImplementedError(f"Could not run '{operation.name()}' with arguments from the 'CUDA' backend")
    allowed: list[Any] = []
    if name in STAYS_ON_CPU and STAYS_ON_CPU[name] < len(args):
        allowed = [one for one in tree_flatten(args[STAYS_ON_CPU[name]])[0] if isinstance(one, Tensor)]
        on_device = any(isinstance(one, OnDevice) for one in allowed)
        if name.startswith("_pack") and on_device:
            raise RuntimeError(f"'lengths' argument should be a 1D CPU int64 tensor ({operation})")
        if "index" in name and on_device and not isinstance(args[0], OnDevice):
            raise RuntimeError(f"indices should be on the same device as the indexed tensor ({operation})")
    takes_scalars = torch.Tag.pointwise in operation.tags or name in TAKES_A_CPU_SCALAR
    takes_scalars = takes_scalars or name.startswith(TAKE_CPU_SCALARS)
    pairs = zip(operation._schema.arguments, args, strict=False)
    written = [one for kind, one in pairs if kind.alias_info is not None and kind.alias_info.is_write]
    for one in tensors:
        fits = isinstance(one, OnDevice) or one.device.type == "meta" or any(one is other for other in allowed)
        scalar = one.ndim == 0 and takes_scalars and not any(one is other for other in written)
        if not fits and not scalar:
            kinds = [(tuple(each.shape), each.device.type) for each in tensors]
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found {CUDA} and cpu ({operation}, {kinds})"
            )


class Generator(torch.Generator):
    """torch's generator, which may say that it is the device's."""

    where = torch.device("cpu")
    device = property(lambda self: self.where)  # type: ignore[assignment]

    def __new__(cls, device: Any = "cpu") -> "Generator":
        made = super().__new__(cls, "cpu")
        made.where = torch.device(device)
        if made.where.type == CUDA.type:
            state.generators[made._cdata] = made  # torch hands on what is inside it, not this object
        return made

    def __init__(self, device: Any = "cpu") -> None: ...


class Autocast(torch.autocast):
    def __init__(self, device_type: str, dtype: Any = None, **given: Any) -> None:
        if device_type == CUDA.type:
            device_type, dtype = INSIDE.type, dtype or torch.float16
        super().__init__(device_type, dtype, **given)


# The operations that torch.autocast("cuda") runs in half precision, and in float32.
IN_HALF = """conv1d conv2d conv3d conv_transpose1d conv_transpose2d.input conv_transpose3d.input linear matmul mm mv bmm
    addmm addmv addbmm baddbmm chain_matmul prelu scaled_dot_product_attention"""
IN_FULL = """layer_norm group_norm softmax.int log_softmax.int nll_loss nll_loss2d cross_entropy_loss exp log log1p
    expm1 pow.Tensor_Scalar rsqrt reciprocal sum sum.dim_IntList prod cumsum norm.Scalar cosine_similarity
    ctc_loss.Tensor mse_loss l1_loss smooth_l1_loss kl_div binary_cross_entropy_with_logits cdist acos asin cosh sinh
    tan"""


@functools.cache
def register_autocast() -> list[torch.library.Library]:
    """Autocast for the device that C++ sees; the libraries last as long as they are kept."""
    rest, own = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    rest.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for names, half in ((IN_HALF, True), (IN_FULL, False)):
        for name in names.split():
            packet, _, overload = name.partition(".")
            operation = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
            if operation is not None:
                own.impl(name, in_precision(operation, half), "AutocastPrivateUse1")
    return [rest, own]


def in_precision(operation: Any, half: bool) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(INSIDE.type) if half else torch.float32

        def cast(one: Tensor) -> Tensor:
            real = isinstance(one, OnDevice) and one.is_floating_point() and one.dtype != torch.float64
            return one.to(dtype) if real else one

        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return operation(*tree_map_only(Tensor, cast, args), **tree_map_only(Tensor, cast, kwargs))

    return call


def with_index(to: Callable[..., Any]) -> Callable[..., Any]:
    """Tensor.to, where "cuda" is "cuda:0": C++ would ask the driver which device is the current one."""

    def named(one: Any) -> Any:
        return CUDA if isinstance(one, (str, torch.device)) and str(one) == CUDA.type else one

    def call(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return to(self, *map(named, args), **{key: named(value) for key, value in kwargs.items()})

    return call


def keeping_parameters(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Module._apply under which parameters stay the same objects when they move, as with CUDA.

    They swap what they hold, which takes their hooks away; so nothing is done where nothing moves.
    """

    def call(self: nn.Module, move: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        tensors = [one.detach() for one in (*self.parameters(), *self.buffers())]
        pairs = [(one, move(one)) for one in tensors]
        if all((type(one), one.dtype) == (type(other), other.dtype) for one, other in pairs):
            return self  # another order in memory, at most
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return apply(self, move, *args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    return call


def in_mode(run: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: threading.Thread) -> None:
        with Mode():
            run(self)

    return call


def in_small_operations(gru: Callable[..., Any]) -> Callable[..., Any]:
    """A GRU layer, whose cell has a kernel for each device."""
    return lambda inputs, *rest: (gru_impl if isinstance(inputs, OnDevice) else gru)(inputs, *rest)


def pin_memory(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    if isinstance(tensor, OnDevice):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    return tensor.clone()


def always(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


@contextlib.contextmanager
def pretend_cuda() -> Iterator[None]:
    """While it lasts, torch sees one CUDA device, and computes on the CPU what is asked of it."""
    register_autocast()
    properties = SimpleNamespace(name="pretended", major=9, minor=0, total_memory=2**36)
    nothing = always(None)
    cuda = {"is_available": always(True), "is_initialized": lambda: bool(state.process), "device_count": always(1)}
    cuda |= {"current_device": always(0), "get_device_name": always("pretended"), "set_rng_state": nothing}
    cuda |= {"get_device_capability": always((9, 0)), "get_device_properties": always(properties)}
    cuda |= {"is_bf16_supported": always(True), "max_memory_allocated": always(0), "memory_allocated": always(0)}
    cuda |= {"get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8)}
    cuda |= dict.fromkeys(("_lazy_init", "init", "synchronize", "set_device", "manual_seed", "empty_cache"), nothing)
    cuda |= dict.fromkeys(("manual_seed_all", "reset_peak_memory_stats"), nothing)
    accelerator = {"is_available": always(True), "current_accelerator": always(torch.device("cuda"))}
    accelerator |= {"device_count": always(1), "current_device_index": always(0)}
    accelerator |= {"synchronize": nothing, "set_device_index": nothing}
    tensor = {"to": with_index(Tensor.to), "cuda": lambda self, *_, **__: self.to(CUDA)}
    tensor |= {"pin_memory": pin_memory, "is_pinned": always(False)}
    replaced: list[tuple[Any, dict[str, Any]]] = [
        (torch.cuda, cuda),
        (torch.accelerator, accelerator),
        (Tensor, tensor),
        (torch, {"Generator": Generator, "autocast": Autocast}),
        (torch.amp, {"autocast": Autocast}),
        (torch._VF, {"gru": in_small_operations(torch._C._VariableFunctions.gru)}),
        (nn.Module, {"_apply": keeping_parameters(nn.Module._apply)}),
        (threading.Thread, {"run": in_mode(threading.Thread.run)}),
    ]
    lifted = torch._C._only_lift_cpu_tensors()
    with contextlib.ExitStack() as stack:
        for owner, functions in replaced:
            for name, function in functions.items():
                stack.enter_context(mock.patch.object(owner, name, function, create=True))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        _foreach_supported_types.append(OnDevice)  # optimizers handle lists of tensors at once, as on CUDA
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        stack.callback(_foreach_supported_types.remove, OnDevice)
        stack.callback(setattr, state, "process", 0)
        stack.enter_context(Mode())
        yield


def refusals(cuda: Tensor, cpu: Tensor) -> dict[str, Callable[[], Any]]:
    """What CUDA refuses to do with two matrices, one on each device, by words of its message."""
    return {
        "found cuda:0 and cpu (aten.add": lambda: cuda + cpu,
        "found cuda:0 and cpu (aten.mm": lambda: cuda @ cpu,
        "same device as the indexed tensor": lambda: cpu[cuda.long()],
        "can't convert": lambda: cuda.numpy(),
        "device type for generator": lambda: torch.randn(2, device="cuda", generator=torch.Generator()),
        "cannot pin": lambda: cuda.pin_memory(),
        "Could not run 'aten::histogram": lambda: torch.histogram(cuda, 3),
        "support float64": cuda.double,
    }


def main(names: list[str]) -> int:
    """Short runs of these recipes on the device, a line each, and the traceback of what fails."""
    failed = 0
    with pretend_cuda():
        for words, refused in refusals(torch.ones(2, 2, device="cuda"), torch.ones(2, 2)).items():
            with pytest.raises((RuntimeError, TypeError), match=re.escape(words)):
                refused()
        with mock.patch.dict(os.environ, LOCAL_RANK="1"), pytest.raises(InputError, match=r"process 1 .* has no GPU"):
            pick_device("cuda")
        for name in names:
            (result,) = smoke([name], tiny=True, device="cuda", watch=lambda *told: print(line(*told), flush=True))
            failed += bool(result["shortfalls"])
    return int(failed > 0)


if __name__ == "__main__":
    # Weights on this device are wrapped, as sharded or quantized ones are, which compression leaves alone.
    with mock.patch("recipes.compression.layers.PLAIN", (nn.Parameter, OnDevice)):
        sys.exit(main(sys.argv[1:]))
