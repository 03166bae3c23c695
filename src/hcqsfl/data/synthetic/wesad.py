"""Write made-up WESAD pickles: a chest strap and a wristband through baseline, stress, amusement and meditation.

Each subject has a resting state and a reactivity of their own; some hardly react to the stressor, and within each
condition the state wanders, so that the conditions overlap as they do in the study.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from hcqsfl.data.synthetic import physiology as body
from hcqsfl.data.synthetic import python2_pickle
from hcqsfl.data.synthetic.folder import Progress, SyntheticFolder
from hcqsfl.randomness import numpy_generator

SUBJECTS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17)
"""The study's subjects; 1 and 12 were lost to a failing sensor."""

SIZES = {
    "tiny": {"n_subjects": 3, "scale": 0.03},
    "small": {"n_subjects": 8, "scale": 0.1},
    "full": {"n_subjects": 15, "scale": 1.0},
}

CHEST_RATE, WRIST_ACC_RATE, BVP_RATE, EDA_RATE, TEMP_RATE = 700.0, 32.0, 64.0, 4.0, 4.0

TRANSIENT, BASELINE, STRESS, AMUSEMENT, MEDITATION = 0, 1, 2, 3, 4

# minutes of each part; labels 5, 6 and 7 are the questionnaires read after a condition, which nobody uses
_STRESS_FIRST = (
    (0, 3.0), (1, 19.5), (5, 1.5), (0, 4.0), (2, 10.7), (0, 3.0), (6, 1.5), (0, 4.0), (4, 6.6), (0, 3.0), (3, 6.3),
    (7, 1.5), (0, 2.5), (4, 6.6), (0, 1.5),
)  # fmt: skip
_AMUSEMENT_FIRST = (
    (0, 3.0), (1, 19.5), (5, 1.5), (0, 3.0), (3, 6.3), (7, 1.5), (0, 2.5), (4, 6.6), (0, 4.0), (2, 10.7), (0, 3.0),
    (6, 1.5), (0, 4.0), (4, 6.6), (0, 1.5),
)  # fmt: skip


@dataclass(frozen=True)
class _Effect:
    """What a condition does to a body of reactivity 1, in the units said."""

    heart_rate: float  # 1/min, added
    conductance: float  # log ratio of the tonic level
    responses: float  # skin conductance responses, 1/min
    breaths: float  # 1/min, added
    unevenness: float  # of breathing, share of depth and rate
    muscle: float  # log ratio of EMG amplitude
    motion: float  # log ratio
    cooling: float  # degrees Celsius at the wrist, taken off


_EFFECTS = {
    TRANSIENT: _Effect(5.0, 0.25, 5.0, 1.5, 0.25, 0.5, 1.0, 0.0),
    BASELINE: _Effect(0.0, 0.0, 3.0, 0.0, 0.16, 0.0, 0.0, 0.0),
    STRESS: _Effect(19.0, 0.70, 9.0, 2.0, 0.36, 0.60, 0.70, 0.6),
    AMUSEMENT: _Effect(-0.5, 0.15, 4.0, 2.2, 0.28, -0.18, -0.65, 0.1),
    MEDITATION: _Effect(-2.0, -0.05, 2.0, -3.0, 0.10, -0.1, -0.6, 0.0),
}
_READING = _Effect(1.0, 0.15, 4.0, 0.5, 0.2, 0.1, 0.3, 0.0)


