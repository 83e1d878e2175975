"""
``text``: a byte-level transformer that learns Python from the standard library's own source.

The data are wherever Python is, so nothing is downloaded. They change with Python's patch version:
peers whose Python differs have different fingerprints, and the run refuses to mix them.
"""

import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from btard.errors import ConfigError
from btard.identity import Context, digest
from btard.training.tasks.draws import draw_indices
from btard.training.tasks.flat import FlatModule
from btard.training.tasks.task import Evaluation, Minibatch

# Files that every Python from 3.11 on has under these names; about 1.7 MB.
FILES = (
    "argparse.py", "ast.py", "asyncio/base_events.py", "asyncio/events.py", "asyncio/streams.py", "asyncio/tasks.py",
    "base64.py", "bdb.py", "calendar.py", "cmd.py", "codecs.py", "collections/__init__.py", "configparser.py",
    "contextlib.py", "copy.py", "csv.py", "dataclasses.py", "difflib.py", "dis.py", "doctest.py", "email/message.py",
    "email/utils.py", "enum.py", "filecmp.py", "fractions.py", "ftplib.py", "functools.py", "gettext.py", "glob.py",
    "gzip.py", "heapq.py", "hmac.py", "http/client.py", "http/cookies.py", "imaplib.py", "inspect.py", "ipaddress.py",
    "json/decoder.py", "json/encoder.py", "locale.py", "logging/__init__.py", "logging/handlers.py", "mailbox.py",
    "mimetypes.py", "optparse.py", "pdb.py", "pickle.py", "pickletools.py", "platform.py", "plistlib.py", "poplib.py",
    "pprint.py", "queue.py", "random.py", "sched.py", "selectors.py", "shelve.py", "shlex.py", "shutil.py",
    "smtplib.py", "socket.py", "socketserver.py", "ssl.py", "statistics.py", "string.py", "subprocess.py", "tarfile.py",
    "tempfile.py", "textwrap.py", "threading.py", "timeit.py", "tokenize.py", "trace.py", "traceback.py", "types.py",
    "typing.py", "unittest/case.py", "unittest/mock.py", "urllib/parse.py", "urllib/request.py", "uuid.py",
    "warnings.py", "wave.py", "weakref.py", "webbrowser.py", "xmlrpc/client.py", "zipapp.py",
)  # fmt: skip
MAX_CORPUS = 2 * 1024 * 1024
HOLDOUT_EVERY = 10  # files: whole ones, so that no window of the hold-out overlaps a training window
HOLDOUT_WINDOWS = 64


class Shape(NamedTuple):
    """The size of a transformer; windows are ``context`` bytes long."""

    width: int
    layers: int
    heads: int
    context: int


SIZES = {
    "tiny": Shape(width=64, layers=2, heads=4, context=64),  # 0.12 million parameters
    "small": Shape(width=128, layers=2, heads=4, context=64),  # 0.44 million
    "large": Shape(width=384, layers=6, heads=6, context=128),  # 10.8 million
}


