"""torch.distributed's gloo: ``all_reduce`` of plain bytes over loopback, without encryption and without checks."""

import os

import torch
import torch.distributed

from benchmarks.contestants.gate import Gate, Role, parse_role
from benchmarks.contestants.vectors import Noise


def compete(role: Role, gate: Gate) -> None:
    """Average a vector in place, once a turn."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = f"file://{role.directory}/store"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=store, rank=role.rank, world_size=role.peers)
    gate.meet()
    noise, vector, number = Noise(role.elements, role.seed), torch.empty(role.elements), 0
    while True:
        number += 1
        noise.fill(vector, role.rank + role.peers * number)
        gate.await_turn()
        torch.distributed.all_reduce(vector)
        vector /= role.peers
        gate.end_turn()


if __name__ == "__main__":
    compete(parse_role(), Gate())