def write(
    root: Path, *, seed: int = 0, progress: Progress | None = None, n_subjects: int = 8, scale: float = 0.1
) -> list[Path]:
    """Write ``SX/SX.pkl`` for the first ``n_subjects`` subjects of the study.

    Each file holds ``{"subject", "signal": {"chest", "wrist"}, "label"}`` as a Python 2 pickle: chest at 700 Hz (ACC in
    g, ECG and EMG in mV, EDA in microsiemens, Temp in degrees Celsius, Resp in %), wrist ACC at 32 Hz in 1/64 g, BVP at
    64 Hz, EDA and TEMP at 4 Hz, label at 700 Hz.

    Args:
        root: folder to write into.
        seed: root seed.
        progress: called after each file.
        n_subjects: how many, 1 to 15.
        scale: length of each part of the protocol as a share of the study's; 1 is about 75 min and 190 MB a subject.

    Returns:
        The files written.

    Raises:
        ValueError: the counts are out of range, or ``root`` holds files of another origin.

    Source:
        Schmidt et al. (2018), Introducing WESAD, ICMI, sections 3 and 4, and the data set's readme.
    """
    if not 1 <= n_subjects <= len(SUBJECTS):
        raise ValueError(f"{n_subjects} WESAD subjects were asked for; the study has 1 to {len(SUBJECTS)}")
    if not 0.01 <= scale <= 2:
        raise ValueError(f"a scale of {scale} was asked for; 0.01 to 2 times the study's durations are possible")
    folder = SyntheticFolder(root, "wesad", seed, {"n_subjects": n_subjects, "scale": scale}, n_subjects, progress)
    # evenly spread over the population, so that few subjects already include one who hardly reacts
    start = numpy_generator(seed, "synthetic wesad", "reactivity").random()
    for place, number in enumerate(SUBJECTS[:n_subjects]):
        name = f"S{number}"
        rank = (start + place * 0.6180339887498949) % 1.0
        reactivity = float(np.clip(np.exp(0.45 * ndtri(rank)), 0.15, 2.2))
        content = _subject(name, scale, place % 2 == 0, reactivity, numpy_generator(seed, "synthetic wesad", name))
        with folder.path(f"{name}/{name}.pkl").open("wb") as file:
            python2_pickle.dump(content, file)
        folder.tell()
    return folder.finish()


def _subject(
    name: str, scale: float, stress_first: bool, reactivity: float, generator: np.random.Generator
) -> python2_pickle.Tree:
    protocol = [
        # seconds in quarters, so that every clock of the recording has whole samples in each part
        (label, round(minutes * 60 * scale * 4) / 4)
        for label, minutes in (_STRESS_FIRST if stress_first else _AMUSEMENT_FIRST)
    ]
    seconds = sum(length for _, length in protocol)
    states = _States(protocol, reactivity, generator)
    n_chest = round(seconds * CHEST_RATE)
    label = np.repeat(
        np.array([part for part, _ in protocol], dtype="<i4"), [round(length * CHEST_RATE) for _, length in protocol]
    )
    chest = {
        "ACC": states.chest_acceleration(n_chest),
        "ECG": states.ecg(n_chest),
        "EMG": states.emg(n_chest),
        "EDA": states.chest_conductance(n_chest),
        "Temp": states.chest_temperature(n_chest),
        "Resp": states.respiration(n_chest),
    }
    wrist = {
        "ACC": states.wrist_acceleration(round(seconds * WRIST_ACC_RATE)),
        "BVP": states.pulse(round(seconds * BVP_RATE)),
        "EDA": states.wrist_conductance(round(seconds * EDA_RATE)),
        "TEMP": states.wrist_temperature(round(seconds * TEMP_RATE)),
    }
    return {"subject": name, "signal": {"chest": chest, "wrist": wrist}, "label": label}


