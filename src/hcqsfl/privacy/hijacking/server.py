"""A malicious server: it answers with gradients that pull the clients' front towards a feature space it can decode.

Source: Pasquini et al. (2021), Unleashing the tiger: inference attacks on split learning (FSHA), section 3, with a
Wasserstein critic as in section 4. The variant that hides adds the honest gradient: Fu et al. (2023), Focusing on
Pinocchio's nose, section 3 (multitask server).
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.inversion.critic import Critic, wasserstein_step
from hcqsfl.privacy.inversion.decoder import BATCH, Decoder
from hcqsfl.privacy.inversion.halves import cut_front
from hcqsfl.randomness import derive, torch_generator
from hcqsfl.split.message import PLAIN, decode, encode
from hcqsfl.split.transport import Transport


class Hijacker:
    """Stands in a server's place: asks the honest one, and answers with another gradient.

    A pilot front and its decoder learn auxiliary windows; a critic learns to tell the pilot's smashed data from the
    clients'; clients are sent the gradient that makes theirs look like the pilot's. What they send can then be decoded.

    Args:
        knowledge: auxiliary windows and the architecture of the front.
        hiding: ``None`` to send the hijacking gradient alone; else the task's gradient plus so many times the
            hijacking one, scaled to the norm of the task's, message by message. Alone, it is scaled to the norm that
            the task's had on average, so that its size tells nothing of the batch.
        seed: of all it draws.
        steps: on the pilot, the decoder and the critic for each message.

    Attributes:
        decoders: round to the decoder's state after it.
        evaluations: steps so far.
    """

    def __init__(self, knowledge: Knowledge, hiding: float | None, seed: int, steps: int = 3) -> None:
        self.knowledge, self.hiding, self.seed, self.steps = knowledge, hiding, seed, steps
        self.generator = torch_generator(seed, "hijacker batches")
        self.decoders: dict[int, dict[str, Tensor]] = {}
        self.evaluations = 0
        self.norms: list[float] = []
        self.decoder: Decoder | None = None
        self._sent: dict[str, Tensor] = {}

    def wear(self, client: str, transport: Transport) -> Transport:
        """Return the transport to the hijacking server, which uses the honest one behind ``transport``."""

        def hijacked(request: bytes) -> bytes:
            answer = transport(request)
            asked, answered = decode(request), decode(answer)
            if asked.kind in ("forward", "train"):
                self._sent[client] = asked.tensor("smashed").detach()
            if answered.kind != "gradient" or client not in self._sent:
                return answer
            made = self.gradient(self._sent.pop(client), answered.tensor("gradient"), asked.round)
            return encode(replace(answered, tensors={**answered.tensors, "gradient": made}, codec=PLAIN))

        return hijacked

    def gradient(self, smashed: Tensor, honest: Tensor, number: int) -> Tensor:
        """Learn from smashed data ``(b, ...)`` and return what is sent in place of their gradient."""
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(derive(self.seed, "hijacker", self.evaluations))
            if self.decoder is None:
                self._set_up(smashed)
            for _ in range(self.steps):
                self._learn(smashed)
            z = smashed.clone().requires_grad_()
            (pull,) = torch.autograd.grad(-self.critic(z).mean(), z)
        assert self.decoder is not None
        self.decoders[number] = {name: tensor.clone() for name, tensor in self.decoder.state_dict().items()}
        self.norms.append(float(honest.norm()))
        pull = pull / pull.norm().clamp_min(1e-12)
        if self.hiding is None:
            return pull * (sum(self.norms) / len(self.norms))
        return honest + self.hiding * honest.norm() * pull

    def fresh_decoder(self, shape: torch.Size) -> Decoder:
        """Return an untrained decoder of the kind that it trains."""
        n_chans, n_times = self.knowledge.x.shape[1:]
        return Decoder(shape, n_chans, n_times, 16)

    def _set_up(self, smashed: Tensor) -> None:
        shape = smashed.shape[1:]
        self.pilot, _ = cut_front(shape, self.knowledge)
        self.decoder = self.fresh_decoder(shape)
        self.critic: nn.Module = Critic(shape)
        both = [*self.pilot.parameters(), *self.decoder.parameters()]
        self.learning = torch.optim.Adam(both, lr=2e-3)
        self.judging = torch.optim.Adam(self.critic.parameters(), lr=1e-3, betas=(0.5, 0.9))

    def _learn(self, smashed: Tensor) -> None:
        assert self.decoder is not None
        x = self.knowledge.x
        batch = x[torch.randint(len(x), (min(BATCH, len(x)),), generator=self.generator)]
        made = self.pilot(batch)
        loss = nn.functional.mse_loss(self.decoder(made), batch)
        self.learning.zero_grad(set_to_none=True)
        loss.backward()
        self.learning.step()
        wasserstein_step(self.critic, self.judging, made.detach(), smashed)
        self.evaluations += 1
