"""Windows for tests, small enough to check by eye."""

import numpy as np

from hcqsfl.data.windows import Windows


def windows(
    y,
    subject,
    x=None,
    start=None,
    channels: tuple[str, ...] = ("ECG", "EDA"),
    units: tuple[str, ...] = ("mV", "uS"),
    n_times: int = 4,
    seed: int = 0,
) -> Windows:
    y = np.asarray(y)
    n = len(y)
    if x is None:
        x = np.random.default_rng(seed).normal(size=(n, len(channels), n_times))
    return Windows(
        x=np.asarray(x),
        y=y,
        subject=np.broadcast_to(np.asarray(subject), (n,)).astype(str),
        start=np.arange(n) * n_times if start is None else np.asarray(start),
        recording=np.zeros(n, dtype=np.int64),
        stratum=y,
        sfreq=4.0,
        channels=channels,
        units=units,
        classes=tuple(f"class {i}" for i in range(int(y.max()) + 1 if n else 1)),
    )
