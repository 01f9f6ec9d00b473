"""The Transformer for texts: padding changes nothing, positions tell the order, and a text is read as a whole."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from recipes.core.errors import InputError
from recipes.nlp.text_classification.encoding import open_words
from recipes.nlp.text_classification.transformer import TextTransformer, TransformerOptions, build
from recipes.nlp.translation import waves


def made(*, positions: bool = True) -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(20, 3, embedding_size=16, heads=2, positions=positions).eval()


def test_padding_changes_nothing() -> None:
    model, ids = made(), torch.tensor([[3, 4, 5, 6]])
    torch.testing.assert_close(model(F.pad(ids, (0, 5))), model(ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("positions", [True, False])
def test_positions_tell_the_order(positions: bool) -> None:
    model = made(positions=positions)
    same = torch.allclose(model(torch.tensor([[3, 4, 5, 6]])), model(torch.tensor([[6, 5, 4, 3]])), atol=1e-5)
    assert same != positions


def test_every_word_counts_near_or_far() -> None:
    model = made()
    vectors = torch.randn(1, 100, 16, requires_grad=True)
    model.encoder(vectors)[0, 0].square().sum().backward()
    assert vectors.grad is not None
    assert (vectors.grad.abs().sum(dim=2) > 0).all()


def test_waves_do_not_depend_on_the_length() -> None:
    assert torch.equal(waves(50, 8)[:7], waves(7, 8))
    assert waves(600, 8).unique(dim=0).shape == (600, 8)


def test_heads_divide_the_vector() -> None:
    options = TransformerOptions(embedding_size=30, heads=4)
    with pytest.raises(InputError, match="option heads: expected an even vector and a divisor of 30"):
        build(options, open_words(options)[0])


def test_vectors_of_a_file_get_as_many_heads_as_divide_them() -> None:
    """GloVe's smallest vectors have 50 numbers."""
    data = SimpleNamespace(vocabulary=range(9), classes=["a", "b"], vector_size=50)
    model = build(TransformerOptions(), data)
    assert model.encoder.layers[0].self_attn.num_heads == 2
    assert model(torch.tensor([[2, 3, 4]])).shape == (1, 2)
