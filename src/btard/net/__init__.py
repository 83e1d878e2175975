"""Authenticated links between peers, over TCP and in memory, and the hub that a peer uses."""

from btard.net.address import Address, find_block, find_origin, is_loopback
from btard.net.dialling import connect_to_any
from btard.net.handlers import BulkHandler, ControlHandler, Loan, RequestHandler
from btard.net.hub import Hub
from btard.net.link import (
    MAX_BULK,
    MAX_CONTROL,
    MAX_HEADER,
    WINDOW,
    Link,
    Message,
    Sink,
    Target,
    Transport,
    Window,
    refuse_bulk,
)
from btard.net.memory import Delivery, MemoryNetwork, MemoryTransport, deliver_at_once
from btard.net.pace import Pace
from btard.net.requests import AnswerSink
from btard.net.session import Limits
from btard.net.tcp import TcpTransport, open_tcp
from btard.net.terms import Terms, check_terms
from btard.net.traffic import Traffic
from btard.net.turns import hold

__all__ = [
    "MAX_BULK",
    "MAX_CONTROL",
    "MAX_HEADER",
    "WINDOW",
    "Address",
    "AnswerSink",
    "BulkHandler",
    "ControlHandler",
    "Delivery",
    "Hub",
    "Limits",
    "Link",
    "Loan",
    "MemoryNetwork",
    "MemoryTransport",
    "Message",
    "Pace",
    "RequestHandler",
    "Sink",
    "Target",
    "TcpTransport",
    "Terms",
    "Traffic",
    "Transport",
    "Window",
    "check_terms",
    "connect_to_any",
    "deliver_at_once",
    "find_block",
    "find_origin",
    "hold",
    "is_loopback",
    "open_tcp",
    "refuse_bulk",
]
