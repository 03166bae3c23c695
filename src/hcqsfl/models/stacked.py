"""Several clients' copies of a module, evaluated and moved at once.

Legend: c clients, b windows of each; every tensor of activations is ``(c, b, ...)``. A module of a known type is
evaluated by one operation over all copies; any other through ``torch.func.vmap``, which is right for whatever treats
each window by itself. What one client's copy computes never touches another's, NaN included.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from hcqsfl.models.half import Half
from hcqsfl.models.learner import Network
from hcqsfl.models.trunks.classical import ClassicalMiddle
from hcqsfl.models.trunks.frame import Trunk
from hcqsfl.quantum.layer import QuantumLayer

Weights = Mapping[str, Tensor]
"""Names of parameters and buffers, as in ``state_dict``, to the copies' values ``(c, ...)``."""

MOVED_BY = (torch.optim.SGD, torch.optim.Adam)
"""Optimisers that move each number by itself, so that a row of weights is moved as its tensors would be."""


class Stack:
    """Copies of one module as the rows of one tensor, each moved by itself.

    Args:
        modules: the copies, of one structure; they are read here and written by ``put_back``.
        make_optimizer: makes what moves a list of parameters; here each is one copy's row.

    Raises:
        ValueError: the optimiser does not move each number by itself.
    """

    def __init__(
        self, modules: Sequence[nn.Module], make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    ) -> None:
        self.modules = list(modules)
        self.structure = self.modules[0]
        moved = [dict(self._moved(module)) for module in self.modules]
        self.names = list(moved[0])
        self.shapes = [parameter.shape for parameter in moved[0].values()]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        fixed = [{k: t for k, t in module.state_dict().items() if k not in moved[0]} for module in self.modules]
        self.fixed = {name: torch.stack([each[name] for each in fixed]) for name in fixed[0]}
        data = torch.stack([_row([p.detach() for p in each.values()]) for each in moved])
        self.rows = [nn.Parameter(row) for row in data]  # each shares its memory with the leaf below
        self.leaf = data.requires_grad_()
        self.optimizer = make_optimizer(list(self.rows)) if self.sizes else None
        if self.optimizer is not None:
            if not isinstance(self.optimizer, MOVED_BY):
                raise ValueError(
                    f"{type(self.optimizer).__name__} cannot move several clients' weights at once; known: SGD, Adam, "
                    "AdamW; or set federation.batched = false"
                )
            for group in self.optimizer.param_groups:
                group["fused"] = True
                if group.get("momentum"):
                    # from nothing, as each alone begins; some rows may begin where others have gone on
                    self.optimizer.state |= {row: {"momentum_buffer": torch.zeros_like(row)} for row in self.rows}

    @staticmethod
    def _moved(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in module.named_parameters() if p.requires_grad]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the copies' outputs ``(c, b, ...)`` of their own inputs ``(c, b, ...)``."""
        return evaluate(self.structure, self.weights(), x)

    def weights(self) -> dict[str, Tensor]:
        """Return what the copies hold, differentiable where it is trained."""
        pieces = self.leaf.split(self.sizes, dim=1) if self.sizes else ()
        moved = {
            name: piece.reshape(-1, *shape) for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)
        }
        return {**moved, **self.fixed}

    def zero_grad(self) -> None:
        """Forget the last gradients."""
        self.leaf.grad = None

    def finite(self) -> list[bool]:
        """Return whose gradient holds neither NaN nor infinity."""
        if self.leaf.grad is None or not self.sizes:
            return [True] * len(self.rows)
        found: list[bool] = self.leaf.grad.sum(1).isfinite().tolist()
        # the sum of large numbers may overflow where none of them has
        return [good or bool(self.leaf.grad[i].isfinite().all()) for i, good in enumerate(found)]

    def pull(self, anchor: Tensor, strength: float) -> None:
        """Add the gradient of a pull towards ``anchor (c, n_weights)``."""
        if self.leaf.grad is not None:
            self.leaf.grad.add_(self.leaf.detach() - anchor, alpha=strength)

    def step(self, who: Sequence[bool]) -> None:
        """Move those copies by their gradients; the others stay, and so do the moments of their optimiser."""
        if self.optimizer is None or self.leaf.grad is None:
            return
        for row, gradient, moves in zip(self.rows, self.leaf.grad, who, strict=True):
            row.grad = gradient if moves else None
        if any(who):
            self.optimizer.step()

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the copies."""
        data = self.leaf.detach()[list(indices)]
        self.rows = [self.rows[i] for i in indices]
        self.modules = [self.modules[i] for i in indices]
        for row, values in zip(self.rows, data, strict=True):
            row.data, row.grad = values, None
        self.leaf = data.requires_grad_()
        self.fixed = {name: tensor[list(indices)] for name, tensor in self.fixed.items()}
        if self.optimizer is not None:
            self.optimizer.param_groups[0]["params"] = list(self.rows)

    @torch.no_grad()
    def put_back(self, i: int) -> None:
        """Write a copy's weights into its module."""
        pieces = self.leaf[i].split(self.sizes) if self.sizes else ()
        for (_, parameter), piece in zip(self._moved(self.modules[i]), pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))

    def read_moments(self, i: int, optimizer: torch.optim.Optimizer) -> None:
        """Go on from what a copy's own optimiser remembers."""
        if self.optimizer is None:
            return
        held = [optimizer.state.get(p, {}) for _, p in self._moved(self.modules[i])]
        state = {}
        for slot in held[0]:
            values = [each[slot] for each in held]
            if values[0] is not None:
                # counts of steps are the same for all tensors of a copy
                state[slot] = values[0].clone() if slot == "step" else _row(values)
        if state:
            self.optimizer.state[self.rows[i]] = state

    def write_moments(self, i: int, optimizer: torch.optim.Optimizer) -> None:
        """Let a copy's own optimiser remember what this one does."""
        if self.optimizer is None:
            return
        for slot, value in self.optimizer.state.get(self.rows[i], {}).items():
            if value is None:
                continue
            pieces = value.split(self.sizes) if slot != "step" else [value] * len(self.sizes)
            for (_, parameter), piece in zip(self._moved(self.modules[i]), pieces, strict=True):
                optimizer.state[parameter][slot] = piece.clone() if slot == "step" else piece.clone().view_as(parameter)


