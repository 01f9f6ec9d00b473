"""Attention as it is computed while pretrained encoders learn on a CPU."""

import pytest
import torch
from torch.nn import functional as F

from recipes.nlp.bert.encoder import attention_in_bf16, encoder_from, learn_faster_on_cpus, small_bert, states_of


@pytest.mark.parametrize("padding", [0, 3])
def test_attention_on_cpus_is_that_of_transformers_without_its_dropout(padding: int) -> None:
    torch.manual_seed(0)
    config = small_bert(20, 0, width=16, layers=2, heads=2, longest=16) | {"attention_probs_dropout_prob": 0.5}
    encoder = encoder_from(config)
    ids = torch.randint(1, 20, (4, 9))
    there = torch.arange(9) < torch.tensor([[9], [9 - padding], [9], [9]])
    expected = states_of(encoder.eval(), ids, there)
    learn_faster_on_cpus(encoder)
    torch.testing.assert_close(states_of(encoder, ids, there)[there], expected[there], rtol=0, atol=1e-5)
    states = states_of(encoder.train(), ids, there)
    torch.testing.assert_close(states[there], expected[there], rtol=0, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = states_of(encoder, ids, there).float()
    torch.testing.assert_close(half[there], expected[there], rtol=0, atol=0.1)
    states.sum().backward()
    assert all(one.grad is not None for one in encoder.encoder.parameters())


def test_attention_in_bf16_has_the_gradients_of_torchs_own() -> None:
    torch.manual_seed(0)
    there = torch.arange(24) < torch.tensor([[24], [17]])
    mask, weights = there[:, None, None, :].expand(2, 1, 24, 24), torch.randn(2, 4, 24, 8)
    exact = [torch.randn(2, 4, 24, 8, requires_grad=True) for _ in range(3)]
    half = [one.detach().bfloat16().requires_grad_() for one in exact]
    expected = F.scaled_dot_product_attention(*exact, attn_mask=mask, scale=1.0)
    added = torch.zeros(2, 1, 24, 24).masked_fill(~mask, -torch.inf)
    for given in (mask, added):
        found = attention_in_bf16(*half, given)
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05)
    (found.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(half, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert (one.grad - other.grad).norm() < 0.05 * other.grad.norm()
