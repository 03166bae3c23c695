"""Write made-up PAMAP2 files: three body-worn sensors through the activities of the study.

An activity is a posture (where gravity points in each sensor), a cadence with harmonics and impacts, and how strongly
each limb moves. People wear the sensors at other angles, hold themselves otherwise and move at their own pace and
strength. Amplitudes are solved for so that the pooled mean and spread of each column are the published ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.spatial.transform import Rotation

from hcqsfl.data.synthetic import physiology as body
from hcqsfl.data.synthetic.folder import Progress, SyntheticFolder
from hcqsfl.randomness import numpy_generator

RATE = 100.0

SIZES = {
    "tiny": {"n_subjects": 3, "scale": 0.02, "optional": False},
    "small": {"n_subjects": 8, "scale": 0.08, "optional": False},
    "full": {"n_subjects": 9, "scale": 1.0, "optional": True},
}

SUBJECTS = (101, 102, 105, 106, 108, 103, 104, 107, 109)
"""Those who did all twelve activities first."""

SECONDS: Mapping[int, Mapping[int, float]] = {
    1: {101: 271.86, 102: 234.29, 103: 220.43, 104: 230.46, 105: 236.98, 106: 233.39, 107: 256.1, 108: 241.64},
    2: {101: 234.79, 102: 223.44, 103: 287.6, 104: 254.91, 105: 268.63, 106: 230.4, 107: 122.81, 108: 229.22},
    3: {101: 217.16, 102: 255.75, 103: 205.32, 104: 247.05, 105: 221.31, 106: 243.55, 107: 257.5, 108: 251.59},
    4: {101: 222.52, 102: 325.32, 103: 290.35, 104: 319.31, 105: 320.32, 106: 257.2, 107: 337.19, 108: 315.32},
    5: {101: 212.64, 102: 92.37, 105: 246.45, 106: 228.24, 107: 36.91, 108: 165.31},
    6: {101: 235.74, 102: 251.07, 104: 226.98, 105: 245.76, 106: 204.85, 107: 226.79, 108: 254.74},
    7: {101: 202.64, 102: 297.38, 104: 275.32, 105: 262.7, 106: 266.85, 107: 287.24, 108: 288.87},
    9: {101: 836.45},
    10: {105: 1108.82, 106: 617.76, 108: 687.24, 109: 685.49},
    11: {101: 545.18},
    12: {101: 158.88, 102: 173.4, 103: 103.87, 104: 166.92, 105: 142.79, 106: 132.89, 107: 176.44, 108: 116.81},
    13: {101: 148.97, 102: 152.11, 103: 152.72, 104: 142.83, 105: 127.25, 106: 112.7, 107: 116.16, 108: 96.53},
    16: {101: 229.4, 102: 206.82, 103: 203.24, 104: 200.36, 105: 244.44, 106: 210.77, 107: 215.51, 108: 242.91},
    17: {101: 235.72, 102: 288.79, 103: 279.74, 104: 249.94, 105: 330.33, 106: 377.43, 107: 294.98, 108: 329.89},
    18: {101: 271.13, 106: 217.85, 108: 236.49, 109: 273.27},
    19: {101: 540.88, 105: 284.87, 106: 287.13, 108: 416.9, 109: 342.05},
    20: {108: 181.24, 109: 287.88},
    24: {101: 129.11, 102: 132.61, 105: 77.32, 106: 2.55, 108: 88.05, 109: 63.9},
}
"""Seconds of each activity and subject in the study's summary of performed activities."""

_PROTOCOL = (1, 2, 3, 17, 16, 12, 13, 12, 13, 4, 7, 6, 5, 24)  # the stairs were climbed twice
_OPTIONAL = (9, 11, 10, 18, 19, 20)

SENSORS = ("hand", "chest", "ankle")


