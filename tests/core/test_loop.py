import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.core.errors import InputError, tell
from recipes.core.loading import as_is, batches
from recipes.core.loop import Loop, one_cycle
from recipes.core.options import Options
from recipes.core.processes import synchronize_batch_norm

CPU = torch.device("cpu")


class Points:
    """A small learnable set: two classes on either side of a plane."""

    def __init__(self, count: int = 96) -> None:
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(count, 5, generator=generator)
        self.labels = (self.inputs @ torch.arange(5.0) > 0).long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.inputs[indices], self.labels[indices]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))


def constant(progress: float) -> float:
    return 1.0


def loop_over(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch_size: int = 16,
    *,
    loader: object = None,
    schedule: Callable[[float], float] = constant,
    evaluate: Callable[[], dict[str, float]] = dict,
    **given: Any,
) -> Loop:
    """A loop over `Points`, with options that are given by name."""
    options = Options(**{"batch_size": batch_size, "device": "cpu"} | given)
    return Loop(model, optimizer, loader or batches(Points(), options), options, schedule=schedule, evaluate=evaluate)


def train(model: nn.Module, epochs: int = 3, batch_size: int = 16, **given: Any) -> Loop:
    torch.manual_seed(7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loop = loop_over(model, optimizer, batch_size, epochs=epochs, schedule=one_cycle, **given)
    for inputs, labels in loop:
        loop.step(F.cross_entropy(loop.model(inputs), labels))
    return loop


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_equals_the_loop_written_by_hand() -> None:
    model, by_hand = network(), network()
    train(model)

    torch.manual_seed(7)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.01)
    loader = batches(Points(), Options(batch_size=16))
    total = 3 * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(min(step / total, 1.0)))
    by_hand.train()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        for inputs, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(by_hand(inputs), labels).backward()
            optimizer.step()
            schedule.step()
    assert equal(model, by_hand)


def test_history_has_a_row_an_epoch() -> None:
    loop = train(network(), evaluate=lambda: {"accuracy": 0.5})
    assert [row["epoch"] for row in loop.history] == [1, 2, 3]
    assert all(row["accuracy"] == 0.5 and row["loss"] > 0 for row in loop.history)
    assert loop.history[-1]["loss"] < loop.history[0]["loss"]
    assert loop.steps == 18


@pytest.mark.parametrize("batch_size", [16, 20])  # six batches, and four with a last group of one
def test_accumulated_gradients_equal_those_of_a_large_batch(batch_size: int) -> None:
    """Without dropout, N accumulated batches are one batch N times as large."""
    model = nn.Linear(5, 2)
    whole = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = loop_over(model, optimizer, batch_size, epochs=1, accumulate=3)
    seen: list[tuple[Tensor, Tensor]] = []
    for inputs, labels in loop:
        seen.append((inputs, labels))
        loop.step(F.cross_entropy(loop.model(inputs), labels))
    for start in range(0, len(seen), 3):
        group = seen[start : start + 3]
        inputs, labels = (torch.cat(parts) for parts in zip(*group, strict=True))
        whole.zero_grad()
        F.cross_entropy(whole(inputs), labels).backward()
        with torch.no_grad():
            for parameter in whole.parameters():
                parameter -= 0.1 * parameter.grad
    torch.testing.assert_close(model.weight, whole.weight, rtol=0, atol=1e-6)


def test_clipping_bounds_the_step() -> None:
    model = nn.Linear(5, 2)
    before = copy.deepcopy(model)
    loop = loop_over(model, torch.optim.SGD(model.parameters(), lr=1.0), 96, epochs=1, clip=0.01)
    for inputs, labels in loop:
        loop.step(100 * F.cross_entropy(loop.model(inputs), labels))
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before.parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "auto"])
def test_half_precision_learns_and_gives_the_loss_in_float32(precision: str) -> None:
    model = network()
    loop = loop_over(model, torch.optim.AdamW(model.parameters(), lr=0.01), epochs=10, precision=precision)
    for inputs, labels in loop:
        logits = loop.model(inputs)
        assert logits.dtype == torch.float32
        loop.step(F.cross_entropy(logits, labels))
    assert loop.history[-1]["loss"] < 0.6 * loop.history[0]["loss"]
    assert next(model.parameters()).dtype == torch.float32


