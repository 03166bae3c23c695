"""Wire the same parts as any protocol: who holds which half, and what becomes of it.

======================  =============  =======
protocol                client's half  trunk
======================  =============  =======
centralised             keep           keep       (one client that holds everything, nothing cut)
local_only              keep           keep       (nothing cut)
federated               average        average    (nothing cut)
sequential              relay          shared
sequential_own          keep           shared
splitfed_v1             average        average
splitfed_v2             average        shared
splitfed_v3             keep           average
======================  =============  =======

Source: Gupta & Raskar (2018), Distributed learning of deep neural network over multiple agents; Thapa et al. (2022),
SplitFed; Gawali et al. (2021), Comparison of privacy-preserving distributed deep learning methods in healthcare, for
v3; McMahan et al. (2017), Communication-efficient learning of deep networks from decentralized data.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from hcqsfl.federated.client import MakeOptimizer
from hcqsfl.federated.clock import Clock
from hcqsfl.federated.guard import TrunkGuard
from hcqsfl.federated.participation import Participation
from hcqsfl.federated.parts import Privatise
from hcqsfl.federated.staleness import Discount, constant
from hcqsfl.federated.update import Aggregator
from hcqsfl.models.defence import MakeDefence
from hcqsfl.split import Transport
from hcqsfl.split.codecs.pair import CutCodec


@dataclass(frozen=True)
class Protocol:
    """Who trains what, and where.

    Attributes:
        client: what becomes of the client's half; of the whole network where nothing is cut.
        trunk: what becomes of the server's half; ``None`` where nothing is cut.
        pooled: whether one client holds everybody's data.
        meaning: in words, for the report.
    """

    client: str
    trunk: str | None
    meaning: str
    pooled: bool = False

    @property
    def independent(self) -> bool:
        """Whether nothing that a client does in a round touches another before it ends."""
        return not self.pooled and {self.client, self.trunk or "keep"} <= {"average", "keep"}


PROTOCOLS = {
    "centralised": Protocol("keep", None, "all training data in one place, nothing cut", pooled=True),
    "federated": Protocol("average", None, "the whole network on every client, averaged each round"),
    "local_only": Protocol("keep", None, "each client alone; each window is judged by one client's own network, drawn"),
    "sequential": Protocol("relay", "shared", "split learning: one trunk, clients in turn, each starts from the last"),
    "sequential_own": Protocol("keep", "shared", "split learning without weight sharing: one trunk, each its own half"),
    "splitfed_v1": Protocol("average", "average", "a trunk copy for each client; both halves averaged each round"),
    "splitfed_v2": Protocol("average", "shared", "one trunk trained by all clients in turn; client halves averaged"),
    "splitfed_v3": Protocol(
        "keep", "average", "a trunk copy for each client, averaged; each client keeps its own half"
    ),
}


@dataclass(frozen=True, eq=False)
class Plan:
    """How a federation is to run, beside its protocol.

    Attributes:
        make_optimizer: makes the optimiser of any part.
        make_aggregator: makes the aggregation rule of any averaged part.
        seed: root seed.
        batch_size, local_epochs, local_steps, proximal: as in ``Client``.
        label_sharing: whether labels go to the server, which then holds the head too.
        cuts: how many of the front's blocks stay with the client, and after how many each further server hands on;
            empty where the client keeps the whole front.
        make_guard: makes what guards a shared trunk.
        participation, clock: as in ``Federation``.
        buffer_size: updates that make a version in asynchronous rounds; ``None`` for synchronous ones.
        discount: of stale updates.
        make_codec: client and end (``"client"`` or ``"server"``) to what codes the messages it sends.
        make_defence: client to what it does to its smashed data, labels or gradients before they leave it.
        secure: puts what hides single updates around the rule of the parts that cross to the fed server.
        privatise: makes the training of every half one that protects single windows (DP-SGD); windows are then drawn
            by Poisson sampling, and the loss is a sum over the expected batch size.
        wear: puts more coats on a client's transport, outside the meter.
        batched: whether the clients of a round train as one batch (``hcqsfl.models.batched``).
    """

    make_optimizer: MakeOptimizer
    make_aggregator: Callable[[], Aggregator]
    seed: int
    batch_size: int
    local_epochs: int = 1
    local_steps: int | None = None
    proximal: float = 0.0
    label_sharing: bool = False
    cuts: tuple[int, ...] = ()
    make_guard: Callable[[], TrunkGuard] | None = None
    participation: Participation = field(default_factory=Participation)
    clock: Clock = field(default_factory=Clock)
    buffer_size: int | None = None
    discount: Discount = field(default_factory=constant)
    make_codec: Callable[[str, str], CutCodec] | None = None
    make_defence: MakeDefence | None = None
    secure: Callable[[Aggregator], Aggregator] = lambda aggregator: aggregator
    privatise: Privatise | None = None
    wear: Callable[[str, Transport], Transport] = lambda client, transport: transport
    batched: bool = False