def _row(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors]) if tensors else torch.empty(0)


def evaluate(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    """Return what copies of ``module`` make of ``x (c, b, ...)``: ``(c, b, ...)``.

    Args:
        module: whose structure the copies have; its own weights play no part.
        weights: the copies'.
        x: each copy's input.
    """
    for kind, rule in RULES.items():
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return rule(module, weights, x)
    if not weights:
        found: Tensor = module(x.flatten(0, 1))
        return found.unflatten(0, x.shape[:2])
    return _mapped(module, weights, x)


def _mapped(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    found: Tensor = vmap(lambda w, each: functional_call(module, w, (each,)))(dict(weights), x)
    return found


def below(weights: Weights, name: str) -> dict[str, Tensor]:
    """Return the weights of a child."""
    first = len(name) + 1
    return {key[first:]: tensor for key, tensor in weights.items() if key.startswith(name + ".")}


def _chain(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    for name, child in module.named_children():
        x = evaluate(child, below(weights, name), x)
    return x


def _network(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    return _chain(module, weights, x)  # front, trunk, head: in the order of their definition


def _trunk(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    assert isinstance(module, Trunk)
    angles = module.bound(evaluate(module.project, below(weights, "project"), x))
    middle = evaluate(module.middle, below(weights, "middle"), angles)
    return evaluate(module.widen, below(weights, "widen"), middle)


def _classical_middle(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    assert isinstance(module, ClassicalMiddle)
    return module.updated(x, weights["weights"])


def _linear(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    turned = weights["weight"].transpose(1, 2)
    rows = x.flatten(1, -2)
    out = torch.baddbmm(weights["bias"][:, None], rows, turned) if "bias" in weights else torch.bmm(rows, turned)
    return out.view(*x.shape[:-1], -1)


def _layer_norm(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    assert isinstance(module, nn.LayerNorm)
    plain = F.layer_norm(x, module.normalized_shape, eps=module.eps)
    return _scaled(plain, weights, [1] * (x.dim() - 1 - len(module.normalized_shape)) + list(module.normalized_shape))


def _group_norm(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    assert isinstance(module, nn.GroupNorm)
    plain = F.group_norm(x.flatten(0, 1), module.num_groups, eps=module.eps).view_as(x)
    return _scaled(plain, weights, [1, -1] + [1] * (x.dim() - 3))


def _scaled(x: Tensor, weights: Weights, shape: Sequence[int]) -> Tensor:
    """Scale and shift each copy's normalised features by its own numbers, which stand along ``shape`` behind c."""
    weight, bias = (weights[name].view(len(x), *shape) if name in weights else None for name in ("weight", "bias"))
    if weight is not None and bias is not None:
        return torch.addcmul(bias, x, weight)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _circuit(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    assert isinstance(module, QuantumLayer)
    return (_mapped if module.backend_for(x) == "fused" else _one_by_one)(module, weights, x)


def _one_by_one(module: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    # grouped convolutions are slower than one after the other, and a circuit's own kernel takes one set of weights
    found: list[Tensor | None] = []
    refused: ValueError | None = None
    for i, each in enumerate(x):
        own = {name: tensor[i] for name, tensor in weights.items()}
        try:
            found.append(functional_call(module, own, (each,)))
        except ValueError as error:  # a circuit refuses NaN, which is this client's alone
            found.append(None)
            refused = error
    done = [each for each in found if each is not None]
    if not done:
        assert refused is not None
        raise refused
    return torch.stack([torch.full_like(done[0], math.nan) if each is None else each for each in found])


RULES: dict[type[nn.Module], Callable[[nn.Module, Weights, Tensor], Tensor]] = {
    Network: _network,
    Half: _chain,
    nn.Sequential: _chain,
    Trunk: _trunk,
    ClassicalMiddle: _classical_middle,
    QuantumLayer: _circuit,
    nn.Conv1d: _one_by_one,
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
}


def losses(logits: Tensor, y: Tensor, present: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return each copy's class-weighted mean cross entropy ``(c,)``.

    Args:
        logits: ``(c, b, n_outputs)``.
        y: ``(c, b)`` labels.
        present: ``(c, b)``, 1.0 for a window and 0.0 for what fills a shorter batch up.
        class_weights: ``(n_outputs,)``.
    """
    each = F.cross_entropy(logits.flatten(0, 1), y.flatten(), weight=class_weights, reduction="none").view_as(y)
    counts = present if class_weights is None else present * class_weights[y]
    # where, since what fills a batch up may be NaN for a client that has failed
    total = torch.where(present > 0, each, 0.0).sum(1)
    return total / counts.sum(1).clamp_min(torch.finfo(each.dtype).tiny)


def check_stackable(network: Network) -> None:
    """Refuse a network that clients cannot train as one batch.

    Raises:
        ValueError: it draws at random, or looks at a batch as a whole.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise ValueError(
                f"batched clients cannot draw their dropout as each alone would, but {name} drops {module.p:g}; set "
                "model.front_options.dropout = 0 or federation.batched = false"
            )
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"batched clients fill short batches up, which {name} would take for windows; normalise by group or "
                "set federation.batched = false"
            )
