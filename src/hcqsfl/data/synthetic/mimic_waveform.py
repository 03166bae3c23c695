"""Write made-up MIMIC-III waveform records in the layout of the matched subset.

Each patient has one record of several segments: a short one before the monitor knew its calibration, gaps, changes of
gain, a segment without the pulmonary artery line, a segment whose files are absent; and a record of numerics, one
value a minute. Hearts beat regularly or not, catheters are damped, flushed and shaken, so that the heart rate cannot
always be read from the pressure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from hcqsfl.data.synthetic import physiology as body
from hcqsfl.data.synthetic.folder import Progress, SyntheticFolder
from hcqsfl.randomness import numpy_generator

RATE = 125.0

SIZES = {
    "tiny": {"n_subjects": 3, "minutes": 6},
    "small": {"n_subjects": 12, "minutes": 15},
    "full": {"n_subjects": 30, "minutes": 50},
}

_COMMENT = "# SYNTHETIC: a program made these samples up; they are of nobody\n"
_MISSING_8, _MISSING_16 = -128, -32768


@dataclass(frozen=True)
class _Scale:
    """How a channel is stored: ``digital = gain * physical + baseline``."""

    gain: float
    baseline: int
    unit: str

    def __str__(self) -> str:
        return f"{self.gain:g}({self.baseline})/{self.unit}" if self.baseline else f"{self.gain:g}/{self.unit}"


_LEAD, _ARTERY, _LUNG, _FINGER = "II", "ABP", "PAP", "PLETH"
_SCALES: Mapping[str, tuple[_Scale, _Scale]] = {  # the usual one, and the one after a change of range
    _LEAD: (_Scale(43, 0, "mV"), _Scale(50, 0, "mV")),
    _ARTERY: (_Scale(1.25, -100, "mmHg"), _Scale(0.8, -100, "mmHg")),
    _LUNG: (_Scale(2.5, -100, "mmHg"), _Scale(1.25, -100, "mmHg")),
    _FINGER: (_Scale(255, -128, "NU"), _Scale(127, -64, "NU")),
}
_NUMERICS: Mapping[str, _Scale] = {
    "HR": _Scale(10, 0, "bpm"),
    "ABPSys": _Scale(10, 0, "mmHg"),
    "ABPDias": _Scale(10, 0, "mmHg"),
    "ABPMean": _Scale(10, 0, "mmHg"),
    "PAPSys": _Scale(10, 0, "mmHg"),
    "PAPDias": _Scale(10, 0, "mmHg"),
    "PAPMean": _Scale(10, 0, "mmHg"),
    "PULSE": _Scale(10, 0, "bpm"),
    "RESP": _Scale(10, 0, "pm"),
    "SpO2": _Scale(10, 0, "%"),
    "NBPSys": _Scale(1, 0, "mmHg"),
    "NBPDias": _Scale(1, 0, "mmHg"),
    "NBPMean": _Scale(1, 0, "mmHg"),
}


def write(
    root: Path, *, seed: int = 0, progress: Progress | None = None, n_subjects: int = 12, minutes: int = 15
) -> list[Path]:
    """Write one record for each patient as ``pXX/pXXNNNN/pXXNNNN-YYYY-MM-DD-hh-mm.hea`` with its segments and numerics.

    Waveforms II, ABP, PAP and PLETH at 125 Hz in format 80; numerics (heart rate, pressures, oxygen saturation and
    others) at 1/60 Hz in format 16, where 0 means missing, and NaN for the cuff's pressure. Value ``i`` describes
    minute ``i`` of the record. Every header says SYNTHETIC.

    Args:
        root: folder to write into.
        seed: root seed.
        progress: called after each patient.
        n_subjects: how many patients, at least 1; of three or more some have a heart rate above 100/min, some below.
        minutes: length of each record, at least 4.

    Returns:
        The files written.

    Raises:
        ValueError: the counts are out of range, or ``root`` holds files of another origin.

    Source:
        Layout: Moody et al. (2020), MIMIC-III Waveform Database Matched Subset, PhysioNet; the WFDB header and signal
        file formats, header(5) and signal(5).
    """
    if not 1 <= n_subjects <= 999:
        raise ValueError(f"{n_subjects} patients were asked for; 1 to 999 are possible")
    if not 4 <= minutes <= 1440:
        raise ValueError(f"records of {minutes} min were asked for; 4 to 1440 min are possible")
    options = {"n_subjects": n_subjects, "minutes": minutes}
    parts = _parts(minutes)
    files_each = 5 + sum(2 for part in parts if part.is_stored)
    folder = SyntheticFolder(root, "mimic_waveform", seed, options, files_each * n_subjects, progress)
    start = numpy_generator(seed, "synthetic mimic_waveform", "heart rate").random()
    for place in range(n_subjects):
        name = f"p{90_000 + 101 * place:06d}"
        rank = (start + place * 0.6180339887498949) % 1.0  # evenly spread over the patients
        patient = _Patient(rank, minutes, numpy_generator(seed, "synthetic mimic_waveform", name))
        _write_record(folder, name, 3_900_000 + place, patient, parts)
        folder.tell()
    return folder.finish()


@dataclass(frozen=True)
class _Part:
    """A stretch of a record: a gap, or a segment with its channels and scales."""

    n_samples: int
    channels: tuple[str, ...] = ()  # none: a gap
    range: int = 0  # which of the scales
    is_calibrated: bool = True
    is_absent: bool = False  # listed in the record, but its files are not there

    @property
    def is_stored(self) -> bool:
        return bool(self.channels) and not self.is_absent


def _parts(minutes: int) -> list[_Part]:
    everything = (_LEAD, _ARTERY, _LUNG, _FINGER)
    total = round(minutes * 60 * RATE)
    fixed = [
        _Part(93),
        _Part(round(12 * RATE), everything, is_calibrated=False),
        _Part(0, everything),
        _Part(round(7.4 * RATE)),
        _Part(round(10 * RATE), (_LEAD, _ARTERY, _FINGER)),
        _Part(0, everything, range=1),
        _Part(round(5 * RATE), everything, is_absent=True),
        _Part(0, (_LEAD, _LUNG)),
    ]
    left = total - sum(part.n_samples for part in fixed)
    shares = iter([round(0.45 * left), round(0.35 * left), left - round(0.45 * left) - round(0.35 * left)])
    return [
        part if part.n_samples else _Part(next(shares), part.channels, part.range, part.is_calibrated) for part in fixed
    ]


class _Patient:
    """The slow course of one patient, and what catheters, electrodes and the monitor make of it."""

    def __init__(self, rank: float, minutes: int, generator: np.random.Generator) -> None:
        draw = self._draw = generator
        self.n_samples = round(minutes * 60 * RATE)
        n = self._n = round(minutes * 60 * body.GRID)
        self.is_irregular = draw.random() < 0.2
        rate = 98 + 14 * ndtri(np.clip(rank, 0.01, 0.99))
        self._mean_rate = rate + body.wander(n, 400.0, 3.0, draw)
        beat = 0.18 if self.is_irregular else 0.015
        self._rate = np.clip(self._mean_rate * np.exp(body.wander(n, 0.4, beat, draw)), 35, 190)
        self._breaths = np.clip(draw.normal(17, 3) + body.wander(n, 30.0, 1.0, draw), 7, 35)
        self._lung = self._pressure(draw.lognormal(2.75, 0.3), draw.lognormal(2.75, 0.25))
        self._artery = self._pressure(draw.normal(62, 8), draw.normal(58, 12))
        self._oxygen = np.clip(draw.normal(94.0, 3.0) + body.wander(n, 120.0, 2.0, draw), 75, 100)
        self._heart = int(draw.integers(8))
        self._swing = draw.lognormal(1.1, 0.5)  # mmHg of breathing in the lung's pressure
        self._noise = draw.lognormal(-0.2, 0.5)

    def _pressure(self, low: float, pulse: float) -> tuple[np.ndarray, np.ndarray]:
        """Return diastolic and pulse pressure ``(n,)`` in mmHg."""
        level = np.exp(body.wander(self._n, 200.0, 0.08, self._draw))
        return low * level, max(pulse, 8.0) * level * np.exp(body.wander(self._n, 60.0, 0.08, self._draw))

    def waveforms(self) -> dict[str, np.ndarray]:
        """Return ``(n_samples,)`` of each channel in its unit."""
        draw, n = self._draw, self.n_samples
        breath = body.replay(body.breath_cycle(), body.phase(self._breaths, n, RATE))

        def pulse(delay: float) -> np.ndarray:
            return body.replay(body.ppg_cycle(), body.phase(self._rate, n, RATE, delay))

        def pressure(course: tuple[np.ndarray, np.ndarray], delay: float, damping: np.ndarray) -> np.ndarray:
            low, height = (body.at_rate(part, n, RATE) for part in course)
            return low + height * (0.35 + damping * (pulse(delay) - 0.35))

        damping = self._damping()
        lung = pressure(self._lung, 0.12, damping) + self._swing * breath
        lung += self._noise * body.wander(n, 0.05, 1.0, draw, RATE)
        self._disturb(lung)
        artery = pressure(self._artery, 0.18, np.ones(n)) + 2 * breath + 0.5 * draw.standard_normal(n)
        ecg = body.replay(body.ecg_cycle(self._heart), body.phase(self._rate, n, RATE))
        ecg = draw.uniform(0.6, 1.3) * ecg + body.wander(n, 0.6, 0.08, draw, RATE) + 0.03 * draw.standard_normal(n)
        finger = 0.35 + 0.3 * pulse(0.25) + 0.04 * breath + 0.02 * body.wander(n, 0.2, 1.0, draw, RATE)
        return {_LEAD: ecg, _ARTERY: artery, _LUNG: lung, _FINGER: np.clip(finger, 0.004, 0.99)}

    def _damping(self) -> np.ndarray:
        """Return ``(n_samples,)`` share of the pulse that the lung's catheter lets through: at times little."""
        course = np.ones(self._n)
        at = 0
        while at < self._n:
            good, bad = (int(self._draw.exponential(mean) * body.GRID) for mean in (260.0, 40.0))
            course[at + good : at + good + bad] = self._draw.uniform(0.05, 0.5)
            at += good + bad + 1
        return body.at_rate(body.lag(course, 2.0), self.n_samples, RATE)

    def _disturb(self, lung: np.ndarray) -> None:
        """Flush, shake and disconnect the lung's catheter, in place."""
        seconds = len(lung) / RATE
        for begin in self._draw.uniform(0, seconds, self._draw.poisson(seconds / 150)):
            stretch = slice(round(begin * RATE), round((begin + self._draw.exponential(5.0) + 1) * RATE))
            length = len(lung[stretch])
            kind = self._draw.choice(["flush", "shake", "open"], p=[0.25, 0.65, 0.10])
            if kind == "flush":
                lung[stretch] = 280.0
            elif kind == "shake":
                lung[stretch] += body.wander(length, 0.08, 14.0, self._draw, RATE)
            else:
                lung[stretch] = 0.0

    def numerics(self) -> dict[str, np.ndarray]:
        """Return ``(n_minutes,)`` of each value; 0, or NaN for the cuff, where the monitor had none."""
        draw = self._draw

        def by_minute(course: np.ndarray) -> np.ndarray:
            return np.asarray(course.reshape(-1, round(60 * body.GRID)).mean(axis=1))

        heart = by_minute(self._rate)
        # the monitor averages over what came before, miscounts irregular beats, and at times counts something else
        seen = 0.7 * heart + 0.3 * np.concatenate([heart[:1], heart[:-1]])
        seen = seen + draw.normal(0, 4.0 if self.is_irregular else 0.8, len(heart))
        wrong = draw.random(len(heart)) < 0.03
        seen = np.where(wrong, seen * draw.uniform(0.7, 1.4, len(heart)), seen)
        values = {"HR": seen, "PULSE": heart + draw.normal(0, 1.0, len(heart)), "RESP": by_minute(self._breaths)}
        for name, (low, height) in (("ABP", self._artery), ("PAP", self._lung)):
            values[f"{name}Sys"] = by_minute(low + height)
            values[f"{name}Dias"] = by_minute(low)
            values[f"{name}Mean"] = by_minute(low + 0.42 * height)
        values["SpO2"] = by_minute(self._oxygen)
        for name in values:
            values[name] = np.where(draw.random(len(heart)) < 0.02, 0.0, values[name])
        cuff_is_on = np.arange(len(heart)) % 15 == 3
        for part in ("Sys", "Dias", "Mean"):
            values[f"NBP{part}"] = np.where(cuff_is_on, values[f"ABP{part}"] + draw.normal(0, 4, len(heart)), np.nan)
        values["HR"][0] = 0.0  # nothing yet in the minute in which the monitor was switched on
        return {name: values[name] for name in _NUMERICS}


