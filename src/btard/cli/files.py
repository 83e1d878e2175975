"""Reading and writing the files that a command line names; what fails says what to do."""

from pathlib import Path

from btard.durable import write_durably
from btard.errors import ConfigError
from btard.rules.config import RunConfig, format_run_file, parse_run_file


def read_run_file(path: Path) -> RunConfig:
    """Return the configuration in a run file.

    Raises:
        ConfigError: it cannot be read, or is no run file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; make a run file with: btard-peer new") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a run file: it is not text; make one with: btard-peer new") from None
    try:
        return parse_run_file(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def write_run_file(config: RunConfig, path: Path) -> None:
    """Write a configuration; the file is whole or as it was before.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        write_durably(path.resolve(), format_run_file(config).encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; free space or choose another path") from None
