"""torchtext beside today's torch: the stand-in for its compiled half, and the same numbers by another library."""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import recipes
from recipes.core.errors import InputError
from recipes.core.frame import batches_by_length
from recipes.datasets.texts import Texts
from recipes.nlp import torchtext_pipeline
from recipes.nlp.torchtext_pipeline import (
    NumberedTexts,
    TorchtextPipelineOptions,
    basic_english,
    by_tokenizers,
    by_torchtext,
    numbered,
    open_numbered,
    outcome,
    padding,
    train,
)
from recipes.nlp.torchtext_stand_in import PlainVocab, load_torchtext

ODD = [
    "He said: \"It's (very) good; isn't it?\"",
    "One<br />two<br/>three … four,five!!",
    "  tabs\tand\nlines  ",
    "Ça va? ÉTÉ, Straße 12.5",
    "...",
    "",
]


def answers(build: Any, vocab: Any) -> dict[str, Any]:
    """What a vocabulary of torchtext says and how it fails; runs in another environment too, so it imports its own."""
    from collections import OrderedDict
    from copy import deepcopy

    def asked(question: Any) -> Any:
        try:
            return question()
        except Exception as error:
            return [type(error).__name__, str(error).partition("\n")[0] if isinstance(error, RuntimeError) else ""]

    texts = [["b", "a", "b", "c"], ["a", "b", "d", "é"]]
    one = build(iter(texts), specials=["<pad>", "<unk>"])
    last = build(iter(texts), specials=["<unk>", "b"], special_first=False, min_freq=2)
    few = build(iter(texts), specials=["<unk>"], max_tokens=3)
    found = {
        "order": [one.get_itos(), last.get_itos(), few.get_itos()],
        "numbers": sorted(one.get_stoi().items()),
        "length": [len(one), len(last), len(few)],
        "in it": ["a" in one, "x" in one],
        "known": [one["a"], one(["b", "a", "<pad>"]), one.lookup_indices(["c"]), one.lookup_indices([])],
        "unknown without default": asked(lambda: one["x"]),
        "unknowns without default": asked(lambda: one(["a", "x"])),
        "no default": one.get_default_index(),
        "token": [one.lookup_token(0), one.lookup_tokens([1, 2])],
        "no such number": [asked(lambda: one.lookup_token(99)), asked(lambda: one.lookup_token(-1))],
        "no such numbers": asked(lambda: one.lookup_tokens([0, 99])),
        "not a token": [asked(lambda: one[3]), asked(lambda: 3 in one)],  # one([3]) crashes the compiled one
        "not a number": asked(lambda: one.lookup_token("a")),
        "twice": asked(lambda: vocab(OrderedDict([("a", 1)]), specials=["<unk>", "<unk>"])),
        "too many specials": asked(lambda: build(iter(texts), specials=["<unk>"], max_tokens=1)),
    }
    one.set_default_index(one["<unk>"])
    found["unknown with default"] = [one["x"], one(["x", "a"]), one.get_default_index()]
    copied = deepcopy(one)
    one.append_token("new")
    one.insert_token("first", 0)
    found["grown"] = [one.get_itos(), one["new"], one["first"], one["a"], one["x"], len(copied), copied["x"]]
    found["already there"] = [asked(lambda: one.append_token("a")), asked(lambda: one.insert_token("a", 1))]
    found["no such place"] = [asked(lambda: one.insert_token("z", 99)), asked(lambda: one.insert_token("z", -1))]
    one.insert_token("end", len(one))
    one.set_default_index(-7)
    found["any default"] = [one["x"], one.get_itos()[-1]]
    one.set_default_index(None)
    found["default taken away"] = asked(lambda: one["x"])
    empty = vocab(OrderedDict())
    found["empty"] = [len(empty), empty.get_itos(), asked(lambda: empty["a"])]
    return found


def of_the_stand_in() -> dict[str, Any]:
    load_torchtext()
    from torchtext.vocab import build_vocab_from_iterator, vocab

    return json.loads(json.dumps(answers(build_vocab_from_iterator, vocab)))


def test_the_stand_in_answers() -> None:
    found = of_the_stand_in()
    assert found["order"][0] == ["<pad>", "<unk>", "b", "a", "c", "d", "é"]
    assert found["order"][1] == ["a", "<unk>", "b"]
    assert found["unknown without default"] == ["RuntimeError", "Token x not found and default index is not set"]
    assert found["unknown with default"] == [1, [1, 3], 1]
    assert found["grown"][0][0] == "first"
    assert found["twice"][0] == "RuntimeError"
    assert found["not a token"] == [["TypeError", ""]] * 2


