"""The model as an attacker at inference meets it: it answers what the attacker has access to, and counts."""

import torch
from torch import Tensor, nn

from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.models.devices import device_of
from hcqsfl.registry import lookup

ACCESS = {"nothing": 0, "decisions": 1, "scores": 2, "gradients": 3}
"""How much of the model an attacker reaches; each includes those before it."""
BATCH = {"cpu": 256}
"""Windows that a network is asked about at once, by kind of device; ``LARGE`` where nothing is said."""
LARGE = 4096


class Oracle:
    """Answers an attacker's questions about one model.

    The network computes where its parameters are; questions and answers are on the processor, with all else of an
    attack, so that one seed draws the same on every device.

    Args:
        network: windows ``(b, n_chans, n_times)`` to logits ``(b, n_outputs)``; it is put into evaluation mode.
        access: a key of ``ACCESS``.
        draws: how many answers of a model that is random (finite shots) are averaged for each gradient and score:
            expectation over transformation.

    Attributes:
        gradients, queries: gradient evaluations and outputs asked for so far, one a window and draw.

    Raises:
        ValueError: there is no such access, or ``draws`` is below 1.

    Source: for ``draws``, Athalye et al. (2018), Obfuscated gradients give a false sense of security, section 4.2.
    """

    def __init__(self, network: nn.Module, access: str = "gradients", draws: int = 1) -> None:
        self.level = lookup("access to the model", ACCESS, access)
        if draws < 1:
            raise ValueError(f"an average over {draws} draws was asked for; at least 1 is needed")
        self.network = network.eval().requires_grad_(False)
        self.access, self.draws = access, draws
        self.device = device_of(network)
        self._batch = BATCH.get(self.device.type, LARGE)
        self.gradients = self.queries = 0

    def decide(self, x: Tensor) -> Tensor:
        """Return the classes ``(b,)`` that the model sees in windows."""
        self._allow("decisions")
        return self._logits(x, 1).argmax(dim=1)

    def scores(self, x: Tensor) -> Tensor:
        """Return logits ``(b, n_outputs)``."""
        self._allow("scores")
        return self._logits(x, self.draws)

    def ascend(self, x: Tensor, goal: Goal, rows: Tensor, kind: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss ``(b,)``, its gradient to the windows, and whether each fools the model ``(b,)``.

        Args:
            x: ``(b, n_chans, n_times)``.
            goal: what is wanted.
            rows: ``(b,)`` which of the goal's windows these are.
            kind: of the loss.
        """
        self._allow("gradients")
        self.gradients += len(x) * self.draws
        losses, slopes, fooled = [], [], []
        for part, places in zip(x.split(self._batch), rows.split(self._batch), strict=True):
            with torch.enable_grad():
                leaf = part.detach().to(self.device).requires_grad_()
                logits = torch.stack([self.network(leaf) for _ in range(self.draws)]).mean(dim=0).cpu()
                loss = goal.loss(kind, logits, places)
                (slope,) = torch.autograd.grad(loss.sum(), leaf)
            losses.append(loss.detach())
            slopes.append(slope.cpu())
            fooled.append(goal.fooled(logits.detach(), places))
        return torch.cat(losses), torch.cat(slopes), torch.cat(fooled)

    @torch.no_grad()
    def _logits(self, x: Tensor, draws: int) -> Tensor:
        self.queries += len(x) * draws
        answers = []
        for part in x.split(self._batch):
            asked = part.to(self.device)
            answers.append(torch.stack([self.network(asked) for _ in range(draws)]).mean(dim=0).cpu())
        return torch.cat(answers)

    def _allow(self, wanted: str) -> None:
        if self.level < ACCESS[wanted]:
            raise ValueError(f"an attacker with access to {self.access} of the model asked for its {wanted}")
