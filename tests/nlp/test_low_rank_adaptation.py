"""LoRA: merged into plain layers it computes the same, also in models of `transformers`, and as peft's formula says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import recipes
from recipes.datasets.dates import dates
from recipes.nlp.language_model import LanguageModel
from recipes.nlp.low_rank_adaptation import (
    LoRAEmbedding,
    LoRALinear,
    LowRankOptions,
    add_lora,
    merge,
    open_both,
    train,
    trained_numbers,
)

NAME = "nlp.low_rank_adaptation"


def language_model(**options: Any) -> LanguageModel:
    torch.manual_seed(0)
    given = {"width": 16, "heads": 2, "context": 16, "device": "cpu", **options}
    model = LanguageModel(20, LowRankOptions(**given))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def changed(model: nn.Module) -> nn.Module:
    """The model after some training, as it were: what is trained is drawn at random."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return model


def tiny_of_transformers(kind: str) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=30, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.LlamaConfig(vocab_size=30, num_key_value_heads=1, **sizes)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def test_a_layer_is_as_the_papers_formula_says() -> None:
    torch.manual_seed(0)
    frozen, x = nn.Linear(6, 4), torch.randn(3, 6)
    layer = LoRALinear(frozen, 2, 8.0)
    assert torch.equal(layer(x), frozen(x)), "B starts at zero"
    changed(layer)
    assert layer.bias is not None
    # peft: result = base(x) + lora_B(lora_A(dropout(x))) * (alpha / rank); its lora_bias is part of lora_B
    lora_a, lora_b = nn.Linear(6, 2, bias=False), nn.Linear(2, 4)
    lora_a.weight, lora_b.weight = layer.A, layer.B
    lora_b.bias = nn.Parameter(layer.bias.detach() / 4)
    torch.testing.assert_close(layer(x), frozen(x) + lora_b(lora_a(x)) * (8.0 / 2))
    dense = frozen.weight + 4 * sum(layer.B[:, i].outer(layer.A[i]) for i in range(2))
    torch.testing.assert_close(layer(x), x @ dense.T + frozen.bias + layer.bias)
    torch.testing.assert_close(layer.merged().weight, dense)


@pytest.mark.parametrize("library", ["ours", "gpt2", "llama"])
def test_merged_weights_give_the_same_logits(library: str) -> None:
    model: Any = language_model() if library == "ours" else tiny_of_transformers(library)
    ids = torch.randint(1, 20, (2, 12))

    def logits(network: Any) -> Tensor:
        given = network(ids)
        return (given if library == "ours" else given.logits).detach()

    before, plain = logits(model), [type(layer) for layer in model.modules()]
    add_lora(model, 4, 8.0)
    assert (
        sum(isinstance(layer, LoRALinear) for layer in model.modules()) == {"ours": 8, "gpt2": 8, "llama": 14}[library]
    )
    assert torch.equal(logits(model), before), "it starts from the model as it was"
    changed(model)
    after = logits(model)
    assert (after - before).abs().max() > 0.1
    merged = merge(model)
    assert [type(layer) for layer in merged.modules()] == plain
    torch.testing.assert_close(logits(merged), after, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(model), after)  # merging changes a copy


def test_only_the_changes_are_trained_and_each_has_a_gradient() -> None:
    model, ids = language_model(), torch.randint(1, 20, (4, 12))
    frozen = {name: value.clone() for name, value in model.state_dict().items()}
    add_lora(model, 4, 8.0)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {name.rpartition(".")[2] for name in trained} == {"A", "B", "bias"}
    # A and B of each layer (rank · (in + out)), its bias, and the table's A and B
    sizes = [(16, 48), (16, 16), (16, 64), (64, 16)]
    assert trained_numbers(model) == 2 * sum(4 * (i + o) + o for i, o in sizes) + 4 * (20 + 16)
    changed(model)
    F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    for name, value in model.named_parameters():
        assert (value.grad is not None and value.grad.abs().sum() > 0) == (name in trained), name
    kept = {name.replace(".layer.", "."): value for name, value in model.state_dict().items() if name not in trained}
    assert all(torch.equal(kept[name], value) for name, value in frozen.items()), "taken off, nothing is lost"


def test_the_table_serves_as_output_layer_too() -> None:
    table = LoRAEmbedding(nn.Embedding(9, 6), 2, 4.0)
    changed(table)
    ids = torch.tensor([[1, 8, 3]])
    torch.testing.assert_close(table(ids), F.embedding(ids, table.weight))
    torch.testing.assert_close(table.merged().weight, table.weight)


def test_dates_are_written_in_words_and_in_numbers() -> None:
    english, spanish = dates("english", 500, 1), dates("spanish", 500, 1)
    assert dates("spanish", 500, 1) == spanish
    for line in spanish.splitlines():
        words, _, numbers = line.partition(" = ")
        day, month, year = numbers.split("/")
        assert words.startswith(f"{int(day)} de ")
        assert words.endswith(f" de {year}")
        assert 1 <= int(month) <= 12
    assert len(set(english.splitlines())) > 480
    sets = open_both(LowRankOptions(device="cpu"))
    assert sets[0].characters == sets[3].characters
    assert all((one.ids > 0).all() for one in sets)


def test_training_starts_from_the_base_and_is_used_merged(tmp_path: Path) -> None:
    short = {"pretraining": 20, "width": 32, "epochs": 2, "claims": False, "device": "cpu"}
    result = recipes.run(NAME, out=str(tmp_path), **short)
    assert not any(isinstance(layer, LoRALinear) for layer in result.model.modules())
    before, after = result.rows
    assert before["trained"] == 0
    assert 0 < after["trained"] < 0.2 * sum(value.numel() for value in result.model.parameters())
    assert after["loss"] < before["loss"]
    trained = recipes.trained(tmp_path, device="cpu")
    trained.task.length = 20  # type: ignore[attr-defined]
    (answer,) = trained(["5 de mayo de 1910 = "])
    assert len(answer["text"]) == 20
    ids = result.test_set.ids[None, :30]
    torch.testing.assert_close(trained.model(ids), result.model(ids), rtol=0, atol=1e-5)


def test_your_own_texts_share_one_vocabulary(tmp_path: Path) -> None:
    for name, text in {"first": "one two three. " * 60, "then": "uno dos três. " * 60}.items():
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    given: dict[str, Any] = {
        "base_data": tmp_path / "first.txt",
        "data": tmp_path / "then.txt",
        "context": 16,
        "width": 16,
    }
    options = LowRankOptions(**given, epochs=1, device=torch.device("cpu"))
    old, _, new, _ = open_both(options)
    assert "ê" in old.characters
    model = add_lora(LanguageModel(len(old.characters), options), 2, 4.0)
    assert train(model, new, options, name="lora").history
