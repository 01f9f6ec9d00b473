"""The language model: against torch's own layers, against its masks and positions, and against the leak."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.core.result import Result
from recipes.datasets.running_text import Windows
from recipes.nlp import language_model
from recipes.nlp.language_model import Block, LanguageModel, count_models, evaluate, loss_by_place, rotate, write

CPU = torch.device("cpu")


def build(**options: bool) -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(20, width=16, layers=2, heads=2, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def test_block_equals_torchs_layer() -> None:
    torch.manual_seed(0)
    mine = Block(16, 4)
    theirs = nn.TransformerEncoderLayer(16, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
    names = {
        "to_qkv.weight": "self_attn.in_proj_weight",
        "to_qkv.bias": "self_attn.in_proj_bias",
        "to_out": "self_attn.out_proj",
        "mlp.0": "linear1",
        "mlp.2": "linear2",
    }
    weights = mine.state_dict()
    for old, new in names.items():
        weights = {key.replace(old, new): value for key, value in weights.items()}
    theirs.load_state_dict(weights)
    stream = torch.randn(3, 7, 16)
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    torch.testing.assert_close(mine(stream, None, causal=True), theirs(stream, mask), rtol=0, atol=1e-5)
    torch.testing.assert_close(mine(stream, None, causal=False), theirs(stream), rtol=0, atol=1e-5)


def test_rotation_keeps_lengths_and_tells_distances_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 8)
    angles = torch.arange(10)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.01])
    queries, keys = rotate(query.expand(10, 8), angles), rotate(key.expand(10, 8), angles)
    torch.testing.assert_close(queries.norm(dim=1), query.norm().expand(10))
    products = queries @ keys.T
    for distance in range(-5, 6):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), rtol=0, atol=1e-5)
    assert products[0].std() > 0.1


def test_nothing_comes_from_later_characters() -> None:
    ids = torch.randint(1, 20, (2, 12))
    changed = ids.clone()
    changed[:, 8:] = torch.randint(1, 20, (2, 4))
    for causal in (True, False):
        model = build(causal=causal)
        same = torch.allclose(model(ids)[:, :8], model(changed)[:, :8], atol=1e-6)
        assert same == causal


def test_positions_tell_order() -> None:
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    swapped = torch.tensor([[4, 3, 5, 6, 7]])
    for positions in (True, False):
        model = build(causal=False, positions=positions)
        same = torch.allclose(model(ids)[:, -1], model(swapped)[:, -1], atol=1e-5)
        assert same != positions


def test_every_parameter_gets_a_gradient() -> None:
    model = build()
    ids = torch.randint(0, 20, (4, 9))
    F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_perplexity_of_a_uniform_model_is_the_vocabulary() -> None:
    windows = Windows(torch.randint(0, 20, (400,)), context=16)
    measured = evaluate(lambda ids: torch.zeros(*ids.shape, 20), windows, CPU)
    assert measured == {"loss": pytest.approx(math.log(20)), "perplexity": pytest.approx(20)}


def test_loss_by_place_equals_one_window_at_a_time() -> None:
    model, windows = build(), Windows(torch.randint(0, 20, (2500,)), context=16)
    expected = torch.zeros(16)
    for index in range(len(windows)):
        ids, targets = windows.__getitems__([index])
        expected += F.cross_entropy(model(ids)[0], targets[0], reduction="none").detach() / len(windows)
    torch.testing.assert_close(loss_by_place(model, windows, CPU).float(), expected, rtol=1e-4, atol=1e-5)


def test_counts_are_shares() -> None:
    ids = torch.tensor([1, 2, 1, 2, 1, 3])
    unigram, bigram = count_models(ids, 5)
    asked = torch.tensor([[1, 4]])
    torch.testing.assert_close(unigram(asked)[0, 0].exp(), torch.tensor([1, 4, 3, 2, 1]) / 11)
    torch.testing.assert_close(bigram(asked).exp().sum(dim=2), torch.ones(1, 2))
    torch.testing.assert_close(bigram(asked)[0, 0, 2].exp(), torch.tensor((2 + 3 / 11) / 4))
    torch.testing.assert_close(bigram(asked)[0, 1], unigram(asked)[0, 1])  # 4 was never seen


def test_writing_follows_the_model() -> None:
    def count_up(ids: Tensor) -> Tensor:
        return 100.0 * F.one_hot((ids + 1) % 7, 7)

    drawn = write(count_up, torch.tensor([2]), 6, context=3)
    assert drawn.tolist() == [3, 4, 5, 6, *drawn.tolist()[4:]]
    assert 0 not in drawn, "the unknown character is never written"
    model = build()
    first, second = (write(model, torch.tensor([2]), 20, context=8, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, write(model, torch.tensor([2]), 20, context=8, seed=0))


def test_a_rule_is_learned_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(1, 9, (6000,), generator=generator)
    rule = torch.randint(1, 9, (4,), generator=generator).repeat(1500)
    losses = []
    for ids in (rule, noise):
        torch.manual_seed(0)
        model = LanguageModel(9, width=16, layers=1, heads=2)
        parts = Windows(ids[:5000], 16), Windows(ids[5000:], 16)
        language_model.train(model, *parts, epochs=1, batch_size=8, lr=1e-2, device=CPU)
        losses.append(evaluate(model, parts[1], CPU)["loss"])
    assert losses[0] < 0.7
    assert losses[1] > math.log(8) - 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 20, "heads": 4}, "options width, layers and heads"),
        ({"layers": 0}, "options width, layers and heads"),
        ({"context": 8}, "option context: expected at least 16"),
        ({"context": 10**6}, "option context: expected at least 16 and less"),
    ],
)
def test_options_that_cannot_be(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        language_model.run(device="cpu", **options)  # type: ignore[arg-type]


def write_text(path: Path) -> Path:
    path.write_text("一二三四五六七八九十。" * 300 + "新", "utf-8")
    return path


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_own_text_with_half_precision(tmp_path: Path) -> None:
    data, out = write_text(tmp_path / "mine.txt"), tmp_path / "out"
    result = language_model.run(
        data=str(data), width=32, layers=1, context=16, epochs=2, device="cpu", precision="bf16", out=str(out)
    )
    assert result.metrics["loss"] < 0.3
    assert (out / "figure.png").stat().st_size > 10_000


def test_two_processes_with_sharded_weights(tmp_path: Path) -> None:
    data, out = write_text(tmp_path / "mine.txt"), tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "recipes.nlp.language_model", "--device=cpu", "--shard", "--width=32", "--context=16"]
    command += [f"--data={data}", f"--out={out}", "--epochs=1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("this recipe") == 1
    assert {path.name for path in out.iterdir()} == {"result.json", "figure.png", "model.safetensors"}


@pytest.mark.xdist_group("nlp.language_model")
def test_the_leak_and_its_mending(default_run: Callable[[str], Result]) -> None:
    result = default_run("nlp.language_model")
    assert all(claim.holds for claim in result.claims)
    assert [row["model"] for row in result.rows] == ["unigram counts", "bigram counts", "Transformer"]
    assert result.metrics["perplexity"] == pytest.approx(math.exp(result.metrics["loss"]))
    assert all(len(row["writes"]) > 20 for row in result.rows)
