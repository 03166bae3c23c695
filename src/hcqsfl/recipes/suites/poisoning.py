"""Malicious clients against one training: it is run again with each attack in it, defended as it is configured."""

from functools import partial

from hcqsfl.recipes.poisoned import HONEST, N_SMOKE, Scene, Shield, Shot, catalogue
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.victim import Victim

SHARES = {"smoke": (0.4,), "paper": (0.1, 0.2, 0.3, 0.4)}


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return what is run on one training; whatever shares of the clients come to equally many is run once."""
    windows = victim.windows
    guard = victim.config.federation.guard.removeprefix("none")
    scene = Scene(victim.config, victim.arm, victim.seed, victim.prepared, windows.sfreq, profile.n_resamples)
    shots = catalogue(windows.classes, windows.n_times)[: N_SMOKE if profile.name == "smoke" else None]
    return [
        Case(f"{shot.label}/{share:g}", partial(scene.run, shot, share, Shield(guard=guard)))
        for shot, share in pairs(scene, shots, SHARES[profile.name])
    ]


def pairs(scene: Scene, shots: list[Shot], shares: tuple[float, ...]) -> list[tuple[Shot, float]]:
    """Return attacks and shares: the honest run first, then each attack at each share that adds attackers."""
    by_number = {len(scene.malicious(share)): share for share in sorted(shares, reverse=True) if share > 0}
    return [(HONEST, 0.0), *((shot, share) for shot in shots for share in sorted(by_number.values()))]