def test_a_loss_that_is_not_finite_stops_with_its_place() -> None:
    model = network()
    loop = loop_over(model, torch.optim.SGD(model.parameters(), lr=0.5), epochs=2)
    place = (
        r"loss became nan in epoch 1, batch 3, at learning rate 0\.5, with values from -[\d.]+ to [\d.]+ in the batch"
    )
    with pytest.raises(FloatingPointError, match=place):  # noqa: PT012
        for number, (inputs, labels) in enumerate(loop):
            loss = F.cross_entropy(loop.model(inputs), labels)
            loop.step(loss * float("nan") if number == 2 else loss)


def test_a_forgotten_step_is_an_error() -> None:
    model = network()
    loop = loop_over(model, torch.optim.SGD(model.parameters(), lr=0.5), epochs=1)
    with pytest.raises(RuntimeError, match=r"one loop\.step"):
        for _ in loop:
            pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "option precision: expected one of"),
        ({"accumulate": 0}, "option accumulate: expected a whole number of at least 1"),
        ({"clip": 0.0}, "option clip: expected a number above 0"),
        ({"clip": float("nan")}, "option clip: expected a number above 0"),
        ({"shard": True}, "option shard: expected a run under torchrun"),
        ({"sync_batch_norm": True}, "option sync_batch_norm: expected GPUs, which torch has it for, got cpu"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(network(), **options)


def test_synchronized_batch_norm_keeps_the_parameters_and_the_answers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Sequential(nn.ReLU(), nn.BatchNorm1d(6))).eval()
    parameters, inputs = list(model.parameters()), torch.randn(5, 4)
    before = model(inputs)
    synchronize_batch_norm(model)
    assert [type(layer) for layer in (model[1], model[2][1])] == [nn.SyncBatchNorm] * 2
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(model(inputs), before)


