"""
A torch module as functions of one flat vector.

The vector is cut into views, the module is called on the views, and the gradient comes back as one
vector. What would make two calls differ is taken out here once: thread count, memory alignment,
grad mode, dropout, buffers.
"""

import copy
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from btard.errors import ConfigError
from btard.training.tasks.draws import draw_uniform

# Blocked matrix kernels peel elements up to this boundary, which changes the order of their sums.
ALIGNMENT = 64


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block: splitting a sum among threads changes its last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class FlatModule:
    """The module that ``build`` returns, as functions of a vector of ``elements`` float32 values.

    ``build`` runs on torch's meta device: no memory, no random numbers. The module is used in
    evaluation mode, so dropout is off.

    Raises:
        ConfigError: the module has no parameters, or has buffers, which are state outside the vector.
    """

    def __init__(self, build: Callable[[], nn.Module], gain: float = math.sqrt(2.0)) -> None:
        with torch.device("meta"):
            self._module = build().eval()
        if any(True for _ in self._module.buffers()):
            raise ConfigError("the model has buffers (batch norm?); every peer must see one flat vector of parameters")
        self._shapes = {name: tuple(p.shape) for name, p in self._module.named_parameters()}
        self._gain = gain
        self.segments = tuple(math.prod(shape) for shape in self._shapes.values())
        self.elements = sum(self.segments)
        if not self.elements:
            raise ConfigError("the model has no parameters")
        # A call swaps the module's parameters for the caller's views.
        self._lock = threading.Lock()

    def initial_parameters(self, seed: bytes) -> Tensor:
        """Return x_0, shape (D,): matrices uniform with deviation gain/sqrt(fan_in), other weights 1, biases 0."""
        flat = draw_uniform(seed, self.elements)
        for (name, shape), part in zip(self._shapes.items(), torch.split(flat, list(self.segments)), strict=True):
            if len(shape) >= 2:
                part.mul_(_float32(self._gain * math.sqrt(3.0 / math.prod(shape[1:]))))
            else:
                part.fill_(0.0 if name.endswith("bias") else 1.0)
        return flat

    def apply(self, parameters: Tensor, *inputs: Tensor) -> Tensor:
        """Return the module's output under ``parameters``, shape (D,), without recording a graph."""
        with torch.no_grad(), one_thread():
            return self._call(self._views(parameters), *inputs)

    def materialise(self, parameters: Tensor) -> nn.Module:
        """Return a module of its own memory, its parameters a copy of ``parameters``, shape (D,)."""
        module = copy.deepcopy(self._module).to_empty(device="cpu")
        values = self._views(parameters)
        with torch.no_grad():
            for name, own in module.named_parameters():
                own.copy_(values[name])
        return module

    def gradient(self, parameters: Tensor, *inputs: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the gradient of ``loss(module(*inputs))`` at ``parameters``; both have shape (D,), float32."""
        with torch.enable_grad(), one_thread():
            views = {name: view.requires_grad_() for name, view in self._views(parameters).items()}
            value = loss(self._call(views, *inputs))
            parts = torch.autograd.grad(value, list(views.values()), allow_unused=True, materialize_grads=True)
        return torch.cat([part.reshape(-1) for part in parts])

    def _views(self, parameters: Tensor) -> dict[str, Tensor]:
        """Return the module's parameters by name, as views of ``parameters`` where its memory is aligned."""
        if parameters.shape != (self.elements,) or parameters.dtype != torch.float32:
            raise ValueError(f"parameters must be float32 of shape ({self.elements},), not {tuple(parameters.shape)}")
        flat = parameters.detach().contiguous()
        if flat.data_ptr() % ALIGNMENT:
            flat = flat.clone()
        parts = torch.split(flat, list(self.segments))
        return {
            name: part.view(shape).detach() for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def _call(self, views: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        with self._lock:
            output: Tensor = torch.func.functional_call(self._module, views, inputs)
        return output


def _float32(value: float) -> float:
    """Return ``value`` rounded once to float32."""
    return float(torch.tensor(value, dtype=torch.float32))
