"""Who sees what: the threat models, each a filter on what was recorded.

Source: the split of roles follows Pasquini et al. (2021), Unleashing the tiger, for T1 to T3; Zhu et al. (2019), Deep
leakage from gradients, for T4; Shejwalkar & Houmansadr (2021), Manipulating the Byzantine, for T8.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Threat:
    """One adversary.

    Attributes:
        who: the adversary, in words.
        behaviour: ``passive`` (follows the protocol), ``malicious`` or ``query`` (asks the final model).
        cut: whether it reads the messages that cross the cut.
        trunk: whether it holds the server's weights, round by round.
        client: whether it holds the global client half, round by round.
        updates: whether it reads each client's update of the client half.
        own: whether it reads only the messages of one client, itself.
        outputs: whether it may ask the final model for outputs.
        inside: whether it may look inside the final model.
    """

    who: str
    behaviour: str = "passive"
    cut: bool = False
    trunk: bool = False
    client: bool = False
    updates: bool = False
    own: bool = False
    outputs: bool = False
    inside: bool = False


THREATS: dict[str, Threat] = {
    "T1": Threat("main server", cut=True, trunk=True),
    "T2": Threat("main server with a colluding client", cut=True, trunk=True, client=True),
    "T3": Threat("main server that returns gradients of its own making", "malicious", cut=True, trunk=True),
    "T4": Threat("fed server", client=True, updates=True),
    "T5": Threat("main server and fed server in one hand", cut=True, trunk=True, client=True, updates=True),
    "T6": Threat("provider of the quantum processor", cut=True, trunk=True),
    "T7": Threat("curious client", client=True, own=True, cut=True),
    "T8": Threat("malicious clients", "malicious", client=True, own=True, cut=True),
    "T9": Threat("end user or network attacker at inference", "query", outputs=True, inside=True),
    "T10": Threat("anyone with the final model", "query", outputs=True),
}
