"""The flows that an attacker could have sent instead of those it did: types, sums and bounds kept, in the units of the
recording.

The model sees scaled flows, but rules are about bytes, packets and seconds. An attack moves in scaled coordinates of
the numbers that it can raise; each place is brought back to original units, repaired to a flow that can be sent, and
scaled again, so that nothing which breaks a rule is ever shown to the model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hcqsfl.adversarial.evasion.flow_rules import CHOICES, FREE, HEADER, MTU, NEEDED, REFUSED, WHOLE
from hcqsfl.data.scaling import Scaler
from hcqsfl.data.windows import Windows

Scale = Callable[[np.ndarray], np.ndarray]
TOLERANCE = 1e-4


class FlowRegion:
    """All flows that an attacker could have sent instead, within a radius in scaled units of every number.

    Coordinates are ``(n, 4)``: the scaled values of ``flow_rules.FREE``. A category that changes moves two columns of
    the input by 1, so that others are within reach from a radius of 1; ``at`` is given them.

    Args:
        raw: ``(n, n_chans)`` flows in original units; categories as indices.
        channels: of the flows.
        categories: names behind the indices of the categorical channels.
        scale: original flows to the model's input ``(n, n_inputs)``.
        numbers: original flows to the scaled numbers alone ``(n, n_numeric)``, in order of the numeric channels.
        back: scaled numbers ``(n, n_numeric)`` to original units.
        most: ``(n_chans,)`` largest value of each channel in training: nothing is raised above it.
        epsilon: radius, 0 or more.

    Attributes:
        sent: ``(n, n_chans)`` the best flow found for each so far, in original units.
        shown, broken: flows that the model was shown so far, and how many of them broke a rule.

    Raises:
        ValueError: the radius is negative, or a column that the rules speak of is missing.

    Source: Simonetto et al. (2024), Constrained adaptive attack: effective adversarial attack against deep neural
    networks for tabular data, section 4.1 (repair of types and equalities at each step).
    """

    def __init__(
        self,
        raw: np.ndarray,
        channels: Sequence[str],
        categories: Mapping[str, Sequence[str]],
        scale: Scale,
        numbers: Scale,
        back: Scale,
        most: np.ndarray,
        epsilon: float,
    ) -> None:
        if not epsilon >= 0:
            raise ValueError(f"a radius of {epsilon} was asked for; it must be 0 or more")
        missing = [name for name in NEEDED if name not in channels]
        if missing:
            raise ValueError(
                f"the rules of flows speak of columns that these lack: {', '.join(missing)}; keep all features of the "
                "network file"
            )
        self.raw, self.channels, self.categories = raw.astype(np.float64), tuple(channels), categories
        self.scale, self.numbers, self.back, self.most = scale, numbers, back, most
        self.epsilon = epsilon
        self.numeric = [name for name in channels if name not in categories]
        self.free = [self.numeric.index(name) for name in FREE]
        self.x = self._input(self.raw)
        self.scaled = self.numbers(self.raw)  # (n, n_numeric)
        self.sent, self._shown = self.raw.copy(), self.raw
        self.shown = self.broken = 0
        self.top = self._largest()
        reachable = self.numbers(self.top)[:, self.free]
        self.low = torch.from_numpy(self.scaled[:, self.free]).float()
        self.high = torch.maximum(self.low, torch.from_numpy(reachable).float())
        self.wire = self._wire_slopes()  # (n, 4)

    def column(self, flows: np.ndarray, name: str) -> np.ndarray:
        """Return one column of flows."""
        return flows[:, self.channels.index(name)]

    def is_one_of(self, flows: np.ndarray, name: str, values: Sequence[str]) -> np.ndarray:
        """Return which flows carry one of some values of a category."""
        known = [i for i, value in enumerate(self.categories[name]) if value in values]
        return np.isin(self.column(flows, name), known)

    def at(self, free: np.ndarray, rows: np.ndarray, choices: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Return the flows that can be sent nearest below wanted values: ``(m, n_chans)`` in original units.

        Args:
            free: ``(m, 4)`` wanted values of ``FREE``, in original units.
            rows: ``(m,)`` which flows they stand for.
            choices: category to wanted indices ``(m,)``; where the category does not apply they are ignored.
        """
        flows, top = self.raw[rows].copy(), self.top[rows]
        own, wanted = self.raw[rows], dict(zip(FREE, free.T, strict=True))

        def extra(name: str) -> np.ndarray:
            """What is wanted above what there is, whole where it must be, and within reach."""
            at = self.channels.index(name)
            value = np.clip(np.nan_to_num(wanted[name], nan=0.0), own[:, at], top[:, at])
            more: np.ndarray = value - own[:, at]
            return np.floor(more + 1e-9) if name in WHOLE else more

        header = self._header(own)
        ip, packets = self.column(own, "src_ip_bytes"), self.column(own, "src_pkts")
        room = self.column(top, "src_ip_bytes") - ip  # bytes on the wire that may be added
        more_packets = np.minimum(extra("src_pkts"), np.floor(room / header))
        # a packet holds an MTU at most
        full = np.maximum(MTU * (packets + more_packets) - ip, header * more_packets)
        more_bytes = np.minimum(extra("src_bytes"), np.minimum(room, full) - header * more_packets)
        more_bytes = np.maximum(np.floor(more_bytes), 0)
        body = np.minimum(extra("http_request_body_len"), more_bytes)
        lasts = packets + more_packets + self.column(own, "dst_pkts") > 1
        for name, value in (
            ("src_pkts", more_packets),
            ("src_bytes", more_bytes),
            ("src_ip_bytes", more_bytes + header * more_packets),
            ("http_request_body_len", body),
            ("duration", np.where(lasts, extra("duration"), 0.0)),
        ):
            flows[:, self.channels.index(name)] += value
        for name, chosen in (choices or {}).items() if self.epsilon >= 1 else ():
            applies = self.is_one_of(own, name, CHOICES[name])
            allowed = [i for i, value in enumerate(self.categories[name]) if value in CHOICES[name]]
            at = self.channels.index(name)
            flows[:, at] = np.where(applies & np.isin(chosen, allowed), chosen, flows[:, at])
        return flows

    def violations(self, flows: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Count the rules that each of ``(m, n_chans)`` flows breaks: written apart from the repair, to judge it."""
        own = self.raw[rows]
        broken = np.zeros(len(flows), dtype=np.int64)

        def must(holds: np.ndarray) -> None:
            nonlocal broken
            broken = broken + ~holds

        for at, name in enumerate(self.channels):
            now, before = flows[:, at], own[:, at]
            must(np.isfinite(now))
            if name in CHOICES:
                applies = self.is_one_of(own, name, CHOICES[name])
                other = applies & self.is_one_of(flows, name, CHOICES[name]) & (self.epsilon >= 1)
                must((now == before) | other)
            elif name in (*FREE, "src_ip_bytes"):
                must((now >= before) & (now >= 0) & (now <= np.maximum(before, self.most[at])))
            else:
                must(now == before)
            if name in WHOLE:
                must(now == np.round(now))
        packets = self.column(flows, "src_pkts") - self.column(own, "src_pkts")
        payload = self.column(flows, "src_bytes") - self.column(own, "src_bytes")
        wire = self.column(flows, "src_ip_bytes") - self.column(own, "src_ip_bytes")
        body = self.column(flows, "http_request_body_len") - self.column(own, "http_request_body_len")
        must(wire == payload + self._header(own) * packets)
        kept = self.column(own, "src_ip_bytes") <= MTU * self.column(own, "src_pkts")
        must(~kept | (self.column(flows, "src_ip_bytes") <= MTU * self.column(flows, "src_pkts")))
        must(body <= payload)
        must((body == 0) | ~self.is_one_of(own, "http_method", ("-",)))
        must((packets == 0) | ~self.is_one_of(own, "conn_state", REFUSED))
        must((payload == 0) | ~self.is_one_of(own, "proto", ("tcp",)) | (self.column(own, "src_bytes") > 0))
        longer = self.column(flows, "duration") > self.column(own, "duration")
        must(~longer | (self.column(flows, "src_pkts") + self.column(flows, "dst_pkts") > 1))
        further = np.abs(self.numbers(flows) - self.scaled[rows]).max(axis=1)
        must(further <= self.epsilon + TOLERANCE)
        return broken

    def show(self, flows: np.ndarray, rows: np.ndarray) -> Tensor:
        """Return flows ``(m, n_chans)`` as the model takes them, ``(m, n_inputs, 1)``; count rules broken."""
        self._shown = flows
        self.shown += len(flows)
        self.broken += int((self.violations(flows, rows) > 0).sum())
        return self._input(flows)

    def keep(self, rows: Tensor, of: Tensor) -> None:
        """Hold the flows at ``of`` among those shown last as what is sent for ``rows``."""
        self.sent[rows.numpy()] = self._shown[of.numpy()]

    def start(self, rows: Tensor) -> Tensor:
        """Return the flows' own coordinates."""
        return self.low[rows].clone()

    def draw(self, rows: Tensor, generator: torch.Generator, corners: bool = False) -> Tensor:
        """Return random coordinates between the flow's own and the furthest; ``corners`` takes one of both ends."""
        share = torch.rand(len(rows), len(FREE), generator=generator)
        share = (share < 0.5).float() if corners else share
        return self.low[rows] + share * (self.high[rows] - self.low[rows])

    def project(self, u: Tensor, rows: Tensor) -> Tensor:
        """Clip to what is within reach."""
        return torch.minimum(torch.maximum(u, self.low[rows]), self.high[rows])

    def place(self, u: Tensor, rows: Tensor) -> Tensor:
        """Return the repaired flows at coordinates, scaled."""
        return self.show(self.flows_at(u, rows), rows.numpy())

    def pull(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient of the numbers that can be raised, with that of the number that follows from them."""
        follows = gradient[:, [self.numeric.index("src_ip_bytes")], 0]
        return gradient[:, self.free, 0] + self.wire[rows] * follows

    def flows_at(self, u: Tensor, rows: Tensor) -> np.ndarray:
        """Return the repaired flows at coordinates, in original units."""
        return self.at(self.unscaled(u, rows), rows.numpy())

    def unscaled(self, u: Tensor, rows: Tensor) -> np.ndarray:
        """Return ``(m, 4)`` coordinates in original units; where one is the flow's own, exactly its own."""
        numbers = self.scaled[rows.numpy()].copy()
        numbers[:, self.free] = u.double().numpy()
        values = self.back(numbers)[:, self.free]
        places = [self.channels.index(name) for name in FREE]
        # a quantile scale has steps: at the far end the value is what was found to be within reach, not its inverse
        values = np.where((u >= self.high[rows]).numpy(), self.top[rows.numpy()][:, places], values)
        own: np.ndarray = np.where((u <= self.low[rows]).numpy(), self.raw[rows.numpy()][:, places], values)
        return own

    def _wire_slopes(self) -> Tensor:
        """Return by how much the scaled bytes on the wire rise with each coordinate, over the whole way to its end.

        The scale has steps, so that a derivative would be zero or infinite: this is the slope of the chord.
        """
        slopes = torch.zeros_like(self.low)
        places = [self.channels.index(name) for name in FREE]
        wire = self.numeric.index("src_ip_bytes")
        for i in range(len(FREE)):
            wanted = self.raw[:, places].copy()
            wanted[:, i] = self.top[:, places[i]]
            rise = self.numbers(self.at(wanted, np.arange(len(self.raw))))[:, wire] - self.scaled[:, wire]
            span = self.high[:, i] - self.low[:, i]
            slopes[:, i] = torch.where(span > 0, torch.from_numpy(rise).float() / span.clamp_min(1e-6), 0.0)
        return slopes

    def _header(self, flows: np.ndarray) -> np.ndarray:
        made = np.full(len(flows), float(HEADER["tcp"]))
        for name, size in HEADER.items():
            made[self.is_one_of(flows, "proto", (name,))] = size
        return made

    def _input(self, flows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.scale(flows), dtype=np.float32))[:, :, None]

    def _largest(self) -> np.ndarray:
        """Return the flows with each number as large as the radius, the training data and the flow's kind allow.

        A bisection in original units: it needs of the scale only that it rises, column by column, so that flows which
        agree in these columns are searched for once.
        """
        names = [*FREE, "src_ip_bytes"]
        places = [self.channels.index(name) for name in names]
        at = [self.numeric.index(name) for name in names]
        _, kinds, kind = np.unique(self.raw[:, places], axis=0, return_index=True, return_inverse=True)
        raw = self.raw[kinds]
        low, high = raw[:, places], np.maximum(raw[:, places], self.most[places])
        limit = self.scaled[kinds][:, at] + self.epsilon
        for _ in range(60):
            middle = (low + high) / 2
            probe = raw.copy()
            probe[:, places] = middle
            inside = self.numbers(probe)[:, at] <= limit
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        whole = np.array([name in WHOLE for name in names])
        # a bisection ends just below the integer that is the end
        ends = np.where(whole, np.floor(low + 1e-6), low)
        probe = raw.copy()
        probe[:, places] = ends
        ends = np.where(self.numbers(probe)[:, at] <= limit + TOLERANCE / 2, ends, np.floor(ends - 0.5))
        top = self.raw.copy()
        top[:, places] = np.maximum(ends, raw[:, places])[kind.ravel()]
        frozen = {
            "src_pkts": self.is_one_of(self.raw, "conn_state", REFUSED),
            "src_bytes": self.is_one_of(self.raw, "proto", ("tcp",)) & (self.column(self.raw, "src_bytes") == 0),
            "http_request_body_len": self.is_one_of(self.raw, "http_method", ("-",)),
        }
        for name, where in frozen.items():
            place = self.channels.index(name)
            top[where, place] = self.raw[where, place]
        return top


def region_of(flows: Windows, scaler: Scaler, most: np.ndarray, epsilon: float) -> FlowRegion:
    """Return what the senders of flows could have sent instead.

    Args:
        flows: one sample a window.
        scaler: what the model's input is scaled by.
        most: ``(n_chans,)`` largest value of each channel in training.
        epsilon: radius.
    """
    one = flows.take(np.zeros(min(1, len(flows)), dtype=np.int64))

    def scale(raw: np.ndarray) -> np.ndarray:
        return scaler(replace(one, x=raw[:, :, None]))[:, :, 0]

    return FlowRegion(
        flows.x[:, :, 0],
        flows.channels,
        {
            name: flows.categories[name]
            for name, unit in zip(flows.channels, flows.units, strict=True)
            if unit == "category"
        },
        scale,
        lambda raw: scaler.numbers(raw[:, scaler.numeric]),
        scaler.back,
        most,
        epsilon,
    )