@dataclass(frozen=True)
class _Column:
    """Published mean and standard deviation of a quantity over all rows of the Protocol files, by axis."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


# Over the Protocol files of Reiss & Stricker (2012); units: degrees Celsius, m/s^2, rad/s, microtesla
_PUBLISHED: Mapping[str, Mapping[str, _Column]] = {
    "hand": {
        "temperature": _Column((32.65,), (1.84,)),
        "acceleration": _Column((-4.96, 3.59, 3.17), (5.99, 6.28, 3.84)),
        "rotation": _Column((-0.004, 0.032, -0.006), (1.297, 0.887, 1.452)),
        "field": _Column((21.2, -14.4, -21.6), (24.0, 24.1, 20.6)),
    },
    "chest": {
        "temperature": _Column((36.15,), (1.59,)),
        "acceleration": _Column((0.38, 8.51, -1.52), (1.62, 4.23, 4.17)),
        "rotation": _Column((0.006, 0.008, -0.021), (0.402, 0.539, 0.292)),
        "field": _Column((3.6, -31.9, 5.5), (16.5, 16.1, 19.9)),
    },
    "ankle": {
        "temperature": _Column((33.69,), (1.18,)),
        "acceleration": _Column((9.55, -0.12, -2.46), (5.71, 6.84, 3.56)),
        "rotation": _Column((0.009, -0.035, 0.008), (1.074, 0.597, 1.843)),
        "field": _Column((-32.7, 1.6, 16.9), (18.9, 21.6, 20.3)),
    },
}
_DROPPED = {"hand": 0.0046, "chest": 0.0012, "ankle": 0.0041}
_HEART_SHARE = 0.0913


@dataclass(frozen=True)
class _Activity:
    """Gravity in m/s^2 as each sensor at rest sees it, cadence in Hz, strength of motion, heart rate in 1/min."""

    hand: tuple[float, float, float]
    chest: tuple[float, float, float]
    ankle: tuple[float, float, float]
    cadence: float
    strength: tuple[float, float, float]  # hand, chest, ankle, relative to one another
    heart: float


_ACTIVITIES: Mapping[int, _Activity] = {
    1: _Activity((-3.8, 3.2, 8.4), (1.3, 1.6, -9.6), (5.7, 0.1, -8.0), 0.25, (0.02, 0.03, 0.01), 76),
    2: _Activity((-4.6, 4.4, 7.5), (0.4, 9.5, -2.3), (9.3, 0.2, -3.3), 0.3, (0.08, 0.06, 0.03), 82),
    3: _Activity((-9.0, 3.6, 1.5), (0.4, 9.8, -0.2), (9.8, 0.2, -1.2), 0.5, (0.12, 0.08, 0.05), 92),
    4: _Activity((-9.2, 2.9, 1.6), (0.5, 9.8, -0.3), (9.7, 0.4, -1.9), 1.85, (0.65, 0.62, 1.05), 117),
    5: _Activity((-5.9, 7.7, 1.5), (0.5, 9.8, 0.2), (9.6, 0.8, -2.1), 2.6, (2.6, 2.9, 2.5), 156),
    6: _Activity((-7.3, 6.0, 2.6), (0.8, 9.0, -3.7), (9.4, 1.0, -2.9), 1.1, (0.35, 0.25, 0.6), 128),
    7: _Activity((-8.2, 4.9, 2.2), (0.5, 9.8, -0.8), (9.7, 0.4, -1.9), 1.8, (0.95, 0.64, 1.10), 126),
    9: _Activity((-3.5, 3.5, 8.5), (0.4, 9.4, -2.9), (9.2, 0.1, -3.5), 0.3, (0.06, 0.05, 0.03), 78),
    10: _Activity((-2.3, 2.6, 9.2), (0.4, 9.6, -1.8), (9.3, 0.2, -3.3), 0.6, (0.10, 0.05, 0.03), 80),
    11: _Activity((-5.6, 4.6, 6.6), (0.4, 9.3, -3.0), (8.0, 0.0, -5.8), 0.5, (0.22, 0.15, 0.08), 88),
    12: _Activity((-8.6, 4.2, 2.2), (0.5, 9.6, -2.1), (9.5, 0.4, -2.4), 1.45, (0.50, 0.46, 0.80), 137),
    13: _Activity((-9.0, 3.4, 1.8), (0.5, 9.8, 0.2), (9.7, 0.3, -1.6), 1.8, (0.58, 0.88, 0.95), 128),
    16: _Activity((-6.4, 5.9, 4.4), (0.6, 9.3, -3.0), (9.7, 0.3, -1.7), 0.9, (0.50, 0.33, 0.35), 110),
    17: _Activity((-5.2, 5.9, 5.9), (0.5, 9.7, -1.4), (9.8, 0.2, -1.3), 0.7, (0.35, 0.13, 0.08), 96),
    18: _Activity((-5.6, 5.9, 5.5), (0.5, 9.7, -1.6), (9.8, 0.2, -1.3), 0.9, (0.50, 0.20, 0.12), 96),
    19: _Activity((-6.4, 5.9, 4.4), (0.5, 9.5, -2.4), (9.7, 0.3, -1.7), 0.8, (0.50, 0.32, 0.30), 104),
    20: _Activity((-7.4, 6.1, 2.0), (0.5, 9.8, -0.1), (9.6, 0.6, -2.0), 2.0, (1.50, 1.50, 1.90), 149),
    24: _Activity((-6.0, 7.5, 2.0), (0.5, 9.8, 0.4), (9.8, 0.6, -0.8), 2.1, (2.4, 2.8, 2.2), 162),
}


_MOUNTING = {"hand": 15.0, "chest": 7.0, "ankle": 6.0}  # degrees, from subject to subject
_LOOSE = {"hand": 0.14, "chest": 0.05, "ankle": 0.03}  # g, from moment to moment
_BEARING = {"hand": 22.0, "chest": 7.0, "ankle": 6.0}  # degrees, from one activity of a subject to the next


def write(
    root: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    n_subjects: int = 9,
    scale: float = 0.1,
    optional: bool = True,
) -> list[Path]:
    """Write ``Protocol/subject10X.dat`` and ``Optional/subject10X.dat``.

    A row is timestamp (s), activity, heart rate (1/min), then for hand, chest and ankle: temperature (degrees Celsius),
    acceleration of two ranges (m/s^2), rotation (rad/s), magnetic field (microtesla), orientation (invalid, as in the
    original); 54 columns, space separated, ``NaN`` where nothing arrived, 100 rows a second.

    Args:
        root: folder to write into.
        seed: root seed.
        progress: called after each file.
        n_subjects: how many, 1 to 9; those who did all twelve activities come first.
        scale: seconds of each activity as a share of the study's; 1 gives 2.8 million rows, 1.3 GB.
        optional: whether to write the Optional files of those who have one.

    Returns:
        The files written.

    Raises:
        ValueError: the counts are out of range, or ``root`` holds files of another origin.

    Source:
        Reiss & Stricker (2012), Introducing a new benchmarked dataset for activity monitoring, ISWC, and the data set's
        readme and summary of performed activities.
    """
    if not 1 <= n_subjects <= len(SUBJECTS):
        raise ValueError(f"{n_subjects} PAMAP2 subjects were asked for; the study has 1 to {len(SUBJECTS)}")
    if not 0.005 <= scale <= 2:
        raise ValueError(f"a scale of {scale} was asked for; 0.005 to 2 times the study's durations are possible")
    wanted: list[tuple[str, int, tuple[int, ...]]] = [
        ("Protocol", subject, _PROTOCOL) for subject in SUBJECTS[:n_subjects]
    ]
    if optional:
        wanted += [("Optional", subject, _OPTIONAL) for subject in SUBJECTS[:n_subjects] if _does(subject, _OPTIONAL)]
    options = {"n_subjects": n_subjects, "scale": scale, "optional": optional}
    folder = SyntheticFolder(root, "pamap2", seed, options, len(wanted), progress)
    for part, subject, order in wanted:
        person = _Person(numpy_generator(seed, "synthetic pamap2", subject))
        rows = person.record(_course(subject, order, scale), numpy_generator(seed, "synthetic pamap2", part, subject))
        _save(rows, folder.path(f"{part}/subject{subject}.dat"))
        folder.tell()
    return folder.finish()


def _does(subject: int, activities: tuple[int, ...]) -> bool:
    return any(subject in SECONDS[activity] for activity in activities)


def _course(subject: int, order: tuple[int, ...], scale: float) -> list[tuple[int, int]]:
    """Return activity and number of rows of each part, with what lies between activities as activity 0."""
    done = [activity for activity in order if subject in SECONDS[activity]]
    pause = max(100, round(88 * scale * RATE))
    course = [(0, pause)]
    for activity in done:
        seconds = SECONDS[activity][subject] * scale / done.count(activity)
        course += [(activity, max(1, round(seconds * RATE))), (0, pause)]
    return course


def _save(rows: np.ndarray, path: Path) -> None:
    """Write rows as C++ streams print numbers: six significant digits, no trailing zeros."""
    line = " ".join(["%.6g"] * rows.shape[1])
    with path.open("w", encoding="ascii", newline="\n") as file:
        for start in range(0, len(rows), 20_000):
            chunk = rows[start : start + 20_000].tolist()
            file.write("\n".join([line % tuple(row) for row in chunk]).replace("nan", "NaN") + "\n")


class _Person:
    """Who wears the sensors how, and moves how."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._mounting = {s: _turn(_MOUNTING[s], generator) for s in SENSORS}
        self._strength = {s: generator.lognormal(-0.03, 0.25) for s in SENSORS}
        self._pace = generator.normal(1.0, 0.05)
        self._heart = generator.normal(0.0, 14.0)
        self._fitness = generator.normal(1.25, 0.2)
        self._warmth = {s: generator.normal(0.0, 0.45) for s in SENSORS}
        self._bearing = {(s, activity): _turn(_BEARING[s], generator) for s in SENSORS for activity in _ACTIVITIES}
        self._vigour = {(s, activity): generator.lognormal(-0.02, 0.18) for s in SENSORS for activity in _ACTIVITIES}
        self._own_pace = {activity: generator.normal(1.0, 0.05) for activity in _ACTIVITIES}

    def record(self, course: list[tuple[int, int]], generator: np.random.Generator) -> np.ndarray:
        """Return ``(n, 54)`` rows."""
        labels = np.repeat([activity for activity, _ in course], [length for _, length in course])
        parts = _with_fragments(course, generator)
        doing = np.repeat([activity for activity, _, _ in parts], [length for _, length, _ in parts])
        vigour = np.repeat([how for _, _, how in parts], [length for _, length, _ in parts])
        n_rows = len(labels)
        rows = np.full((n_rows, 54), np.nan)
        rows[:, 0] = np.round(generator.uniform(5.6, 38.0) + np.arange(n_rows) / RATE, 2)
        rows[:, 1] = labels
        rows[:, 2] = self._heart_rate(doing, generator)
        cadence = self._pace * _look_up({a: _ACTIVITIES[a].cadence * self._own_pace[a] for a in _ACTIVITIES}, doing)
        uneven = np.exp(body.wander(n_rows, 1.5, 0.06, generator, RATE))
        cycles = np.cumsum(_smooth(cadence) * uneven) / RATE
        for index, sensor in enumerate(SENSORS):
            rows[:, 3 + 17 * index : 20 + 17 * index] = self._sensor(sensor, doing, vigour, cycles, generator)
        return rows

    def _heart_rate(self, doing: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return ``(n,)`` whole beats a minute in about one row of eleven, NaN elsewhere."""
        target = 70 + (_look_up({a: _ACTIVITIES[a].heart for a in _ACTIVITIES}, doing) - 70) * self._fitness
        rate = self._heart - 7 + body.lag(target, 25.0, RATE) + body.wander(len(doing), 30.0, 4.0, generator, RATE)
        heard = np.floor(_HEART_SHARE * np.arange(1, len(doing) + 1)) > np.floor(_HEART_SHARE * np.arange(len(doing)))
        return np.where(heard, np.clip(np.round(rate), 57, 202), np.nan)

    def _sensor(
        self, sensor: str, doing: np.ndarray, vigour: np.ndarray, cycles: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """Return ``(n, 17)`` columns of one sensor."""
        place = SENSORS.index(sensor)
        n_rows = len(doing)
        published = _PUBLISHED[sensor]
        gravity = _smooth(
            np.stack(
                [_look_up({a: self._posture(sensor, a)[axis] for a in _ACTIVITIES}, doing) for axis in range(3)],
                axis=1,
            )
        )
        loose = np.stack([body.wander(n_rows, 4.0, _LOOSE[sensor], generator, RATE) for _ in "xyz"], 1)
        strength = _look_up(
            {a: _ACTIVITIES[a].strength[place] * self._strength[sensor] * self._vigour[sensor, a] for a in _ACTIVITIES},
            doing,
        )
        strength = _smooth(strength * vigour) * np.exp(body.wander(n_rows, 2.0, 0.2, generator, RATE))
        acceleration = gravity + 9.81 * loose * np.sqrt(0.3 + strength)[:, None]
        rotation = np.empty((n_rows, 3))
        for axis in range(3):
            wave = np.empty(n_rows)
            spin = np.empty(n_rows)
            for activity in np.unique(doing):
                at = doing == activity
                wave[at] = _wave(cycles[at], activity, sensor, axis, sharpness=5.0)
                spin[at] = _wave(cycles[at] + 0.2, activity, sensor, axis + 3, sharpness=1.5)
            acceleration[:, axis] += (
                _AMPLITUDE[sensor][0][axis] * strength * (wave + body.wander(n_rows, 0.04, 0.55, generator, RATE))
            )
            rotation[:, axis] = published["rotation"].mean[axis] + _AMPLITUDE[sensor][1][axis] * strength * (
                spin + body.wander(n_rows, 0.1, 0.7, generator, RATE)
            )
        acceleration += 0.03 * generator.standard_normal((n_rows, 3))
        rotation += 0.015 * generator.standard_normal((n_rows, 3))
        coarse = acceleration + np.array([0.03, 0.0, 0.3]) + 0.04 * generator.standard_normal((n_rows, 3))
        columns = np.concatenate(
            [
                self._temperature(sensor, n_rows, generator)[:, None],
                np.clip(acceleration, -157, 157),
                np.clip(coarse, -61.9, 61.9),
                rotation,
                _field(published["field"], doing, generator),
                _orientation(n_rows, generator),
            ],
            axis=1,
        )
        columns[_lost(n_rows, _DROPPED[sensor], generator)] = np.nan
        return columns

    def _posture(self, sensor: str, activity: int) -> np.ndarray:
        turn = self._mounting[sensor] * self._bearing[sensor, activity]
        return np.asarray(turn.apply(getattr(_ACTIVITIES[activity], sensor)))

    def _temperature(self, sensor: str, n_rows: int, generator: np.random.Generator) -> np.ndarray:
        """Return ``(n,)`` in steps of 1/16 degree: cold at first, then at the wearer's own level."""
        (mean,), (std,) = _PUBLISHED[sensor]["temperature"].mean, _PUBLISHED[sensor]["temperature"].std
        warming = np.linspace(-1.3, 1.3, n_rows)
        level = mean + std * (self._warmth[sensor] + 1.05 * warming + body.wander(n_rows, 60.0, 0.2, generator, RATE))
        return np.round(np.clip(level, mean - 3.5 * std, mean + 1.6 * std) * 16) / 16


def _turn(degrees: float, generator: np.random.Generator) -> Rotation:
    return Rotation.from_rotvec(np.deg2rad(degrees) * generator.standard_normal(3) / np.sqrt(2))


def _look_up(table: Mapping[int, float], doing: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` ``table[activity]`` for each row."""
    values = np.zeros(max(table) + 1)
    values[list(table)] = list(table.values())
    return values[doing]


def _smooth(levels: np.ndarray) -> np.ndarray:
    """Average over half a second: nobody changes posture between two samples."""
    return np.asarray(uniform_filter1d(levels, 50, axis=0, mode="nearest"))


def _with_fragments(course: list[tuple[int, int]], generator: np.random.Generator) -> list[tuple[int, int, float]]:
    """Break what lies between activities into stretches of some seconds of something or other.

    Returns:
        Activity, rows and vigour of each stretch.
    """
    parts: list[tuple[int, int, float]] = []
    for activity, length in course:
        if activity:
            parts.append((activity, length, 1.0))
            continue
        while length > 0:
            rows = min(length, int(generator.integers(200, 1200)))
            some = int(generator.choice([2, 3, 4, 12, 16, 17, 18, 19]))
            parts.append((some, rows, float(generator.lognormal(0.1, 0.4))))
            length -= rows
    return parts


def _wave(cycles: np.ndarray, activity: int, sensor: str, axis: int, sharpness: float) -> np.ndarray:
    """Return the motion of one axis, of mean 0 and spread 1: two harmonics and an impact in each cycle.

    The shape belongs to the activity and is the same for everybody, whatever the seed.
    """
    shape = numpy_generator(0, "pamap2 shape", activity, sensor, axis)
    weights = shape.uniform(0.4, 1.0), shape.uniform(0.1, 0.8), shape.uniform(0.2, 1.0) * shape.choice([-1, 1])
    starts = shape.uniform(0, 1, 3)

    def at(place: np.ndarray) -> np.ndarray:
        angle = 2 * np.pi * (place[:, None] + starts)
        impact = np.exp(sharpness * (np.cos(angle[:, 2]) - 1))
        return np.asarray(
            weights[0] * np.sin(angle[:, 0]) + weights[1] * np.sin(2 * angle[:, 1]) + 2 * weights[2] * impact
        )

    period = at(np.linspace(0, 1, 512, endpoint=False))
    return (at(cycles % 1.0) - period.mean()) / period.std()


def _field(published: _Column, doing: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return ``(n, 3)`` the earth's field as the wearer turns about."""
    heading = 2 * np.pi * generator.random() + body.wander(len(doing), 25.0, 2.0, generator, RATE)
    offsets = 2 * np.pi * generator.random(3)
    axes = [
        mean
        + std * (1.05 * np.sin(heading + offset) + body.wander(len(doing), 8.0, 0.65, generator, RATE))
        + 0.4 * generator.standard_normal(len(doing))
        for mean, std, offset in zip(published.mean, published.std, offsets, strict=True)
    ]
    return np.stack(axes, axis=1)


def _orientation(n_rows: int, generator: np.random.Generator) -> np.ndarray:
    """Return ``(n, 4)`` unit quaternions that mean nothing, as in the original."""
    free = np.stack([body.wander(n_rows, 30.0, 1.0, generator, RATE) for _ in range(4)], axis=1)
    free[:, 0] = np.abs(free[:, 0]) + 0.5
    return free / np.linalg.norm(free, axis=1, keepdims=True)


def _lost(n_rows: int, share: float, generator: np.random.Generator) -> np.ndarray:
    """Return which rows the radio lost: bursts of some samples that make up ``share`` of all."""
    begins = np.flatnonzero(generator.random(n_rows) < share / 5.0)
    lost = np.zeros(n_rows, bool)
    for begin, length in zip(begins, generator.geometric(0.2, len(begins)), strict=True):
        lost[begin : begin + length] = True
    return lost


# mean square strength of all rows against that of the activities: a third lies between them
_PAUSES = {"hand": 0.85, "chest": 0.75, "ankle": 0.92}


def _amplitudes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Solve for the amplitudes of acceleration and rotation that give the published spread over all rows.

    The spread has two parts: that of the postures, and that of the motion, whose square is the amplitude's times the
    mean square strength.
    """
    protocol = {a: sum(SECONDS[a].values()) for a in set(_PROTOCOL)}
    total = sum(protocol.values())
    found = {}
    for place, sensor in enumerate(SENSORS):
        strength = sum(s * _ACTIVITIES[a].strength[place] ** 2 for a, s in protocol.items()) / total
        mean_square = strength * np.exp(2 * (0.25**2 + 0.18**2 + 0.2**2)) * _PAUSES[sensor]
        postures = np.array([getattr(_ACTIVITIES[a], sensor) for a in protocol])
        weights = np.array(list(protocol.values())) / total
        spread = weights @ (postures - weights @ postures) ** 2
        wanted = np.array(_PUBLISHED[sensor]["acceleration"].std) ** 2
        moving = np.maximum(wanted - spread, 0.3 * wanted) / (1 + 0.55**2)
        turning = np.array(_PUBLISHED[sensor]["rotation"].std) ** 2 / (1 + 0.7**2)
        found[sensor] = (np.sqrt(moving / mean_square), np.sqrt(turning / mean_square))
    return found


_AMPLITUDE = _amplitudes()
