"""
Checkpoints: what the user came for, as safetensors files that are either whole or absent.

A file's metadata hold a digest of everything else in it, so a damaged one is refused, not trained from.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import structlog
import torch
from torch import Tensor

from btard.durable import replacing
from btard.errors import ConfigError
from btard.identity import Context, digest
from btard.swarm.ledger_files import map_file
from btard.swarm.restoring import StoredState
from btard.training.optimizer import OptimizerState

log = structlog.get_logger(__name__)

PARAMETERS = "parameters"
BUFFER = "optimizer."
HEADER = "btard"  # the one metadata key that is ours
PATTERN = re.compile(r"round-(\d{6,18})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Everything to go on from: ``parameters`` x, shape (D,), as ``round`` begins, and the optimizer's state."""

    round: int
    parameters: Tensor
    state: OptimizerState
    metadata: Mapping[str, str]


def save_checkpoint(
    directory: Path,
    round: int,  # noqa: A002 - the word of the protocol
    parameters: Tensor,
    state: OptimizerState,
    metadata: Mapping[str, str],
    keep: int = 3,
) -> Path:
    """Write ``directory/round-NNNNNN.safetensors`` and return its path; older ones than the newest ``keep`` go.

    The file is on the disk when this returns, and under its name only when whole.

    Raises:
        ConfigError: the directory cannot be written, or the metadata use the key ``btard``.
    """
    if HEADER in metadata:
        raise ConfigError(f"checkpoint metadata may not use the key {HEADER!r}")
    tensors = {PARAMETERS: parameters} | {BUFFER + name: buffer for name, buffer in state.buffers.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"round": round, "step": state.step, "digest": _compute_digest(round, state.step, tensors, metadata)}
    path = directory / f"round-{round:06d}.safetensors"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            safetensors.torch.save_file(tensors, partial, metadata={**metadata, HEADER: json.dumps(header)})
        for old in _list_checkpoints(directory)[: -max(1, keep)]:
            old.unlink(missing_ok=True)
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"cannot write {path}: {error}; free space or choose another data directory") from error
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the content of ``path``, verified against its own digest.

    Raises:
        ConfigError: there is no such file, it is damaged, or it is not a checkpoint of btard.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        header = json.loads(metadata.pop(HEADER))
        at, step, expected = int(header["round"]), int(header["step"]), header["digest"]
        found = _compute_digest(at, step, tensors, metadata)
        parameters = tensors.pop(PARAMETERS)
    except OSError as error:
        raise ConfigError(f"cannot read the checkpoint {path}: {error}") from error
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path} is damaged or not a checkpoint of btard ({error}); use an older one") from error
    if found != expected:
        raise ConfigError(f"{path} is damaged: its content does not match its digest; use an older one")
    buffers = {name.removeprefix(BUFFER): tensor for name, tensor in tensors.items()}
    return Checkpoint(at, parameters, OptimizerState(step, buffers), metadata)


def newest_checkpoint(directory: Path) -> Path | None:
    """Return the checkpoint of the latest round in ``directory``, or ``None``; it is not opened."""
    found = _list_checkpoints(directory)
    return found[-1] if found else None


@dataclass(frozen=True)
class CheckpointSnapshots:
    """The checkpoints in a directory, as the swarm asks for them after a restart."""

    directory: Path

    def rounds(self) -> tuple[int, ...]:
        """Return after how many rounds there is a checkpoint, oldest first."""
        return tuple(int(match[1]) for path in _list_checkpoints(self.directory) if (match := _match(path)))

    def load(self, finished: int) -> tuple[Tensor, OptimizerState] | None:
        """Return parameters and the optimizer's state after so many rounds; ``None`` if the file is damaged."""
        try:
            checkpoint = load_checkpoint(self.directory / f"round-{finished:06d}.safetensors")
        except ConfigError as error:
            log.warning("a checkpoint is not used", reason=str(error))
            return None
        return checkpoint.parameters, checkpoint.state

    def map(self, finished: int) -> StoredState | None:
        """Return what the file of so many rounds holds, unread and unchecked; ``None`` if there is no such file."""
        return map_checkpoint(self.directory / f"round-{finished:06d}.safetensors")


def map_checkpoint(path: Path) -> StoredState | None:
    """Return the content of ``path`` without reading it; ``None`` if it is not a checkpoint of btard.

    A safetensors file is eight bytes of length, a JSON header with every tensor's place, and the tensors.
    """
    mapped = map_file(path)
    if mapped is None:
        return None
    try:
        start = 8 + int.from_bytes(mapped[:8], "little")
        header = json.loads(bytes(mapped[8:start]))
        step = int(json.loads(header.pop("__metadata__")[HEADER])["step"])
        tensors = {name: _slice(mapped[start:], entry) for name, entry in header.items()}
        parameters = tensors.pop(PARAMETERS)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.warning("a checkpoint is not used", reason=f"{path} is damaged ({error!r})")
        return None
    return StoredState(step, parameters, {name.removeprefix(BUFFER): view for name, view in tensors.items()})


def _slice(tensors: memoryview, entry: Mapping[str, object]) -> memoryview:
    match entry:
        case {"dtype": "F32", "data_offsets": [int(begin), int(end)]} if 0 <= begin <= end <= len(tensors):
            return tensors[begin:end]
        case _:
            raise ValueError(f"{entry} is no float32 tensor")


def _match(path: Path) -> re.Match[str] | None:
    return PATTERN.fullmatch(path.name)


def _list_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in ``directory``, oldest round first; other files do not count."""
    if not directory.is_dir():
        return []
    rounds = {int(match[1]): path for path in directory.iterdir() if (match := _match(path))}
    return [path for _, path in sorted(rounds.items())]


def _compute_digest(at: int, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the digest, in hex, of every tensor's name, type, shape and bytes, and of everything else."""
    described = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in sorted(tensors.items())]
    words = json.dumps([at, step, described, sorted(metadata.items())]).encode()
    contents = (tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for _, tensor in sorted(tensors.items()))
    return digest(Context.CHECKPOINT, words, *contents).hex()
