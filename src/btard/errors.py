"""
What can go wrong, sorted by whose fault it is.

BtardError
├── ConfigError            you asked for something impossible; the message says what to change
├── LocalProtocolError     we were about to break the protocol: a bug in our own code
├── RemoteProtocolError    bytes from a peer are not a valid message; carries the peer, if known
├── NetworkError           nobody's fault
│   ├── Unreachable        no connection could be made
│   ├── ConnectionLost     it broke afterwards
│   └── RequestTimedOut    the answer did not come in time
├── Refused                the other side does not want us: another run, another configuration, too late
├── Banned                 the roster convicted us; carries the cause
├── Removed                the roster went on without us, without blame
├── Undecided              the swarm could not agree within its bounds and stopped
└── InternalError          should not happen; carries what is needed to reproduce it

A false digest, a missing part, two messages for one slot are not exceptions: they are data
whose outcome is a dispute, a removal or a ban.
"""


class BtardError(Exception):
    """Base of everything raised on purpose by btard."""


class ConfigError(BtardError, ValueError):
    """You asked for something impossible; the message says what to change."""


class LocalProtocolError(BtardError):
    """We were about to break the protocol: a bug in our own code."""


class RemoteProtocolError(BtardError):
    """Bytes from a peer are not a valid message.

    ``peer`` is the sender's 32-byte id where the link tells it, else ``None``.
    """

    def __init__(self, reason: str, peer: bytes | None = None) -> None:
        super().__init__(reason)
        self.peer = peer


class NetworkError(BtardError):
    """The network failed; nobody's fault."""


class Unreachable(NetworkError):
    """No connection could be made."""


class ConnectionLost(NetworkError):
    """A connection broke after it was made."""


class RequestTimedOut(NetworkError):
    """The answer did not come in time."""


class Refused(BtardError):
    """The other side does not want us: another run, another configuration, or too late."""


class Banned(BtardError):
    """The roster convicted us."""


class Removed(BtardError):
    """The roster went on without us, without blame."""


class Undecided(BtardError):
    """The swarm could not agree within its bounds and stopped."""


class InternalError(BtardError):
    """A broken invariant of ours; please report it with the message."""