def _write_record(folder: SyntheticFolder, name: str, number: int, patient: _Patient, parts: list[_Part]) -> None:
    """Write header, layout, segments, numerics and list of one record."""
    where = f"{name[:3]}/{name}"
    began = datetime(2150, 1, 1, 8, 0, 0, 486_000) + timedelta(days=37 * (number % 1000), minutes=11 * (number % 100))
    record = f"{name}-{began:%Y-%m-%d-%H-%M}"
    clock, date = _clock(began), f"{began:%d/%m/%Y}"
    waveforms = patient.waveforms()

    lines = [f"{number}_layout 0"]
    stored = []
    first = count = 0
    for part in parts:
        if part.channels:
            count += 1
            segment = f"{number}_{count:04d}"
            lines.append(f"{segment} {part.n_samples}")
            if part.is_stored:
                stored.append(segment)
                time = _clock(began + timedelta(seconds=first / RATE))
                samples = {c: waveforms[c][first : first + part.n_samples] for c in part.channels}
                _write_segment(folder, f"{where}/{segment}", time, samples, part)
        else:
            lines.append(f"~ {part.n_samples}")
        first += part.n_samples
    _write_text(
        folder,
        f"{where}/{record}.hea",
        [f"{record}/{len(lines)} {len(_SCALES)} {RATE:g} {first} {clock} {date}", *lines],
    )
    layout = [f"{number}_layout {len(_SCALES)} {RATE:g} 0 {clock}"]
    layout += [f"~ 0 {scale} 8 0 {_MISSING_8} 0 0 {channel}" for channel, (scale, _) in _SCALES.items()]
    _write_text(folder, f"{where}/{number}_layout.hea", layout)
    _write_numerics(folder, where, f"{record}n", f"{number}n", f"{clock} {date}", patient.numerics())
    path = folder.path(f"{where}/RECORDS")
    path.write_bytes("".join(f"{line}\n" for line in (record, f"{record}n", *stored)).encode())


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"


