"""What copies get in place of longer parts of this family."""

import copy
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from recipes.compression.causal_models import CausalModel
from recipes.compression.files import stored_bytes, with_gaps
from recipes.compression.layers import CONVOLUTIONS, MULTIPLYING, TABLES, TRANSPOSED, Weight, is_conv1d
from recipes.datasets.plain.images_idx import Images
from recipes.datasets.running_text import Windows, open_characters
from recipes.vision.classification.plain import evaluate


def open_causal_model(
    folder: str, data: str | None, context: int, limit: int | None
) -> tuple[CausalModel, Windows, Windows]:
    """A causal model of `transformers` from a folder, and a text in windows of its tokens: train and test part."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(Path(folder), dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(Path(folder)).backend_tokenizer
    model = CausalModel(network.eval(), tokenizer.to_str())
    context, sets = min(context, model.context), []
    for part in open_characters(data, context, limit=limit):
        text = "".join(part.characters[number] for number in part.ids.tolist())
        ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids)
        sets.append(Windows(ids, context, [], 1, context if part.jitter else context // 2))
    return model, sets[0], sets[1]


def find_weights(model: nn.Module, *, tables: bool = True) -> "dict[str, Weight]":
    """Weights of the linear and convolutional layers, and of embeddings if `tables`, by name."""
    kinds = (*MULTIPLYING, *TABLES) if tables else MULTIPLYING
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}
    return {
        f"{path}.{name}": Weight(value, int(isinstance(layer, TRANSPOSED)), [(layer, name)])
        for path, layer in found.items()
        for name, value in layer.named_parameters(recurse=False)
        if "weight" in name and value.ndim > 1
    }


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of the linear and convolutional layers by name."""
    found = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, MULTIPLYING)]
    weights = {
        f"{path}.{name}": value for path, layer in found for name, value in layer.named_parameters(recurse=False)
    }
    return {name: value for name, value in weights.items() if value.ndim > 1}


def tell_reached(what: str, model: nn.Module, reached: Iterable[nn.Parameter]) -> None:
    """Says how many parameters that was."""
    print(f"{what}: reached {sum(value.numel() for value in set(reached)):,} parameters")


def stored_as(weight: "Weight", form: nn.Module) -> None:
    """The weight is held as the tensors of `form.right_inverse`; in place."""
    weight.value.requires_grad_(False)
    for layer, name in weight.holders:
        parametrize.register_parametrization(layer, name, form, unsafe=True)


def copy_for_cpu(model: nn.Module) -> nn.Module:
    """A copy on the CPU, for evaluation, with weights laid out as files hold them."""
    return copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()


def takes_one_input(layer: nn.Module) -> bool:
    """Whether this is a linear or convolutional layer."""
    return isinstance(layer, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED))


@torch.no_grad()
def input_ranges(model: nn.Module, layers: list[nn.Module], inputs: Tensor, observer: Any) -> dict[nn.Module, Any]:
    """The range of what each of the layers is given while the model answers, as the observer sees it."""
    ranges: dict[nn.Module, Any] = {}
    hooks = [one.register_forward_pre_hook(lambda one, args: ranges.update({one: observer(args[0])})) for one in layers]
    was_training = model.training
    model.eval()(inputs)
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return ranges


def with_changed_input(layer: nn.Module, change: Callable[[Any, Tensor], Tensor], **buffers: Tensor) -> None:
    """From now on the layer's input becomes `change(layer, input)`, by what the buffers hold; in place."""
    for name, value in buffers.items():
        layer.register_buffer(name, value)
    layer.register_forward_pre_hook(lambda layer, args: (change(layer, args[0].float()).to(args[0].dtype),))


def costs(model: nn.Module, test_set: Images) -> dict[str, float]:
    """Bytes of a network's weights, its accuracy and its loss; on the CPU, what is in halves as floats."""
    size = sum(value.nbytes for value in [*model.parameters(), *model.buffers()])
    return {"bytes": size} | evaluate(copy.deepcopy(model).float(), test_set, torch.device("cpu"))


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that a file must hold, tied ones once."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)


def save_dense(model: nn.Module, path: Path) -> None:
    """Writes a safetensors file of the model, every number in full."""
    write_tensors(own_tensors(model), path)


