"""
A leash: a child process that ends when whoever started it is gone, however that ended.

The parent keeps the other end of the child's standard input and writes nothing to it. When the
parent dies, even by ``kill -9``, the system closes the pipe; this works wherever there are pipes. A child
that waits to be let go begins with the first byte that its parent writes.
"""

import os
import signal
import threading

STDIN = 0
OPTION = "--leash"
"""The hidden option of ``join`` that makes it call ``hold_leash``."""
WAIT_OPTION = "--wait-to-be-let-go"
"""The hidden option of ``join`` that makes it wait, with all its programs loaded, before it does anything."""
GO = b"\n"


def hold_leash(descriptor: int = STDIN) -> threading.Event:
    """Let this process be interrupted, as by Ctrl-C, once nobody holds the other end of ``descriptor``.

    It can be interrupted even if it was started by a shell's background job, in which SIGINT is ignored.
    What is returned is set when the first byte comes.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    is_let_go = threading.Event()
    threading.Thread(target=_wait_for_release, args=(descriptor, is_let_go), name="leash", daemon=True).start()
    return is_let_go


def _wait_for_release(descriptor: int, is_let_go: threading.Event) -> None:
    # os.read, not sys.stdin: a daemon thread inside a buffered reader breaks the interpreter's shutdown.
    while os.read(descriptor, 1024):
        is_let_go.set()
    os.kill(os.getpid(), signal.SIGINT)