def test_steps_in_place_of_epochs() -> None:
    """Eight steps of six an epoch: the second epoch breaks off, the schedule ends with it, and both are evaluated."""
    loop = train(network(), steps=8, evaluate=lambda: {"accuracy": 0.5})
    assert loop.steps == 8
    assert [row["epoch"] for row in loop.history] == [1, 2]
    assert loop.lr == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"data": "mine", "epochs": 3}, "18 steps on own data are few"),
        ({"data": "mine", "epochs": 30}, ""),
        ({"data": "mine", "steps": 5}, ""),  # as asked for
        ({"epochs": 3}, ""),
    ],
)
def test_few_steps_on_own_data_are_told(given: Any, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    tell.cache_clear()
    model = network()
    loop_over(model, torch.optim.SGD(model.parameters(), lr=0.1), **given)
    told_now = capsys.readouterr().err
    assert told in told_now
    assert bool(told) == bool(told_now)


def test_an_optimizer_whose_state_was_made_before_the_model_moved() -> None:
    model = network()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    loop = loop_over(model.to(torch.float64), optimizer)
    assert all(one["sum"].device == loop.device for one in optimizer.state.values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    model = network()
    loop = loop_over(model, torch.optim.SGD(model.parameters(), lr=0.5), epochs=1, checkpoint=str(tmp_path))
    with pytest.raises(FloatingPointError, match=r"the weight 0\.weight is not finite"):  # noqa: PT012
        for inputs, labels in loop:
            loop.step(F.cross_entropy(loop.model(inputs), labels))
            with torch.no_grad():
                model[0].weight[0, 0] = torch.nan if loop.steps == 6 else 0.0  # by the last step alone
    assert not list(tmp_path.iterdir())


class WithExtras(nn.Module):
    """What ordinary networks have beside weights that learn: one that is unused, a tied one, a mask, extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.frozen = nn.Linear(5, 2), nn.Linear(5, 2), nn.Linear(5, 2).requires_grad_(False)
        self.tied = self.used
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.used(inputs) + self.frozen(inputs)

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 1}


@pytest.mark.parametrize("made", [torch.optim.AdamW, torch.optim.Rprop, torch.optim.Adagrad])
def test_resumed_with_weights_that_have_no_gradient(tmp_path: Path, made: Any) -> None:
    def go(folder: Path | None, epochs: int) -> tuple[nn.Module, Loop]:
        torch.manual_seed(3)
        model = WithExtras()
        loop = loop_over(model, made(model.parameters(), lr=0.01), epochs=epochs, checkpoint=folder)
        for inputs, labels in loop:
            loop.step(F.cross_entropy(loop.model(inputs), labels))
        return model, loop

    (whole, known), _, (resumed, loop) = go(None, 4), go(tmp_path, 2), go(tmp_path, 4)
    pairs = zip(whole.parameters(), resumed.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert len(loop.optimizer.state) == len(known.optimizer.state)


def test_resumed_with_other_samples(tmp_path: Path) -> None:
    train(network(), checkpoint=tmp_path)
    fewer = batches(Points(48), Options(batch_size=16))
    with pytest.raises(InputError, match=r"other options \(48 samples instead of 96\)"):
        train(network(), checkpoint=tmp_path, loader=fewer)


@pytest.mark.parametrize("changed", [{"clip": 1.0}, {"accumulate": 2}, {"batch_size": 8}, {"epochs": 2}])
def test_resumed_with_other_options(tmp_path: Path, changed: dict[str, Any]) -> None:
    """An option that differs is named and refused, or taken where the user says so."""
    train(network(), checkpoint=str(tmp_path))
    name = next(iter(changed))
    with pytest.raises(InputError, match=rf"was started with other options \({name} "):
        train(network(), **{"checkpoint": str(tmp_path)} | changed)
    train(network(), **{"checkpoint": str(tmp_path), "override": True} | changed)


def test_an_option_that_is_overridden_counts(tmp_path: Path) -> None:
    """The learning rate and the optimizer's settings are this run's, and not the file's."""

    def go(lr: float, **given: Any) -> list[float]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=lr)
        loop = loop_over(model, optimizer, lr=lr, checkpoint=str(tmp_path), schedule=one_cycle, **given)
        seen = []
        for inputs, labels in loop:
            seen.append(loop.lr)
            loop.step(F.cross_entropy(loop.model(inputs), labels))
        assert optimizer.param_groups[0]["momentum"] == lr
        return seen

    go(0.1, epochs=1)
    assert go(0.2, epochs=2, override=True) == [0.2 * one_cycle(step / 12) for step in range(6, 12)]


def replaced(value: Any, where: list[Any], new: Any) -> Any:
    """A nested value with something else at one place."""
    if not where:
        return new
    changed = list(value) if isinstance(value, tuple) else copy.copy(value)
    changed[where[0]] = replaced(value[where[0]], where[1:], new)
    return type(value)(changed)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (["options"], None),
        (["options", "seed"], torch.zeros(2, 2)),
        (["model", "0.weight"], torch.zeros(3)),
        (["model", "0.weight"], torch.full((16, 5), torch.nan)),
        (["optimizer", "state"], None),
        (["optimizer", "state", "0.weight", "exp_avg"], torch.zeros(3)),
        (["optimizer", "state", "0.weight", "exp_avg"], None),
        (["optimizer", "state", "0.weight", "exp_avg_sq"], torch.full((16, 5), torch.inf)),
        (["optimizer", "state", "0.weight", "step"], torch.zeros(4)),
        (["place"], (1, 2)),
        (["place", 0], 10**9),
        (["place", 1], -1),
        (["place", 3], torch.nan),
        (["history"], []),
        (["history", 0, "loss"], "low"),
        (["random"], [torch.zeros(3)]),
        (["epoch_random"], {}),
    ],
)
def test_a_damaged_checkpoint_of_tensors_alone(tmp_path: Path, where: list[Any], value: Any) -> None:
    train(network(), checkpoint=str(tmp_path), steps=9, save_every=4)
    file = tmp_path / "model.pt"
    torch.save(replaced(torch.load(file, weights_only=True), where, value), file)
    with pytest.raises(InputError, match=r"model\.pt: expected a checkpoint of this training") as caught:
        train(network(), checkpoint=str(tmp_path), steps=12, save_every=4)
    assert str(caught.value).isprintable()