def save_sparse(model: nn.Module, path: Path) -> None:
    """Writes one in which most zeros are left out: a bit for each position, or the zeros before each other number."""
    stored: dict[str, Tensor] = {}
    for name, tensor in own_tensors(model).items():
        bits = torch.from_numpy(np.packbits((tensor != 0).flatten().numpy()))
        values, gaps = with_gaps(tensor)
        forms = [{name: tensor}, {f"{name}.values": tensor[tensor != 0], f"{name}.bits": bits}]
        forms += [{f"{name}.values": values, f"{name}.gaps": gaps}]
        smallest = min(forms, key=stored_bytes)
        stored |= smallest
    write_tensors(stored, path)


def file_bytes(model: nn.Module, save: Callable[[nn.Module, Path], object]) -> int:
    """Size of the file that `save` writes."""
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / "model.safetensors")
        return (Path(folder) / "model.safetensors").stat().st_size


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy, whose weights are parameters if the model's are."""
    return copy.deepcopy(model)


def with_plain_weights(model: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """The model with what computes its weights gone and its last values in place; in place."""
    for layer in list(model.modules()):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
    return model


def parametrized(layer: nn.Module, name: str, form: nn.Module) -> None:
    """The layer's weight of that name is computed by `form` from now on, whenever it is needed; in place."""
    parametrize.register_parametrization(layer, name, form, unsafe=True)


def linear_layers(model: nn.Module, *, told: bool = False) -> dict[str, dict[str, Any]]:
    """The linear layers of each block by name: of those with a number in their names, as "blocks.0.to_qkv" has."""
    blocks: dict[str, dict[str, Any]] = {}
    for name, layer in model.named_modules():
        block = re.match(r".*?\.\d+\.", name)
        if block and (isinstance(layer, nn.Linear) or is_conv1d(layer)):
            blocks.setdefault(block[0], {})[name] = layer
    return blocks


def replace_layer(model: nn.Module, layer: nn.Module, other: nn.Module) -> None:
    for name in [name for name, one in model.named_modules(remove_duplicate=False) if one is layer]:
        model.set_submodule(name, other)


def call(model: Any, inputs: Any) -> Any:
    return model(inputs)


def logits_of(outputs: Any) -> Tensor:
    return outputs


def prune_channels(model: nn.Module, example: Tensor, share: float) -> nn.Module:
    """A copy without that share of its channels, the smallest: of convolutions, batch norm, linear layers and sums."""
    model = copy.deepcopy(model)
    layers, parents, sources = dict(model.named_modules()), [0], dict[Any, int]()  # group 0 must stay
    ends: dict[Any, tuple[int, int]] = {}  # groups of the channels that a layer reads, and of those it gives

    def find(group: int) -> int:
        return group if parents[group] == group else find(parents[group])

    for node in torch.fx.symbolic_trace(model).graph.nodes:
        given = [sources[one] for one in node.all_input_nodes] or [0]
        layer = layers.get(str(node.target)) if node.op == "call_module" else None
        sources[node] = given[0]
        if isinstance(layer, (*CONVOLUTIONS, nn.Linear)):
            parents.append(len(parents))
            sources[node] = len(parents) - 1
        if isinstance(layer, (*CONVOLUTIONS, nn.Linear, nn.BatchNorm2d)):
            ends[layer] = given[0], sources[node]
        for other in [0] if node.op == "output" else given[1:]:  # what a sum adds goes together
            low, high = sorted((find(given[0]), find(other)))
            parents[high] = low
    norms: dict[int, list[Tensor]] = {}
    for layer, groups in ends.items():
        for dim in range(min(layer.weight.ndim, 2)):
            each = layer.weight.detach().movedim(dim, 0).flatten(1 if layer.weight.ndim > 1 else 0)
            each = each.norm(dim=1) if each.ndim > 1 else each.abs()  # (channels,)
            norms.setdefault(find(groups[1 - dim]), []).append((each / each.mean()).double())
    kept = {}
    norms.pop(0, None)
    for group, rows in norms.items():
        order = torch.stack(rows).mean(dim=0).argsort(stable=True)
        kept[group] = order[int(share * len(order)) :].sort().values
    for layer, (ins, outs) in ends.items():
        for name, value in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            smaller = value.detach()
            for dim, group in enumerate((find(outs), find(ins))[: value.ndim]):
                smaller = smaller.index_select(dim, kept[group]) if group else smaller
            if value.ndim:
                setattr(layer, name, nn.Parameter(smaller) if isinstance(value, nn.Parameter) else smaller)
    return model