class TextTask:
    """Next-byte prediction on the standard library, cross entropy in nats per byte.

    Raises:
        ConfigError: an option is out of range, or this Python came without its sources.
    """

    name = "text"

    def __init__(self, size: str = "small", batch_size: int = 8) -> None:
        if size not in SIZES:
            raise ConfigError(f"text: size must be one of {', '.join(SIZES)}, not {size!r}")
        if not 1 <= batch_size <= 4096:
            raise ConfigError(f"text: batch_size must lie between 1 and 4096, not {batch_size}")
        self.batch_size = batch_size
        self._size, self._shape = size, SIZES[size]
        files = read_sources(Path(sysconfig.get_path("stdlib")))
        self._train = _join(file for i, file in enumerate(files) if i % HOLDOUT_EVERY)
        self._holdout = _join(files[::HOLDOUT_EVERY])
        # Below sqrt(2): the embedding is also the output matrix, whose logits should start near zero.
        self._model = FlatModule(lambda: Transformer(self._shape), gain=0.5)
        self.elements, self.segments = self._model.elements, self._model.segments

    def initial_parameters(self, seed: bytes) -> Tensor:
        """Return x_0, shape (D,)."""
        return self._model.initial_parameters(seed)

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        """Return the mean gradient over the windows of the training files that ``seed`` draws."""
        inputs, loss = self.minibatch(seed)
        return self._model.gradient(parameters, *inputs, loss=loss)

    def module(self, parameters: Tensor) -> nn.Module:
        """Return the transformer at ``parameters``."""
        return self._model.materialise(parameters)

    def minibatch(self, seed: bytes) -> Minibatch:
        """Return ``batch_size`` windows of the training files, drawn by ``seed``, and their bytes' cross entropy."""
        starts = draw_indices(seed, self.batch_size, len(self._train) - self._shape.context)
        inputs, targets = _cut(self._train, starts, self._shape.context)
        return Minibatch((inputs,), lambda logits: functional.cross_entropy(logits.flatten(0, 1), targets.flatten()))

    def evaluate(self, parameters: Tensor) -> Evaluation:
        """Return cross entropy and next-byte accuracy on 64 evenly spaced windows of the held-out files."""
        last = len(self._holdout) - self._shape.context - 1
        starts = torch.arange(HOLDOUT_WINDOWS) * last // HOLDOUT_WINDOWS
        inputs, targets = _cut(self._holdout, starts, self._shape.context)
        logits = self._model.apply(parameters, inputs)
        accuracy = (logits.argmax(dim=2) == targets).float().mean().item()
        return Evaluation(functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item(), accuracy)

    def fingerprint(self) -> bytes:
        """Return the digest of the files' contents, the size and the batch size."""
        corpora = (self._train.numpy().tobytes(), self._holdout.numpy().tobytes())
        return digest(Context.DATASET, b"text 1", self._size.encode(), self.batch_size.to_bytes(4, "little"), *corpora)


def read_sources(root: Path) -> list[bytes]:
    """Return the contents of ``FILES`` under ``root``, in that order, 2 MiB in all at most.

    Raises:
        ConfigError: a file cannot be read.
    """
    contents, room = [], MAX_CORPUS
    for name in FILES:
        try:
            content = (root / name).read_bytes()[:room]
        except OSError as error:
            raise ConfigError(f"the task text needs Python's own source, and {root / name} is missing") from error
        contents.append(content)
        room -= len(content)
    return contents


class Block(nn.Module):
    """Causal self-attention and a perceptron, each behind a layer norm and around a residual path."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.before_attention = nn.LayerNorm(shape.width)
        self.project_in = nn.Linear(shape.width, 3 * shape.width)
        self.project_out = nn.Linear(shape.width, shape.width)
        self.before_perceptron = nn.LayerNorm(shape.width)
        self.expand = nn.Linear(shape.width, 4 * shape.width)
        self.contract = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; both have shape (batch, context, width)."""
        x = x + self.attend(self.before_attention(x))
        hidden: Tensor = self.contract(functional.gelu(self.expand(self.before_perceptron(x))))
        return x + hidden

    def attend(self, x: Tensor) -> Tensor:
        """Return the attention over earlier positions and the own one."""
        batch, context, width = x.shape
        heads = self.project_in(x).view(batch, context, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        projected: Tensor = self.project_out(mixed.transpose(1, 2).reshape(batch, context, width))
        return projected


class Transformer(nn.Module):
    """Bytes to logits over the next byte; the embedding serves as output matrix too."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, shape.width)
        self.position = nn.Parameter(torch.empty(shape.context, shape.width))
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.final = nn.LayerNorm(shape.width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, shape (batch, context, 256), for bytes of shape (batch, context)."""
        x = self.embedding(inputs) + self.position
        return functional.linear(self.final(self.blocks(x)), self.embedding.weight)


def _join(files: Iterable[bytes]) -> Tensor:
    return torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8)


def _cut(corpus: Tensor, starts: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets, both (windows, context), int64: each target is the byte after its input."""
    windows = corpus[starts[:, None] + torch.arange(context + 1)].long()
    return windows[:, :-1], windows[:, 1:]
