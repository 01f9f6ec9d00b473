"""Shards are written beside a checkpoint in turn, hold no code, and are read sharded or not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from recipes.core.errors import InputError
from recipes.core.shards import load_shards, remove_unused, save_shards


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def trained(seed: int, *, sharded: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    if sharded:
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):
        model(torch.randn(6, 5)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    moments = [one for each in optimizer.state.values() for one in each.values()]
    return [getattr(one, "full_tensor", lambda one=one: one)() for one in [*model.state_dict().values(), *moments]]


@pytest.mark.parametrize("sharded", [True, False])
def test_reads_what_was_written(tmp_path: Path, group: None, sharded: bool) -> None:
    file = tmp_path / "training" / "model.pt"
    mine = trained(0, sharded=True)
    rest, used = save_shards(file, "", *mine)
    assert {name for name in rest if name.startswith("model.")} == {
        f"model.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    theirs = trained(1, sharded=sharded)
    load_shards(file, used, rest, *theirs)
    for one, other in zip(state(*theirs), state(*mine), strict=True):
        assert torch.equal(one, other)


def test_what_is_in_use_stays_until_the_next_is_whole(tmp_path: Path, group: None) -> None:
    file = tmp_path / "model.pt"
    _, first = save_shards(file, "", *trained(0, sharded=True))
    rest, second = save_shards(file, first, *trained(1, sharded=True))
    assert len({first, second}) == 2
    assert {path.name for path in tmp_path.glob("model.*")} == {f"model.{first}", f"model.{second}"}
    remove_unused(file, second)
    (folder,) = tmp_path.glob("model.*")
    assert {path.suffix for path in folder.iterdir()} == {".safetensors"}  # nothing that could hold code
    damaged = next(folder.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(ValueError, match="header"):
        load_shards(file, second, rest, *trained(2, sharded=True))
    (tmp_path / f"model.{first}").write_text("in the way")
    with pytest.raises(InputError, match=f"model.{first}: could not be written"):
        save_shards(file, second, *trained(0, sharded=True))
