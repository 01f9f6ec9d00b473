"""How trained language models are used: they continue texts, a character at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recipes.core.result import Result
from recipes.core.task import Task, first_inputs
from recipes.datasets.running_text import UNKNOWN, Windows, encoded


@torch.inference_mode()
def generate(
    model: Any,
    ids: Tensor,
    length: int,
    *,
    temperature: float = 0.7,
    top_k: int | None = None,
    top_p: float = 0.95,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws `length` characters one after the other, each from what the model expects after those before it.

    Args:
        model: a LanguageModel.
        ids: the prompt, (time,), at least one character.
        length: characters to draw.
        temperature: below 1, likely characters become likelier still.
        top_k: draw from so many of the likeliest characters; from all of them if not given.
        top_p: draw from the fewest characters that together have this probability.
        generator: of the draws, on the CPU.
    """
    drawn: list[int] = []
    window, cache = ids[-(model.context // 2) :], nothing_known(model)
    for _ in range(length):
        if len(window) == model.context:  # full: begin again with its later half
            window, cache = window[-(model.context // 2) :], nothing_known(model)
        logits = model(window[None], cache)[0, -1].float().cpu()  # (vocabulary,)
        logits[UNKNOWN] = -torch.inf
        shares, order = (logits / temperature).softmax(dim=0).sort(descending=True)
        if top_k is not None:
            shares[top_k:] = 0
        shares[1:][shares.cumsum(dim=0)[:-1] >= top_p] = 0
        drawn.append(int(order[shares.multinomial(1, generator=generator)]))
        window = torch.cat([window, window.new_tensor(drawn[-1:])])
    return torch.tensor(drawn)


def nothing_known(model: Any) -> list[list[Tensor]]:
    """A cache that keys and values of each block are yet to come into."""
    return [[] for _ in model.blocks]


def sample(model: Any, dataset: Windows, length: int, seed: int) -> str:
    """What a LanguageModel writes after the beginning of a text: the same with the same seed."""
    prompt = dataset.ids[: dataset.context // 2].to(next(model.parameters()).device)
    drawn = generate(model, prompt, length, generator=torch.Generator().manual_seed(seed))
    return "".join(dataset.characters[index] for index in drawn.tolist())


@dataclass(kw_only=True)
class LanguageModeling(Task):
    """Texts to their continuations, the same ones with the same seed.

    `trained.task.length = 500` and the like changes how a model that is loaded writes.

    Attributes:
        characters: that the network knows, after one that stands for all others and is never written.
        length: characters to write.
        temperature: below 1, likely characters become likelier still; at 0 the likeliest is taken.
        top_k: draw from so many of the likeliest characters; from all of them if None.
        top_p: draw from the fewest characters that together have this probability.
        seed: of the draw; each text has its own draw, so that its continuation depends on no other text.
    """

    takes: ClassVar[str] = "texts"

    characters: list[str]
    length: int = 300
    temperature: float = 0.7
    top_k: int | None = None
    top_p: float = 0.95
    seed: int = 0

    @classmethod
    def of(cls, result: Result, options: Any) -> Self:
        example = first_inputs(result.test_set)
        return cls(characters=list(result.test_set.characters), seed=options.seed, example=example)

    def batch(self, items: Sequence[str]) -> tuple[Tensor, ...]:
        """The numbers of the texts' characters, (N, time); shorter texts are filled up at their end."""
        ids = [encoded(text, self.characters) for text in items]
        return (pad_sequence(ids, batch_first=True, padding_value=UNKNOWN),)

    def predict(self, model: nn.Module, items: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
        how: dict[str, Any] = {"temperature": max(self.temperature, 1e-4), "top_p": self.top_p}
        how["top_k"] = None if self.top_k is None else max(self.top_k, 1)
        found = []
        for prompt in items:
            ids = encoded(prompt or "\n", self.characters).to(device)
            generator = torch.Generator().manual_seed(self.seed)
            written = generate(model, ids, self.length, generator=generator, **how)
            found.append({"prompt": prompt, "text": "".join(self.characters[i] for i in written.tolist())})
        return found

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        return ({0: "batch", 1: "time"},)
