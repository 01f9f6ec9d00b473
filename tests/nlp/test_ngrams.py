"""Counts of n-grams: probabilities that sum to one, and numbers that can be counted by hand."""

import math

import pytest
import torch

from recipes.nlp.ngrams import best_order, discounts_of, ngram_losses

VOCABULARY = 9


def text(characters: int, seed: int = 0) -> torch.Tensor:
    return (torch.rand(characters, generator=torch.Generator().manual_seed(seed)) ** 3 * VOCABULARY).long()


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_of_all_characters_sum_to_one(order: int) -> None:
    ids = text(2000)
    for before in (ids[37:44], text(7, seed=1), torch.tensor([8, 8, 8, 8, 8])):
        asked = [torch.cat([before, torch.tensor([one])]) for one in range(9)]
        losses = [ngram_losses(ids, one, VOCABULARY, order)[-1] for one in asked]
        assert sum(math.exp(-each[-1].item()) for each in losses) == pytest.approx(1)


def test_counts_by_hand() -> None:
    """0, 1 and 2 each came after one other character, discount 0.9; 01 and 10 came twice (1.9), 02 once (0.2)."""
    assert discounts_of(torch.tensor([1, 1, 1])).tolist() == pytest.approx([0.9, 0.9, 0.9])
    assert discounts_of(torch.tensor([2, 2, 1, 0])).tolist() == pytest.approx([1.9, 1.9, 0.2, 0.0])
    single = 0.1 / 3 + 2.7 / 3 * 1 / 4
    losses = ngram_losses(torch.tensor([0, 1, 0, 1, 0, 2]), torch.tensor([0, 1]), 4, 2)[1]
    expected = [single, 0.1 / 3 + (1.9 + 0.2) / 3 * single]  # nothing ever came after 2; then 1 after 0
    assert losses.neg().exp().tolist() == pytest.approx(expected)


def test_only_the_train_text_is_counted() -> None:
    ids, test = text(500), text(200, seed=2)
    together = ngram_losses(ids, test, VOCABULARY, 4)
    torch.testing.assert_close(ngram_losses(ids, test[:50], VOCABULARY, 4), together[:, :50])


def test_a_rule_is_learned_and_noise_is_not() -> None:
    rule = torch.tensor([1, 2, 3, 1, 2, 4]).repeat(200)
    assert ngram_losses(rule[:1000], rule[1000:], VOCABULARY, 4)[3].mean() < 0.02
    assert ngram_losses(rule[:1000], rule[1000:], VOCABULARY, 4)[1].mean() > 0.2, "after 2 comes 3 or 4"
    noise = torch.randint(0, 8, (4000,), generator=torch.Generator().manual_seed(0))
    assert ngram_losses(noise[:3000], noise[3000:], VOCABULARY, 3)[2].mean() > math.log(8) - 0.02


def test_the_order_is_chosen_on_the_train_text() -> None:
    rule = torch.tensor([1, 2, 3, 4, 5, 1, 2, 3, 4, 6]).repeat(50)  # what comes after 4 is told 5 characters before
    assert best_order(rule, VOCABULARY) >= 6
