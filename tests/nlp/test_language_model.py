"""The language model: against torch's own layers, against its masks and positions, and against the leak."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
from recipes.datasets.running_text import Windows
from recipes.nlp import language_model
from recipes.nlp.language_model import Block, LanguageModel, LanguageModelOptions, evaluate, loss_by_position, rotate
from recipes.nlp.language_modeling import LanguageModeling, generate
from recipes.nlp.ngrams import ngram_losses

CPU = torch.device("cpu")
CHARACTERS = ["�", *"abcdefghijklmnopqrs"]


def build(**options: Any) -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(20, LanguageModelOptions(**{"width": 16, "heads": 2, "context": 16, "ngrams": 3, **options}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def windows(ids: Tensor, **options: Any) -> Windows:
    return Windows(ids, 16, CHARACTERS, **options)


def test_block_equals_torchs_layer() -> None:
    torch.manual_seed(0)
    mine = Block(16, 4)
    for parameter in mine.parameters():  # where nothing is zero
        nn.init.normal_(parameter, std=0.3)
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
    x = torch.randn(3, 7, 16)
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    torch.testing.assert_close(mine(x, None, causal=True), theirs(x, mask), rtol=0, atol=1e-5)
    torch.testing.assert_close(mine(x, None, causal=False), theirs(x), rtol=0, atol=1e-5)


def test_rotation_keeps_lengths_and_tells_distances_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 8)
    angles = torch.arange(10)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.01])
    rotation = torch.stack([angles.cos(), angles.sin()])
    q, k = rotate(query.expand(10, 8), rotation), rotate(key.expand(10, 8), rotation)
    torch.testing.assert_close(q.norm(dim=1), query.norm().expand(10))
    products = q @ k.T
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
        model = build(causal=False, positions=positions, ngrams=1)
        same = torch.allclose(model(ids)[:, -1], model(swapped)[:, -1], atol=1e-5)
        assert same != positions


def test_an_ngram_is_embedded_by_its_characters_alone() -> None:
    model = build()
    x = model.embed(torch.tensor([[3, 4, 5, 6, 7], [9, 9, 5, 6, 7], [3, 4, 5, 8, 7]]))
    torch.testing.assert_close(x[0, 4], x[1, 4])
    assert not torch.allclose(x[0, 3], x[1, 3]), "its first character differs"
    assert not torch.allclose(x[0, 4], x[2, 4]), "its second character differs"
    model.train()
    model.dropout.p = 1.0
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    torch.testing.assert_close(model.embed(ids), model.embedding(ids))


def test_every_parameter_gets_a_gradient() -> None:
    model = build()
    ids = torch.randint(0, 20, (4, 9))
    F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_perplexity_of_a_uniform_model_is_the_vocabulary() -> None:
    class Uniform(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return torch.zeros(*ids.shape, 20)

    measured = evaluate(Uniform(), windows(torch.randint(0, 20, (400,))), CPU)
    assert measured == {"loss": pytest.approx(math.log(20)), "perplexity": pytest.approx(20)}


def test_loss_by_position_equals_one_window_at_a_time() -> None:
    model, dataset = build(), windows(torch.randint(0, 20, (2500,)), stride=8)
    expected = torch.zeros(16)
    for index in range(len(dataset)):
        ids, targets = dataset.__getitems__([index])
        expected += F.cross_entropy(model(ids)[0], targets[0], reduction="none").detach() / len(dataset)
    torch.testing.assert_close(loss_by_position(model, dataset, CPU).float(), expected, rtol=1e-4, atol=1e-5)
    assert evaluate(model, dataset, CPU)["loss"] == pytest.approx(expected[8:].mean().item(), abs=1e-5)


@pytest.mark.parametrize("positions", [True, False])
def test_with_a_cache_the_logits_are_the_same(positions: bool) -> None:
    model, ids = build(positions=positions), torch.randint(1, 20, (2, 12))
    cache: list[list[Tensor]] = [[] for _ in model.blocks]
    parts = [model(ids[:, :5], cache), *(model(ids[:, :end], cache) for end in range(6, 13))]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), rtol=0, atol=1e-5)


class CountUp(nn.Module):
    """Surely the next number, of seven; it computes everything each time."""

    context, blocks = 16, ()

    def forward(self, ids: Tensor, cache: Any) -> Tensor:
        return 100.0 * F.one_hot((ids + 1) % 7, 7)


def test_generating_follows_the_model() -> None:
    drawn = generate(CountUp(), torch.tensor([2]), 6)
    assert drawn.tolist() == [3, 4, 5, 6, *drawn.tolist()[4:]]
    assert 0 not in drawn, "the unknown character is never written"
    model = build()
    first, again, other = (
        generate(model, torch.tensor([2]), 40, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_generating_takes_the_likeliest_as_a_window_at_a_time_does() -> None:
    model, prompt = build(), torch.tensor([2, 5])
    ids, start = prompt, 0
    for _ in range(40):
        if len(ids) - start == model.context:
            start += model.context // 2
        logits = model(ids[None, start:])[0, -1].detach()
        ids = torch.cat([ids, logits[1:].argmax().add(1)[None]])
    for how in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        assert generate(model, prompt, 40, **how).tolist() == ids[2:].tolist(), how


def test_top_k_and_top_p_draw_from_the_likeliest() -> None:
    class Fixed(CountUp):
        def forward(self, ids: Tensor, cache: Any) -> Tensor:
            return torch.tensor([0.9, 0.4, 0.3, 0.2, 0.1]).log().expand(*ids.shape, 5)

    def seen(**how: Any) -> set[int]:
        return set(generate(Fixed(), torch.tensor([1]), 300, **{"temperature": 1.0, "top_p": 1.0, **how}).tolist())

    torch.manual_seed(0)
    assert seen() == {1, 2, 3, 4}
    assert seen(top_k=2) == {1, 2}
    assert seen(top_p=0.5) == {1, 2}, "0.4 alone is not half of it"
    assert seen(top_p=0.39) == {1}
    assert seen(top_k=99) == {1, 2, 3, 4}


def test_a_rule_is_learned_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(1, 9, (6000,), generator=generator)
    rule = torch.randint(1, 9, (4,), generator=generator).repeat(1500)
    options = LanguageModelOptions(width=16, layers=1, heads=2, context=16, epochs=1, batch_size=8, lr=1e-2, device=CPU)
    losses = []
    for ids in (rule, noise):
        torch.manual_seed(0)
        parts = windows(ids[:5000]), windows(ids[5000:])
        model = LanguageModel(9, options)
        language_model.train(model, *parts, options)
        losses.append(evaluate(model, parts[1], CPU)["loss"])
    assert losses[0] < 0.7
    assert losses[1] > math.log(8) - 0.02


def test_what_reaches_far_back_is_learned() -> None:
    """Twelve characters drawn at random come four times: counts of short n-grams know nothing of the next one."""
    ids = torch.randint(1, 9, (600, 12), generator=torch.Generator().manual_seed(0)).repeat(1, 4).flatten()
    parts = [Windows(part, 47, CHARACTERS, stride=48) for part in (ids[:24_000], ids[24_000:])]
    options = LanguageModelOptions(width=32, layers=1, context=48, epochs=20, batch_size=32, lr=1e-2, device=CPU)
    torch.manual_seed(0)
    model = LanguageModel(20, options)
    language_model.train(model, *parts, options)
    known = loss_by_position(model.eval(), parts[1], CPU)
    assert known[:10].mean() > math.log(8) - 0.05
    assert known[30:].mean() < 0.7, known
    assert ngram_losses(parts[0].ids, parts[1].ids, 20, 4)[3].mean() > math.log(8) - 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 20, "heads": 4}, "option width: expected a multiple of twice 4 heads, got 20"),
        ({"layers": 0}, "option layers: expected a whole number of at least 1, got 0"),
        ({"context": 8}, "option context: expected a whole number of at least 16, got 8"),
        ({"context": 10**6}, "option context: expected less than the train text has"),
        ({"data": ("abc" * 100, "abc")}, "option context: expected less than the test text has, 3 characters, got 128"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        language_model.run(device="cpu", **options)


def write_text(path: Path) -> Path:
    path.write_text("一二三四五六七八九十。" * 300 + "新", "utf-8")
    return path


SMALL: dict[str, Any] = {"width": 32, "layers": 1, "context": 16, "buckets": 64, "device": "cpu", "claims": False}


@pytest.mark.filterwarnings("ignore:Glyph")  # of a font that is not here
def test_your_own_text_with_half_precision(tmp_path: Path) -> None:
    data, out = write_text(tmp_path / "mine.txt"), tmp_path / "out"
    result = language_model.run(data=data, epochs=6, precision="bf16", out=out, **SMALL)
    assert result.metrics["loss"] < 0.3
    assert result.metrics["perplexity"] == pytest.approx(math.exp(result.metrics["loss"]))
    assert (out / "figure.png").stat().st_size > 10_000


def test_a_trained_model_continues_texts(tmp_path: Path) -> None:
    text = "one two three four five six seven eight nine ten. " * 100
    result = language_model.run(data=(text, text[:500]), epochs=10, out=tmp_path, **SMALL)
    assert "one two" not in (tmp_path / "model.json").read_text("utf-8")
    trained = recipes.trained(tmp_path, device="cpu")
    assert isinstance(trained.task, LanguageModeling)
    (ids,) = trained.task.batch(["three four", "six"])
    assert ids.shape == (2, 10)
    torch.testing.assert_close(trained.model(ids), result.model(ids), rtol=0, atol=1e-5)
    prompts = ["two three four ", "一 two three four ", ""]  # with a character that the text does not hold
    answers = trained(prompts)
    assert answers == trained(prompts), "the same seed"
    assert [answer["prompt"] for answer in answers] == prompts
    assert all(len(answer["text"]) == 300 and "�" not in answer["text"] for answer in answers)
    assert answers[0]["text"].startswith("five six seven")
    assert trained(prompts[1:]) == answers[1:], "no text depends on another"
    assert result.task is not None
    assert result.task.predict(result.model, prompts, CPU) == answers
    trained.task.length, trained.task.seed = 5, 1
    assert len(trained([""])[0]["text"]) == 5
    likeliest = []
    for trained.task.temperature, trained.task.top_k in ((0, None), (1.0, 1), (1.0, 0)):
        likeliest += trained([prompts[0]])
    assert likeliest[0] == likeliest[1] == likeliest[2]
    for name in ("model.pt2", "model.onnx"):
        if name.endswith("2"):
            assert trained.export(tmp_path / name) < 1e-4
    program = torch.export.load(tmp_path / "model.pt2").module()
    longer = torch.randint(1, 10, (3, 29))
    torch.testing.assert_close(program(longer), trained.model(longer), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_two_processes_with_sharded_weights(tmp_path: Path) -> None:
    data, out = write_text(tmp_path / "mine.txt"), tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "recipes.nlp.language_model", "--device=cpu", "--shard", "--width=32", "--context=16"]
    command += [f"--data={data}", f"--out={out}", "--epochs=1", "--no-claims", "--buckets=64"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("this recipe") == 1
    weights = load_file(out / "model.safetensors")
    assert weights["embedding.weight"].shape == (12, 32)
