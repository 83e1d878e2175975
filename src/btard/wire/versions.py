"""Which versions of the protocol and of the packages this program speaks and stands on."""

from importlib.metadata import PackageNotFoundError, version

PROTOCOL = 7
"""Version of the messages and of everything that is hashed."""
NOT_INSTALLED = "not installed"


def find_version(package: str) -> str:
    """Return the version of an installed package, in words where there is none; nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED
