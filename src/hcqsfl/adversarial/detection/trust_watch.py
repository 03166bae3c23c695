"""A detector that weighs the clients of a training: calibrated when first asked, told of, kept in checkpoints."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from hcqsfl.adversarial.detection.clients import ClientMonitor, Verdict
from hcqsfl.adversarial.detection.watch import Trust, Watch
from hcqsfl.federated.rounds import Event
from hcqsfl.federated.update import State, Update
from hcqsfl.split import Transport


class TrustWatch(Watch):
    """A watch over a whole training, as it is configured.

    Args:
        monitor: judges the clients.
        trust: as in ``Watch``.
        calibrate: returns the features of rounds without attackers, asked for once, before the first round is judged;
            a checkpoint holds them. Without it the monitor must be calibrated, or it only records.
    """

    def __init__(
        self,
        monitor: ClientMonitor,
        trust: Trust | None = None,
        *,
        calibrate: Callable[[], Sequence[np.ndarray]] | None = None,
    ) -> None:
        super().__init__(monitor, trust)
        self.calibrate = calibrate
        self.calibration: list[np.ndarray] = []

    def judge(self, state: State, updates: Sequence[Update]) -> Mapping[str, float]:
        """Return the trust in a round's clients, once the monitor is calibrated."""
        if self.calibrate is not None and not self.calibration:
            self.calibration = list(self.calibrate())
            self.monitor.calibrate(self.calibration)
        return super().judge(state, updates)

    def wear(self, client: str, transport: Transport) -> Transport:
        """As ``Watch``; the parties of a vertical split hold a share each, and are not listened to."""
        return transport if "/" in client else super().wear(client, transport)

    def events(self, number: int) -> tuple[Event, ...]:
        """Return what was decided about clients in a round."""
        found = [verdict for verdict in self.monitor.verdicts if verdict.number == number]
        if not found:
            return ()
        verdict, limit = found[0], self.monitor.threshold
        before = self.monitor.verdicts[number - 2].quarantined if number > 1 else frozenset()
        return (
            *(
                Event(
                    "flagged", c, f"client {c} scored {verdict.scores[c]:.3g} in round {number}; {limit:.3g} is allowed"
                )
                for c in sorted(verdict.flagged)
            ),
            *(
                Event("quarantined", c, f"client {c} was put into quarantine in round {number}")
                for c in sorted(verdict.quarantined - before)
            ),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the calibration and the verdicts, as named tensors."""
        held = {f"calibration/{i}": torch.from_numpy(rows) for i, rows in enumerate(self.calibration)}
        verdicts = [asdict(verdict) for verdict in self.monitor.verdicts]
        text = json.dumps([self._judged, verdicts], default=sorted)
        return held | {"verdicts": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        self._judged, verdicts = json.loads(held["verdicts"].numpy().tobytes())
        self.calibration = [held[f"calibration/{i}"].numpy() for i in range(len(held) - 1)]
        if self.calibration:
            self.monitor.calibrate(self.calibration)
        sets = ("flagged", "quarantined")
        self.monitor.verdicts = [Verdict(**(v | {name: frozenset(v[name]) for name in sets})) for v in verdicts]
        self.latest = self.monitor.verdicts[-1].trust if self.monitor.verdicts else {}
