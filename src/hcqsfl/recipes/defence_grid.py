"""Every defence of the evaluation design under one name, and what settings make it, from weak to strong."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Overrides = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """One defence.

    Attributes:
        id: its row in the evaluation design: ``"D4"``.
        name: of the row in tables.
        against: what it is meant to protect.
        strengths: label to the settings that make it, from weakest to strongest; keys are ``section.key``.
        binary: whether it is for two classes alone.
        note: what it cannot do.
    """

    id: str
    name: str
    against: str
    strengths: Mapping[str, Overrides]
    binary: bool = False
    note: str = ""


def _defence(name: str, option: str, values: tuple[float, ...], **fixed: Any) -> dict[str, Overrides]:
    return {
        f"{option}={value:g}": {"defence.name": name, "defence.options": {option: value, **fixed}} for value in values
    }


def _set(key: str, values: tuple[Any, ...], short: str, **fixed: Any) -> dict[str, Overrides]:
    more = {name.replace("__", "."): value for name, value in fixed.items()}
    return {f"{short}={value}": {key: value, **more} for value in values}


def _aggregator(name: str, **options: Any) -> Overrides:
    return {"federation.aggregator": name, "federation.aggregator_options": options}


NOISE = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)

_COMBINED: dict[str, Overrides] = {
    f"noise_multiplier={noise:g}": {
        "model.n_smashed": 4,
        "defence.name": "memoised_gaussian",
        "defence.options": {"noise_multiplier": noise, "clip": 4.0},
        "federation.secure_aggregation": "masks",
        **_aggregator("norm_clipping"),
        "federation.guard": "norm",
    }
    for noise in (0.02, 0.05, 0.1, 0.25, 0.5)
}

SETTINGS: dict[str, Setting] = {
    s.name: s
    for s in (
        Setting("D0", "none", "nothing", {"none": {}}),
        Setting(
            "D1",
            "u_shape",
            "labels",
            {"shared": {"federation.label_sharing": True}, "kept": {"federation.label_sharing": False}},
            note="two settings there are; with labels shared, label leakage is 100 % by design",
        ),
        Setting("D2", "bottleneck", "windows", _set("model.n_smashed", (32, 16, 8, 4, 2, 1), "n_smashed")),
        Setting(
            "D3",
            "nopeek",
            "windows",
            _defence("nopeek", "alpha", (0.1, 0.3, 0.5, 0.7, 0.9)),
            note="no guarantee; a decoder trained on the defended front reads what the correlation does not show",
        ),
        Setting(
            "D4",
            "gaussian",
            "windows",
            _defence("gaussian", "noise_multiplier", NOISE, clip=4.0),
            note="epsilon grows with every release",
        ),
        Setting(
            "D5",
            "memoised_gaussian",
            "windows",
            _defence("memoised_gaussian", "noise_multiplier", NOISE, clip=4.0),
            note="one release only while the front stands still; differences over rounds hold no noise",
        ),
        Setting(
            "D6",
            "dfil",
            "windows",
            _defence("dfil", "bound", (1.0, 0.1, 0.01, 0.001, 0.0001)),
            note="bounds unbiased attackers, one release; an attacker with a prior is biased",
        ),
        Setting(
            "D7",
            "dp_sgd",
            "membership",
            _set("dp_sgd.noise_multiplier", (0.02, 0.1, 0.5, 1.0, 2.0), "noise"),
            note="hides nothing at the cut; the weakest one is the high-utility baseline of heuristic defences",
        ),
        Setting("D8", "randomised_response", "labels", _defence("randomised_response", "epsilon", (6, 4, 2, 1, 0.5))),
        Setting("D8", "max_norm", "labels", _defence("max_norm", "strength", (0.25, 0.5, 1, 2, 4))),
        Setting("D8", "marvell", "labels", _defence("marvell", "strength", (0.25, 1, 4, 10, 25)), binary=True),
        Setting(
            "D9",
            "codec",
            "nothing: bytes",
            {
                **_set("federation.codec", ("float16", "int8", "int4"), "codec"),
                **{
                    f"topk={share:g}": {"federation.codec": "topk", "federation.codec_options": {"share": share}}
                    for share in (0.5, 0.25)
                },
            },
            note="saves bytes; no defence",
        ),
        Setting(
            "D10",
            "secure_aggregation",
            "single updates",
            {"masks": {"federation.secure_aggregation": "masks"}},
            note="on or off: hides updates from the fed server, nothing at the cut",
        ),
        Setting(
            "D11",
            "encrypted_aggregation",
            "single updates",
            {"ckks": {"federation.secure_aggregation": "ckks"}},
            note="on or off, as secure aggregation; the server does not see the sum either",
        ),
        Setting(
            "D12",
            "robust_aggregation",
            "poisoning",
            {
                "norm_clipping": _aggregator("norm_clipping"),
                "trimmed_mean": _aggregator("trimmed_mean", n_attackers=1),
                "median": _aggregator("median"),
                "geometric_median": _aggregator("geometric_median"),
                "centred_clipping": _aggregator("centred_clipping"),
            },
            note="protects the client halves; the trunk needs federation.guard; no privacy",
        ),
        Setting(
            "D13",
            "adversarial_training",
            "evasion",
            _defence("adversarial_training", "epsilon", (0.02, 0.05, 0.1, 0.2, 0.5)),
            note="for evasion; no privacy",
        ),
        Setting(
            "D14",
            "combined",
            "windows and updates",
            _COMBINED,
            note="bottleneck, memoised noise, masks, a trunk guard; under masks in one group the aggregation rule sees "
            "the mean alone, so that robustness rests on the guard (or on federation.secure_options.n_groups)",
        ),
        Setting(
            "–",
            "two_pi",
            "nothing",
            {
                f"turns={turns}": {
                    "defence.name": "two_pi",
                    "defence.options": {"turns": turns},
                    "trunk.angles": "wrapped",
                }
                for turns in (0, 1, 2, 4, 8)
            },
            note="undone by a remainder",
        ),
    )
}
"""Name to defence: all of D0 to D14."""

SMOKE = ("none", "bottleneck", "nopeek", "gaussian", "memoised_gaussian", "dfil", "dp_sgd")
"""Those that the smoke profile runs unless others are named."""


def override(settings: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Return settings, as a mapping of sections, with keys set anew; what is there is left alone."""
    made = {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        made.setdefault(section, {})[name] = value
    return made
