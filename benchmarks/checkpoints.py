"""A sharded training's checkpoint written by every process, against one gathered and written by the first.

Two processes on this machine's disk: Adam's state of a 12-block Transformer encoder, 38 million parameters, 454 MB.
The whole is held twice by the gathered way; more machines than one, each with a disk or a link, gain more than this.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

from benchmarks.row import Row
from recipes.core.device import rank_and_world
from recipes.core.processes import shard
from recipes.core.shards import save_shards


def worker(folder: Path, rounds: int = 5) -> None:
    """Under torchrun: prints seconds of every round, both ways in turn."""
    dist.init_process_group("gloo")
    layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    model = nn.TransformerEncoder(layer, 12)
    optimizer = torch.optim.AdamW(model.parameters())
    shard(model, optimizer, torch.device("cpu"))
    model(torch.randn(1, 8, 512)).square().mean().backward()
    optimizer.step()
    used, seconds = "", []
    for _ in range(rounds + 1):
        dist.barrier()
        start = time.perf_counter()
        _, used = save_shards(folder / "mine.pt", used, model, optimizer)
        dist.barrier()
        middle = time.perf_counter()
        whole = get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if rank_and_world()[0] == 0:
            with open(folder / "gathered.pt", "wb") as file:
                torch.save(whole, file)
                os.fsync(file.fileno())
        dist.barrier()
        seconds.append((middle - start, time.perf_counter() - middle))
    if rank_and_world()[0] == 0:
        print(json.dumps(seconds[1:]))
    dist.destroy_process_group()


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command += ["-m", "benchmarks.checkpoints", folder]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds = json.loads(done.stdout.splitlines()[-1])
    ratios = [ours / theirs for ours, theirs in seconds]
    remark = f"454 MB, 2 processes, one disk; gathered in {min(theirs for _, theirs in seconds):.1f} s"
    return [Row("checkpoint by every process", "gathered, by the first", ratios, "", remark)]


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
