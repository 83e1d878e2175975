"""``evaluate``: how good is a checkpoint?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from btard.cli.files import read_run_file
from btard.errors import ConfigError


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A file in DATA_DIR/checkpoints, or that directory: its newest.")],
    run_file: Annotated[Path | None, typer.Option(help="The run's file. [as kept in the checkpoint]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """
    Report loss and accuracy of a checkpoint on data that no gradient has seen.

    For example:

        btard-peer evaluate me/checkpoints
        btard-peer evaluate round-000100.safetensors --json
    """
    from btard.rules.config import parse_run_file
    from btard.training import RUN_FILE_KEY, load_checkpoint, load_workload, newest_checkpoint

    path = newest_checkpoint(checkpoint) if checkpoint.is_dir() else checkpoint
    if path is None:
        raise ConfigError(f"there is no checkpoint in {checkpoint}; name a file round-NNNNNN.safetensors")
    loaded = load_checkpoint(path)
    kept = loaded.metadata.get(RUN_FILE_KEY)
    if run_file is None and kept is None:
        raise ConfigError(f"{path} does not say which run it belongs to; add --run-file")
    config = read_run_file(run_file) if run_file else parse_run_file(kept or "")
    if loaded.parameters.numel() != config.elements:
        raise ConfigError(
            f"{path} has {loaded.parameters.numel()} parameters, the run {config.elements}; see --run-file"
        )
    loss, accuracy = load_workload(config).evaluate(loaded.parameters)
    if as_json:
        print(json.dumps({"round": loaded.round, "loss": loss, "accuracy": accuracy}))
    else:
        shown = "" if accuracy is None else f", accuracy {100 * accuracy:.2f}%"
        print(f"{path}: round {loaded.round}, loss {loss:.4f}{shown}")
