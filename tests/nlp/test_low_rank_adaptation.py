"""LoRA: merged into plain layers it computes the same, also in models of `transformers`, and as peft's formula says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import recipes
from recipes.core.errors import InputError
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
from recipes.nlp.low_rank_folders import attention_layers, open_to_adapt
from tests.compression.test_gptq import TEXT, folder_of
from tests.forking import run_file

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


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    known, path = TEXT.split(), tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(known[number % len(known)] for number in range(1500)))
    return path


@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama in bfloat16"])
def test_other_peoples_models_are_adapted_and_used_in_another_process(kind: str, words: Path, tmp_path: Path) -> None:
    folder, out = folder_of(kind, tmp_path / "model"), tmp_path / "out"
    given: dict[str, Any] = {"weights": str(folder), "data": str(words), "context": 32, "rank": 2, "lr": 5e-3}
    model, kinds, sets = open_to_adapt(LowRankOptions(**given, base_data=str(words), device="cpu"))
    assert len(attention_layers(model)) == (4 if kind == "gpt2" else 8)
    assert len(sets) == 3
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    result = recipes.run(NAME, **given, base_data=str(words), epochs=8, device="cpu", out=str(out), claims=False)
    assert result["loss"] < result.baseline["loss"] - 0.02
    assert result["old_text_loss"] == result["loss"], "it is the same text"
    branches = {"gpt2": 2 * (2 * (32 + 96) + 96 + 2 * 64 + 32)}.get(kind, 2 * 2 * (2 * 64 + 2 * (32 + 16)))
    assert result.rows[1]["trained"] == branches
    assert {name: value.dtype for name, value in result.model.named_parameters()} == kinds
    changed = {
        name for name, value in model.named_parameters() if (value != dict(result.model.named_parameters())[name]).any()
    }
    assert changed == {name for name in kinds if "attn" in name}
    ids = sets[1].ids[None, :20]
    (tmp_path / "use.py").write_text(f"""
import json, torch, recipes
trained = recipes.trained("out", device="cpu")
trained.task.length = 5
print(json.dumps([trained.model(torch.tensor({ids.tolist()})).tolist(), trained(["the cat sat"])]))
""")
    status, told = run_file(["use.py"], tmp_path, ("torch", "torchvision", "transformers"), {})
    assert status == 0, told
    logits, (answer,) = json.loads(told.splitlines()[-1])
    torch.testing.assert_close(torch.tensor(logits), result.model(ids).detach(), rtol=0, atol=1e-5)
    assert answer["prompt"] == "the cat sat"
    assert set(answer["text"].split()) <= set(TEXT.split()) | {"<unk>"}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_only_the_branches_have_gradients(kind: str, words: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"weights": str(folder_of(kind, tmp_path)), "data": str(words), "context": 32}
    model, _, (train_set, _) = open_to_adapt(LowRankOptions(**given, lr=1e-3, device="cpu"))
    model.requires_grad_(False)
    for name, layer in attention_layers(model).items():
        model.set_submodule(name, LoRALinear(layer, 2, 4.0))
    changed(model)
    ids, targets = train_set.__getitems__([0, 1])
    F.cross_entropy(model(ids).flatten(0, 1), targets.flatten()).backward()
    for name, value in model.named_parameters():
        branch = name.rpartition(".")[2] in ("A", "B") or (name.endswith(".bias") and ".attn." in name)
        branch &= ".layer." not in name.partition("attn")[2]
        assert (value.grad is not None) == branch, name


def test_folders_that_it_cannot_take_are_refused_in_a_line(words: Path, tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    folder = folder_of("gpt2", tmp_path / "model")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "vocab_size": 30}
    MambaForCausalLM(MambaConfig(**sizes)).save_pretrained(folder)
    given: dict[str, Any] = {"data": str(words), "context": 32, "claims": False, "device": "cpu"}
    with pytest.raises(
        InputError, match="expected linear layers of attention in numbered blocks, MambaForCausalLM has"
    ):
        recipes.run(NAME, weights=str(folder), **given)
    with pytest.raises(InputError, match="option weights: expected a folder"):
        recipes.run(NAME, weights=str(tmp_path / "none"), **given)
    folder = folder_of("llama", tmp_path / "llama")
    model = open_to_adapt(LowRankOptions(weights=str(folder), data=str(words), context=32, device="cpu"))[0]
    layer: Any = model.get_submodule("network.model.layers.1.self_attn.k_proj")
    layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(InputError, match=r"layers\.1\.self_attn\.k_proj holds int8: expected a model that is not"):
        attention_layers(model)