def test_what_a_killed_save_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".model.999999999.pt").write_bytes(b"half")
    (tmp_path / f".model.{os.getppid()}.pt").write_bytes(b"of one that still runs")
    train(network(), epochs=1, checkpoint=str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", f".model.{os.getppid()}.pt"}


def test_too_few_samples_for_a_batch_still_train() -> None:
    loop = train(network(), batch_size=500)
    assert loop.steps == 3


@pytest.mark.parametrize("save_every", [None, 4])
def test_a_finished_training_is_not_trained_again(tmp_path: Path, save_every: int | None) -> None:
    first = network()
    train(first, checkpoint=tmp_path, save_every=save_every)
    second = network()
    loop = train(second, checkpoint=tmp_path)
    assert equal(first, second)
    assert len(loop.history) == 3


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "momentum"])
@pytest.mark.parametrize("stop", [1, 5, 6, 7, 11, 17])
def test_interrupted_and_resumed_to_the_bit(tmp_path: Path, stop: int, optimizer: str) -> None:
    """Six steps an epoch: in the middle of one, at its end, just after it."""

    def go(model: nn.Module, folder: Path | None, stop: int | None = None) -> Loop:
        torch.manual_seed(7)
        parameters = model.parameters()
        chosen = (
            torch.optim.AdamW(parameters, lr=0.01)
            if optimizer == "AdamW"
            else torch.optim.SGD(parameters, lr=0.1, momentum=0.9 if optimizer == "momentum" else 0.0)
        )
        loop = loop_over(model, chosen, epochs=3, schedule=one_cycle, checkpoint=folder, save_every=1)
        for inputs, labels in loop:
            if loop.steps == stop:
                raise Interrupted
            loop.step(F.cross_entropy(loop.model(inputs), labels))
        return loop

    whole = network()
    history = go(whole, None).history
    with pytest.raises(Interrupted):
        go(network(), tmp_path, stop)
    torch.manual_seed(123)  # a new process knows nothing of the old random state
    resumed = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    loop = go(resumed, tmp_path)
    assert equal(whole, resumed)
    assert [row["loss"] for row in loop.history] == [row["loss"] for row in history]


KILLED = """
import sys, time, torch
sys.path[:0] = [{root!r}]
torch.set_num_threads(1)
from tests.core.test_loop import network, train
import recipes.core.loop
inner = recipes.core.loop.Loop.step
def slow(self, loss):
    inner(self, loss)
    print(self.steps, flush=True)
    time.sleep(0.005)
recipes.core.loop.Loop.step = slow
model = network()
train(model, epochs=5, checkpoint={folder!r}, save_every=1)
torch.save(model.state_dict(), {folder!r} + "/end.pt")
"""


def kill_and_resume(folder: Path, kills: list[int]) -> nn.Module:
    """Kills the training at these steps, one process after the other, and lets the last one finish."""
    script = KILLED.format(root=str(Path(__file__).parents[2]), folder=str(folder))
    for kill in [*kills, None]:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if kill is not None and int(line) >= kill:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
    assert process.returncode == 0
    model = network()
    model.load_state_dict(torch.load(folder / "end.pt", weights_only=True))
    return model


@pytest.mark.slow
def test_killed_five_times_and_resumed_to_the_bit(tmp_path: Path) -> None:
    whole = network()
    train(whole, epochs=5)
    assert equal(whole, kill_and_resume(tmp_path, [3, 9, 14, 20, 27]))


@pytest.mark.rare
@pytest.mark.parametrize("turn", range(4))
def test_killed_twenty_times_and_resumed_to_the_bit(tmp_path: Path, turn: int) -> None:
    steps = torch.randint(1, 30, (5,), generator=torch.Generator().manual_seed(turn)).sort().values.tolist()
    whole = network()
    train(whole, epochs=5)
    assert equal(whole, kill_and_resume(tmp_path, steps))