class _States:
    """The slow course of one body through the protocol, and the sensors that see it."""

    def __init__(self, protocol: list[tuple[int, float]], reactivity: float, generator: np.random.Generator) -> None:
        draw = generator
        self._draw = draw
        sweating = float(np.clip(draw.lognormal(-0.2, 0.8), 0.05, 2.5))
        self._n = sum(round(length * body.GRID) for _, length in protocol)
        parts = [self._part(label, reactivity, sweating) for label, _ in protocol]
        lengths = [round(length * body.GRID) for _, length in protocol]
        course = np.repeat(np.array(parts), lengths, axis=0)  # (n, 8)
        heart, tonic, responses, breaths, self._uneven, muscle, motion, cooling = course.T

        # arousal that is none of the experimenter's making
        own = body.wander(self._n, 60.0, 1.0, draw)
        self._breaths = np.clip(
            draw.normal(14.5, 2.5) + body.lag(breaths, 5.0) + 1.2 * body.wander(self._n, 20.0, 1.0, draw)
            + self._uneven * 14 * body.wander(self._n, 3.0, 0.6, draw), 5.0, 32.0,
        )  # fmt: skip
        depth = 1 + self._uneven * body.wander(self._n, 6.0, 1.0, draw)
        self._depth = draw.lognormal(1.35, 0.3) * np.clip(depth, 0.15, 2.5)
        sinus = draw.uniform(1.0, 5.0) * body.replay(body.breath_cycle(), body.phase(self._breaths, self._n, body.GRID))
        self._heart = np.clip(
            draw.normal(71, 9) + body.lag(heart, 15.0) + 3.0 * own + body.wander(self._n, 12.0, 2.5, draw) + sinus,
            42,
            165,
        )
        drift = np.cumsum(np.full(self._n, draw.normal(0.25, 0.35) / self._n))
        self._tonic = draw.lognormal(1.0, 0.7) * np.exp(body.lag(tonic, 25.0) + 0.10 * own + drift)
        height = np.full(self._n, 0.05 * draw.lognormal(0.0, 0.5)) * self._tonic
        self._phasic = body.skin_responses(body.lag(responses, 5.0) * np.exp(0.3 * own), height, draw)
        self._muscle = 0.008 * draw.lognormal(0.0, 0.2) * np.exp(muscle + body.wander(self._n, 8.0, 0.25, draw))
        self._motion = draw.lognormal(0.0, 0.3) * np.exp(motion + body.wander(self._n, 10.0, 0.6, draw))
        self._cooling = body.lag(cooling, 120.0)
        self._warming = np.linspace(0, draw.normal(0.5, 0.4), self._n) + body.wander(self._n, 200.0, 0.12, draw)
        # sitting or standing, decided afresh for each part, differs between people more than between conditions
        pose = draw.normal(0.0, 0.12, (len(lengths), 3)) + draw.normal(0.0, 0.12, 3)
        self._lean = np.repeat(pose, lengths, axis=0).T  # (3, n)
        self._hand = np.repeat(draw.normal(0.0, 1.0, (len(lengths), 3)), lengths, axis=0).T
        self._heart_shape = int(draw.integers(8))

    def _part(self, label: int, reactivity: float, sweating: float) -> list[float]:
        """Return the eight levels of one part; how strongly a condition works varies from time to time."""
        effect = _EFFECTS.get(label, _READING)
        now = self._draw
        strength = reactivity * now.lognormal(0.0, 0.3)
        return [
            effect.heart_rate * strength + now.normal(0, 2.0),
            effect.conductance * sweating * now.lognormal(0.0, 0.3) + now.normal(0, 0.08),
            effect.responses * now.lognormal(0.0, 0.35),
            effect.breaths * strength + now.normal(0, 0.7),
            max(0.05, effect.unevenness * now.lognormal(0.0, 0.25)),
            effect.muscle * strength + now.normal(0, 0.15),
            effect.motion * now.lognormal(0.0, 0.3) + now.normal(0, 0.25),
            effect.cooling * strength,
        ]

    def _noise(self, n_samples: int) -> np.ndarray:
        return self._draw.standard_normal(n_samples)

    def ecg(self, n_samples: int) -> np.ndarray:
        """Return ``(n, 1)`` in mV: beats, a wandering baseline and muscle noise, on the converter's grid."""
        beats = body.replay(body.ecg_cycle(self._heart_shape), body.phase(self._heart, n_samples, CHEST_RATE))
        tall = self._draw.uniform(0.7, 1.4)
        slow = body.at_rate(body.wander(self._n, 0.6, 0.06, self._draw), n_samples, CHEST_RATE)
        ecg = tall * beats + slow + 2 * body.at_rate(self._muscle, n_samples, CHEST_RATE) * self._noise(n_samples)
        return _converted(ecg, 3.0)[:, None]

    def emg(self, n_samples: int) -> np.ndarray:
        """Return ``(n, 1)`` in mV: noise as strong as the muscle works."""
        emg = body.at_rate(self._muscle, n_samples, CHEST_RATE) * self._noise(n_samples) - 0.003
        return _converted(emg, 3.0)[:, None]

    def respiration(self, n_samples: int) -> np.ndarray:
        """Return ``(n, 1)`` in % of the belt's range."""
        breaths = body.replay(body.breath_cycle(), body.phase(self._breaths, n_samples, CHEST_RATE))
        swing = 1.2 * body.at_rate(self._depth, n_samples, CHEST_RATE) * breaths
        shake = body.at_rate(self._motion * body.wander(self._n, 0.5, 0.5, self._draw), n_samples, CHEST_RATE)
        return _converted(swing + shake + 0.05, 100.0)[:, None]

    def chest_conductance(self, n_samples: int) -> np.ndarray:
        """Return ``(n, 1)`` in microsiemens."""
        conductance = body.at_rate(self._tonic + self._phasic, n_samples, CHEST_RATE)
        return np.clip(_converted(conductance - 12.5, 25.0) + 12.5, 0.0, 25.0)[:, None]

    def chest_temperature(self, n_samples: int) -> np.ndarray:
        """Return ``(n, 1)`` in degrees Celsius, in single precision as the study's files have it."""
        warm = self._draw.normal(33.6, 0.7) + self._warming - 0.2 * self._cooling
        noisy = body.at_rate(warm, n_samples, CHEST_RATE) + 0.02 * self._noise(n_samples)
        return np.asarray(noisy, dtype="<f4")[:, None]

    def chest_acceleration(self, n_samples: int) -> np.ndarray:
        """Return ``(n, 3)`` in g: gravity as the trunk leans, breathing, and small movements."""
        upright = np.array([0.88, 0.0, -0.25])[:, None]
        sway = np.stack([body.wander(self._n, 15.0, 0.012, self._draw) for _ in range(3)]) * self._motion
        gravity = upright + self._lean * np.array([0.1, 0.4, 1.0])[:, None] + sway
        gravity = gravity / np.linalg.norm(gravity, axis=0) * 0.92
        jolts = np.stack([body.wander(self._n, 0.3, 0.006, self._draw) for _ in range(3)]) * self._motion
        axes = [body.at_rate(axis, n_samples, CHEST_RATE) + 0.003 * self._noise(n_samples) for axis in gravity + jolts]
        return np.stack([_converted(axis, 13.1072) for axis in axes], axis=1)

    def wrist_acceleration(self, n_samples: int) -> np.ndarray:
        """Return ``(n, 3)`` in whole 1/64 g."""
        turn = np.stack([body.wander(self._n, 20.0, 0.25, self._draw) for _ in range(3)]) * self._motion
        gravity = self._hand + turn
        gravity = gravity / np.linalg.norm(gravity, axis=0) * 64
        jolts = np.stack([body.wander(self._n, 0.3, 1.5, self._draw) for _ in range(3)]) * self._motion
        axes = [body.at_rate(axis, n_samples, WRIST_ACC_RATE) for axis in gravity + jolts]
        return np.clip(np.round(np.stack(axes, axis=1)), -128.0, 127.0)

    def pulse(self, n_samples: int) -> np.ndarray:
        """Return ``(n, 1)``: the pulse 0.25 s after each beat, narrowed by stress, disturbed by motion."""
        wave = body.replay(body.ppg_cycle(), body.phase(self._heart, n_samples, BVP_RATE, delay=0.25)) - 0.42
        strong = self._draw.lognormal(4.5, 0.4) * np.exp(-0.3 * self._cooling)
        shake = body.wander(n_samples, 0.2, 1.0, self._draw, BVP_RATE) * body.at_rate(
            8 * self._motion, n_samples, BVP_RATE
        )
        return np.round(body.at_rate(strong, n_samples, BVP_RATE) * wave + shake, 2)[:, None]

    def wrist_conductance(self, n_samples: int) -> np.ndarray:
        """Return ``(n, 1)`` in microsiemens: a smaller share of the chest's, at the wrist's own level."""
        level = self._draw.lognormal(-1.2, 0.8) * (self._tonic + 1.5 * self._phasic) / np.median(self._tonic)
        noisy = body.at_rate(level, n_samples, EDA_RATE) + 0.002 * self._noise(n_samples)
        return np.round(np.maximum(noisy, 0.0), 6)[:, None]

    def wrist_temperature(self, n_samples: int) -> np.ndarray:
        """Return ``(n, 1)`` in degrees Celsius, in steps of 0.02."""
        warm = self._draw.normal(32.5, 1.6) + 1.3 * self._warming - self._cooling
        noisy = body.at_rate(warm, n_samples, TEMP_RATE) + 0.01 * self._noise(n_samples)
        return (np.round(noisy * 50) / 50)[:, None]


def _converted(values: np.ndarray, span: float) -> np.ndarray:
    """Return ``values`` as a 16-bit converter over ``span`` gives them back, clipped at its ends."""
    step = span / 2**16
    return np.clip(np.round(values / step), -(2**15), 2**15 - 1) * step
