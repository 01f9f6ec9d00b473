"""Attention as it is computed while pretrained encoders learn on a CPU."""

import pytest
import torch

from recipes.nlp.bert.encoder import encoder_from, learn_faster_on_cpus, small_bert, states_of


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