class Counting(Points):
    """Notes what is read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        self.read += indices
        return super().__getitems__(indices)


@pytest.mark.parametrize("workers", [None, 0, 2])  # ours, and torchdata's StatefulDataLoader
def test_a_resumed_epoch_reads_only_what_is_left_of_it(tmp_path: Path, workers: int | None) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader") if workers is not None else None

    def go(model: nn.Module, points: Counting, folder: Path | None, stop: int | None = None) -> None:
        torch.manual_seed(7)
        loader: Any = batches(points, Options(batch_size=16))
        if stateful is not None:
            given = {"batch_size": 16, "shuffle": True, "num_workers": workers, "collate_fn": as_is}
            loader = stateful.StatefulDataLoader(points, **given)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        loop = loop_over(model, optimizer, loader=loader, epochs=3, checkpoint=folder, save_every=1)
        for inputs, labels in loop:
            if loop.steps == stop:
                raise Interrupted
            loop.step(F.cross_entropy(loop.model(inputs), labels))

    whole, resumed, points = network(), network(), Counting()
    go(whole, Counting(), None)
    with pytest.raises(Interrupted):
        go(network(), Counting(), tmp_path, 10)  # the fifth of six batches of the second epoch is under way
    torch.manual_seed(99)
    go(resumed, points, tmp_path)
    assert equal(whole, resumed)
    if not workers:  # theirs read elsewhere
        assert len(points.read) == 2 * 16 + 96


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("stop", [3, 6])  # in the middle of an epoch, and at its end
@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_waits_for_the_step_and_saves(tmp_path: Path, stop: int, saved: bool, sent: int) -> None:
    """Ctrl-C or SIGTERM once: the step is finished and saved, and the same training resumes from there."""

    def go(model: nn.Module, folder: Path | None, stop: int | None = None) -> Loop:
        torch.manual_seed(7)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        loop = loop_over(model, optimizer, epochs=3, schedule=one_cycle, checkpoint=folder)
        for inputs, labels in loop:
            if loop.steps + 1 == stop:
                signal.raise_signal(sent)
            loop.step(F.cross_entropy(loop.model(inputs), labels))
        return loop

    handler = signal.getsignal(sent)
    whole, resumed = network(), network()
    go(whole, None)
    folder = tmp_path if saved else None
    told = f"stopped after step {stop}, " + ("saved; the same command" if saved else "no checkpoint was asked for")
    with pytest.raises(KeyboardInterrupt, match=told):
        go(network(), folder, stop)
    assert signal.getsignal(sent) is handler
    if saved:
        go(resumed, folder)
        assert equal(whole, resumed)


def test_a_second_interrupt_ends_the_run_at_once() -> None:
    model = network()
    loop = loop_over(model, torch.optim.SGD(model.parameters(), lr=0.5), epochs=1)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for _ in loop:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second one was not heard")


FULL = """
import resource, sys, torch
sys.path[:0] = [{root!r}]
from tests.core.test_loop import network, train
train(network(), epochs=1, checkpoint={folder!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
train(network(), epochs=2, checkpoint={folder!r})
"""


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    script = FULL.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "InputError" in done.stderr
    assert "model.pt: could not be written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    assert (
        train(network(), epochs=1, checkpoint=tmp_path).steps == 6
    )  # it holds the first epoch, and nothing is left to do


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"model\.pt: could not be written"):
        train(network(), checkpoint=tmp_path / "file" / "folder")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pt: expected a checkpoint of this training \(cut or damaged: .*anew"):
        train(network(), checkpoint=tmp_path)
    assert (tmp_path / "model.pt").read_bytes() == content


def test_a_checkpoint_that_is_cut(tmp_path: Path) -> None:
    train(network(), checkpoint=tmp_path)
    whole = (tmp_path / "model.pt").read_bytes()
    for size in (len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.pt").write_bytes(whole[:size])
        with pytest.raises(InputError, match="cut or damaged: without it the training starts anew"):
            train(network(), checkpoint=tmp_path)


class Evil:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch " + str(Path(os.environ["PYTEST_EVIL"])),))


def test_a_pickle_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "ran"
    monkeypatch.setenv("PYTEST_EVIL", str(trace))
    torch.save({"model": Evil()}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="expected a checkpoint of this training"):
        train(network(), checkpoint=tmp_path)
    assert not trace.exists()


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    train(nn.Sequential(nn.Linear(5, 2)), checkpoint=tmp_path)
    with pytest.raises(InputError, match="expected a checkpoint of this training"):
        train(network(), checkpoint=tmp_path)


DISTRIBUTED = """
import json, os, sys, torch
sys.path[:0] = [{root!r}]
torch.set_num_threads(1)
from tests.core.test_loop import Points, loop_over
from torch import nn
from torch.nn import functional as F
from recipes.core.device import rank_and_world, setup
from recipes.core.evaluation import predict
from recipes.core.loop import Loop, one_cycle
device = setup("cpu", 0)
model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout({dropout}), nn.Linear(16, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
loop = loop_over(model, optimizer, epochs=3, schedule=one_cycle, **{options!r})
for inputs, labels in loop:
    if loop.steps == {stop}:
        os._exit({code})
    loop.step(F.cross_entropy(loop.model(inputs), labels))
outputs = torch.stack(predict(model, Points(97), device, batch_size=10))
weights = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
if rank_and_world()[0] == 0:
    json.dump({{"weights": [p.tolist() for p in weights], "outputs": outputs.tolist(),
               "loss": [row["loss"] for row in loop.history]}}, open({out!r}, "w"))
"""


def run_processes(folder: Path, count: int, options: dict, stop: int | None = None, dropout: float = 0.0) -> dict:
    out = folder / f"{count}.json"
    script = folder / "train.py"
    script.write_text(
        DISTRIBUTED.format(
            root=str(Path(__file__).parents[2]), options=options, out=str(out), stop=stop, code=0, dropout=dropout
        )
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return {} if stop else json.loads(out.read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What one process that is not stopped ends with."""
    return run_processes(tmp_path_factory.mktemp("whole"), 1, {})


@pytest.mark.parametrize(
    "options",
    [{}, *(pytest.param(one, marks=pytest.mark.slow) for one in ({"shard": True}, {"accumulate": 2}))],
    ids=str,
)
def test_two_processes_train_as_one(tmp_path: Path, whole: dict, options: dict) -> None:
    one = run_processes(tmp_path, 1, options) if "accumulate" in options else whole
    two = run_processes(tmp_path, 2, options)
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-6)
    for mine, theirs in zip(one["weights"], two["weights"], strict=True):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.tensor(one["outputs"]), torch.tensor(two["outputs"]), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("order", [(2, 1), (1, 2)], ids=["two then one", "one then two"])
def test_goes_on_with_another_number_of_processes(tmp_path: Path, whole: dict, order: tuple[int, int]) -> None:
    """Killed after step 8 of 18, in the second epoch; two processes hold the model in shards."""
    folder = str(tmp_path / "training")
    for count, stop in zip(order, (8, None), strict=True):
        ended = run_processes(tmp_path, count, {"checkpoint": folder, "save_every": 1, "shard": count > 1}, stop)
    assert ended["loss"] == pytest.approx(whole["loss"], abs=1e-6)
    for mine, theirs in zip(ended["weights"], whole["weights"], strict=True):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_each_process_goes_on_with_its_own_random_state(tmp_path: Path) -> None:
    """Killed in the middle of the second epoch: dropout goes on to the bit, and is not the same in both processes."""
    whole = run_processes(tmp_path, 2, {}, dropout=0.5)
    options = {"checkpoint": str(tmp_path / "training"), "save_every": 1}
    run_processes(tmp_path, 2, options, 8, dropout=0.5)
    one, other = torch.load(tmp_path / "training" / "model.pt", weights_only=True)["random"]
    assert not torch.equal(one[0], other[0])
    assert run_processes(tmp_path, 2, options, dropout=0.5) == whole


def test_a_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    root = str(Path(__file__).parents[2])
    script.write_text(DISTRIBUTED.format(root=root, options={}, out="", stop=8, code=3, dropout=0.0))
    script.write_text(script.read_text().replace("loop.steps == 8", "loop.steps == 8 and rank_and_world()[0] == 1"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode != 0
    assert "exitcode  : 3" in done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_learns_on_cuda() -> None:
    model = network()
    loop = loop_over(model, torch.optim.AdamW(model.parameters(), lr=0.01), epochs=10, device="cuda")
    for inputs, labels in loop:
        assert inputs.is_cuda
        loop.step(F.cross_entropy(loop.model(inputs), labels))
    assert loop.history[-1]["loss"] < 0.6 * loop.history[0]["loss"]
