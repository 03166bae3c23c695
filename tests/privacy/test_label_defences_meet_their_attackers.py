"""Defences of labels fall to who knows them: lies to a classifier, fresh noise to an average, rounding to a decoder."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.defences.max_norm import MaxNorm
from hcqsfl.privacy.defences.randomised_response import RandomisedResponse
from hcqsfl.privacy.defences.two_pi import TwoPi
from hcqsfl.privacy.inversion.coded import Coded
from hcqsfl.privacy.metrics.labels import leak_auc, top_1
from hcqsfl.privacy.observation import Observation, Target, as_noise
from hcqsfl.privacy.record import Exchange
from hcqsfl.recipes.attack import attack
from hcqsfl.recipes.suites.adversary import Unturned, as_read
from hcqsfl.recipes.suites.labels import draw_labelled
from hcqsfl.split.codecs import make
from privacy.made_run import made_run
from privacy.test_defences_meet_their_attackers import found, setting, wide

N, WIDTH = 300, 4


def world(told: torch.Tensor, y: torch.Tensor, gradients, n_labelled: int):
    """Return what a server sees of windows of two classes whose gradients are made from what was told."""
    generator = torch.Generator().manual_seed(3)
    smashed = (2.0 * y - 1)[:, None] + 0.8 * torch.randn(N, WIDTH, generator=generator)
    exchanges = [Exchange("A", i + 1, 1, smashed, smashed, g, g) for i, g in enumerate(gradients(told))]
    last = len(exchanges) - 1
    targets = [Target(last, i) for i in range(N)]
    links = {i: [Target(k, i) for k in range(last)] for i in range(N)}
    labelled = draw_labelled(y.numpy(), n_labelled, 2, 0)
    make_none = torch.nn.Identity
    knows = Knowledge(torch.zeros(N, 1, 1), y, ["B"] * N, 2, make_none, make_none, make_none, labelled=labelled)
    return Observation("T1", False, exchanges, targets), knows, links


def labels(name, seen, knows, y) -> tuple[float, float]:
    scores = attacks.make(name).run(seen, knows, Budget(100), 0).labels.numpy()
    asked = [i for i in range(N) if i not in knows.labelled]
    return float(top_1(scores, y.numpy())[asked].mean()), leak_auc(scores[asked], y.numpy()[asked])


def test_lies_about_labels_are_seen_through_by_who_knows_how_often_they_are_told() -> None:
    y = torch.arange(N) % 2
    windows = torch.arange(float(N))[:, None, None]
    clients = RandomisedResponse(1.0, n_outputs=2, seed=1, client="A")
    told = clients.labels(y, windows)
    unit = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    seen, knows, _ = world(told, y, lambda told: [unit[told]], 20)
    aware = replace(knows, defence=RandomisedResponse(1.0, n_outputs=2, seed=2, client="attacker"))
    as_told = float((told == y).float().mean())
    assert as_told == pytest.approx(clients.truth, abs=0.08)  # 0.73
    assert labels("label_direction", seen, aware, y)[0] < as_told + 0.03
    assert labels("label_denoising", seen, aware, y)[0] > as_told + 0.15
    assert labels("label_denoising", as_noise(seen, 0), aware, y)[0] < 0.62


def test_lengths_that_were_made_alike_differ_again_on_average() -> None:
    y = (torch.arange(N) % 5 == 0).long()
    clients = MaxNorm(1.0, seed=1, client="A")
    generator = torch.Generator().manual_seed(4)
    unit = torch.nn.functional.normalize(torch.randn(N, WIDTH, generator=generator), dim=1)
    spread = torch.exp(0.4 * torch.randn(N, 1, generator=generator))

    def gradients(told):
        return [clients.gradient((1.0 + 2.0 * told)[:, None] * spread * unit / N, told) for _ in range(30)]

    seen, knows, links = world(y, y, gradients, 5)
    knows = replace(knows, labelled={})
    once, often = (labels("label_norm", seen, replace(knows, releases=r), y)[1] for r in ({}, links))
    assert once < 0.6
    assert often > once + 0.2
    assert abs(labels("label_norm", as_noise(seen, 0), replace(knows, releases=links), y)[1] - 0.5) < 0.1


def test_a_codec_is_no_defence_against_a_decoder_that_was_trained_through_it() -> None:
    x, seen, knows = setting(wide, 0.0)
    codec = make("topk", share=0.1)
    made = Coded(codec)(seen.exchanges[0].smashed)
    coded = replace(seen, exchanges=[replace(e, smashed=made) for e in seen.exchanges])
    alone = replace(knows, releases={})
    unaware, aware = found(x, coded, alone), found(x, coded, replace(alone, defence=Coded(codec)))
    assert aware > unaware + 0.05
    assert aware > 0.85
    assert abs(found(x, as_noise(coded, 0), replace(alone, defence=Coded(codec)))) < 0.2


def test_whole_turns_are_no_defence_against_who_takes_the_remainder() -> None:
    x, seen, knows = setting(wide, 0.0)
    turned = TwoPi(3, seed=1, client="A")(seen.exchanges[0].smashed)
    hidden = replace(seen, exchanges=[replace(e, smashed=turned) for e in seen.exchanges])
    victim = SimpleNamespace(config=SimpleNamespace(defence=SimpleNamespace(name="two_pi")))
    alone = replace(knows, releases={})
    assert found(x, hidden, alone) < 0.4
    assert found(x, as_read(victim, hidden), replace(alone, defence=Unturned())) > 0.9


def test_what_a_codec_rounds_is_passed_back_as_if_it_had_not() -> None:
    z = torch.randn(3, 8, requires_grad=True)
    sent = Coded(make("int4"))(z)
    sent.sum().backward()
    assert np.allclose(z.grad, 1.0)
    assert 0 < float((sent - z).detach().abs().max()) < 0.5


def test_whole_turns_hide_nothing_from_who_takes_them_off(tmp_path, monkeypatch) -> None:
    probe, others = "linear_probe/T1/smashed", ("label_clusters/T1/smashed/5", "cut_membership")
    named, found = {}, {}
    for turns in (0, 3):
        sets = ["trunk.angles=wrapped", "defence.name=two_pi", f"defence.options={{turns={turns}}}"]
        run = made_run(tmp_path, monkeypatch, *sets, "federation.rounds=2", out=f"turns {turns}")
        rows = attack(run, "privacy", "smoke", cache=tmp_path / "cache", only=[probe, *others], arms=["hybrid"])
        named[turns] = {row.knowledge: row.score for row in rows if row.metric == "re-identification top-1"}
        found[turns] = {row.attack: row.score for row in rows if row.metric in ("leak AUC", "membership AUC")}
    (plain,) = (knows for knows in named[0] if "averaged" not in knows)
    (knowing,) = (knows for knows in named[0] if "averaged" in knows)
    assert named[3][knowing] == named[0][knowing]
    assert named[3][plain] < named[0][plain]
    assert set(found[0]) == {"label_clusters", "cut_membership"}
    assert found[3] == pytest.approx(found[0], abs=0.01)