@pytest.mark.rare
def test_the_real_one_answers_alike(tmp_path: Path) -> None:
    """In an environment with torch 2.3.1: `pytest -m slow tests/nlp/test_torchtext_pipeline.py`, some gigabytes.

    TORCHTEXT_PYTHON may name the Python of one that is there already.
    """
    python = os.environ.get("TORCHTEXT_PYTHON", "")
    if not python:
        python = str(tmp_path / "bin" / "python")
        subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True)
        wanted = ["torch==2.3.1", "torchtext==0.18.0", "numpy<2", "requests"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    script = f"""
import json, warnings
from typing import Any
warnings.simplefilter("ignore")
import torchtext
torchtext.disable_torchtext_deprecation_warning()
from torchtext._torchtext import __file__ as compiled
from torchtext.vocab import build_vocab_from_iterator, vocab
assert compiled.endswith((".so", ".pyd"))
{inspect.getsource(answers)}
print(json.dumps(answers(build_vocab_from_iterator, vocab)))
"""
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == of_the_stand_in()


def test_what_is_compiled_says_so() -> None:
    load_torchtext()
    from torchtext._torchtext import RegexTokenizer, Vocab

    if Vocab is not PlainVocab:
        pytest.skip("the compiled half loads here")
    with pytest.raises(NotImplementedError, match=r"compiled for torch 2\.3"):
        RegexTokenizer([])


def test_both_libraries_give_the_same_numbers() -> None:
    texts = [*ODD, *(f"The film was {word}, but we left." for word in ("good", "bad", "good"))]
    (theirs, tokens), (ours, same_tokens) = by_torchtext(texts, 1), by_tokenizers(texts, 1)
    assert tokens == same_tokens
    assert tokens[:2] == ["<pad>", "<unk>"]
    for text in [*texts, "An unknown WORD, isn't it?"]:
        assert theirs(text) == ours(text)
    assert by_torchtext(texts, 2)[1] == by_tokenizers(texts, 2)[1]


def test_batches_of_similar_length_hold_every_text_once() -> None:
    torch.manual_seed(0)
    lengths = torch.randint(1, 30, (200,)).tolist()
    ids = [torch.full((length,), 2) for length in lengths]
    dataset = NumberedTexts([""] * 200, ids, torch.arange(200), ["x"], ["<pad>", "<unk>", "a"])
    options = TorchtextPipelineOptions(batch_size=10)
    batches = list(batches_by_length(dataset, options))
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(200))
    assert padding(batches_by_length(dataset, options)) < 0.1
    texts = Texts(["", "aaa"], torch.tensor([0, 1]), ["x", "y"])
    few = numbered(texts, lambda text: [5] * len(text), [], most=2)
    assert [ids.tolist() for ids in few.ids] == [[1], [5, 5]]


def test_tokens_known_are_found_again() -> None:
    """A tokenizer made of the tokens alone, as a trained classifier's is, numbers texts as the one that counted."""
    texts = [*ODD, "The film was good, but we left."]
    encode, tokens = by_tokenizers(texts, 1)
    again = basic_english({token: number for number, token in enumerate(tokens)})
    for text in [*texts, "An unknown WORD, isn't it?"]:
        assert again.encode(text).ids == encode(text)


def test_the_old_names_fail() -> None:
    data = load_torchtext().data
    assert outcome(data, "BucketIterator") == "AttributeError"
    assert outcome(data, "get_tokenizer") == "there"


def test_without_torchtext(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = 'torchtext not installed: pip install "pytorch-recipes[torchtext]"'
    find = importlib.util.find_spec
    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: None if name == "torchtext" else find(name))
        with pytest.raises(InputError, match="torchtext not installed: pip install"):
            load_torchtext()
        with pytest.raises(InputError, match="torchtext not installed: pip install"):
            torchtext_pipeline.run(device="cpu", library="torchtext", claims=False)
    mine, theirs = (open_numbered(TorchtextPipelineOptions(library=name)) for name in ("auto", "tokenizers"))
    assert all(torch.equal(one, other) for one, other in zip(mine[1].ids, theirs[1].ids, strict=True))
    monkeypatch.setattr(torchtext_pipeline, "missing_for_torchtext", lambda: lacking)
    result = torchtext_pipeline.run(device="cpu", steps=2)
    assert "in 0.18" not in str(result)
    assert [claim.kind for claim in result.claims] == ["learned", "learned"]


def test_shuffled_labels_teach_nothing() -> None:
    train_set, test_set = open_numbered(TorchtextPipelineOptions())
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    options = TorchtextPipelineOptions(epochs=1, device=torch.device("cpu"))
    model = torchtext_pipeline.build(options, train_set)
    loop = train(model, replace(train_set, labels=train_set.labels[order]), test_set, options)
    assert loop.history[-1]["accuracy"] < 0.7
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_trained_classifiers_are_used(tmp_path: Path) -> None:
    result = torchtext_pipeline.run(device="cpu", steps=20, claims=False, out=str(tmp_path / "out"))
    trained = recipes.trained(tmp_path / "out", device="cpu")
    texts = result.test_set.texts[:5]
    expected = result.model.eval()(result.test_set.__getitems__(range(5))[0]).softmax(dim=1).max(dim=1).values
    assert [one["probability"] for one in trained(texts)] == pytest.approx(expected.tolist(), abs=1e-5)
    assert trained([""])[0]["class"] in result.test_set.classes