def _write_text(folder: SyntheticFolder, relative: str, lines: list[str]) -> None:
    folder.path(relative).write_bytes(("".join(f"{line}\n" for line in lines) + _COMMENT).encode())


def _write_segment(
    folder: SyntheticFolder, relative: str, clock: str, samples: Mapping[str, np.ndarray], part: _Part
) -> None:
    """Write one segment in format 80: an unsigned byte a sample, 128 more than its value."""
    segment = relative.rsplit("/", 1)[1]
    lines = [f"{segment} {len(samples)} {RATE:g} {part.n_samples} {clock}"]
    digital = np.empty((part.n_samples, len(samples)), dtype=np.int64)
    for index, (channel, values) in enumerate(samples.items()):
        scale = _SCALES[channel][part.range]
        digital[:, index] = np.clip(np.round(values * scale.gain + scale.baseline), -127, 127)
        stated = scale if part.is_calibrated else _Scale(1, 0, scale.unit)
        lines.append(_signal_line(segment, 80, stated, 8, digital[:, index], channel))
    folder.path(f"{relative}.dat").write_bytes((digital + 128).astype(np.uint8).tobytes())
    _write_text(folder, f"{relative}.hea", lines)


def _write_numerics(
    folder: SyntheticFolder, where: str, record: str, stem: str, began: str, values: Mapping[str, np.ndarray]
) -> None:
    n_minutes = len(values["HR"])
    lines = [f"{record} {len(values)} 0.0166666666667/125 {n_minutes} {began}"]
    digital = np.empty((n_minutes, len(values)), dtype=np.int64)
    for index, (name, value) in enumerate(values.items()):
        known = np.nan_to_num(np.round(value * _NUMERICS[name].gain), nan=_MISSING_16)
        digital[:, index] = known
        lines.append(_signal_line(stem, 16, _NUMERICS[name], 16, digital[:, index], name))
    folder.path(f"{where}/{stem}.dat").write_bytes(digital.astype("<i2").tobytes())
    _write_text(folder, f"{where}/{record}.hea", lines)


def _signal_line(stem: str, storage: int, scale: _Scale, bits: int, digital: np.ndarray, name: str) -> str:
    checksum = (int(digital.sum()) + 2**15) % 2**16 - 2**15
    return f"{stem}.dat {storage} {scale} {bits} 0 {digital[0]} {checksum} 0 {name}"
