"""
A leash: a child process that ends when whoever started it is gone, however that ended.

The parent keeps the other end of the child's standard input and writes nothing to it. When the
parent dies, even by ``kill -9``, the system closes the pipe; this works wherever there are pipes.
"""

import os
import signal
import threading

STDIN = 0
OPTION = "--leash"
"""The hidden option of ``join`` that makes it call ``hold_leash``."""


def hold_leash(descriptor: int = STDIN) -> None:
    """Let this process be interrupted, as by Ctrl-C, once nobody holds the other end of ``descriptor``.

    It can be interrupted even if it was started by a shell's background job, in which SIGINT is ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_wait_for_release, args=(descriptor,), name="leash", daemon=True).start()


def _wait_for_release(descriptor: int) -> None:
    # os.read, not sys.stdin: a daemon thread inside a buffered reader breaks the interpreter's shutdown.
    while os.read(descriptor, 1024):
        pass
    os.kill(os.getpid(), signal.SIGINT)
