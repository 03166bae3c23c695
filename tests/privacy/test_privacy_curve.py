"""The grid of defences is whole and buildable; claims say all; a curve is run and goes on where it stopped."""

import json
import math
from dataclasses import replace

import pytest

from hcqsfl import build, config
from hcqsfl.evaluation.pooled import POOLED, _setting
from hcqsfl.evaluation.privacy_curve import TASK
from hcqsfl.privacy.defences import DEFENCES
from hcqsfl.recipes import privacy_curve as recipe
from hcqsfl.recipes.defence_grid import SETTINGS, override
from hcqsfl.recipes.privacy_claims import as_facts, claims
from hcqsfl.recipes.profiles import PROFILES
from hcqsfl.recipes.suites import people
from privacy.made_run import CONFIG, made_run, victim_of, write_table

ON_OFF = {"none", "u_shape", "secure_aggregation", "encrypted_aggregation"}


def test_every_defence_of_the_design_has_a_name_and_five_strengths_or_is_on_or_off() -> None:
    assert {s.id for s in SETTINGS.values()} >= {f"D{i}" for i in range(15)}
    for name, setting in SETTINGS.items():
        assert name in ON_OFF or len(setting.strengths) >= 5, name
    named = {overrides.get("defence.name") for setting in SETTINGS.values() for overrides in setting.strengths.values()}
    assert named - {None} <= set(DEFENCES)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    write_table(folder / "data" / "table")
    (folder / "c.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HCQSFL_DATA", str(folder / "data"))
        yield folder


def test_every_setting_of_the_grid_can_be_built(home) -> None:
    base = config.load(home / "c.toml")
    windows = build.windows(base, home / "cache")
    prepared = build.prepare(base, windows, build.make_folds(base, windows)[0])
    for name, setting in SETTINGS.items():
        for strength, overrides in setting.strengths.items():
            settings = override(base.model_dump(mode="json", exclude_none=True), overrides)
            made = config.parse(settings, f"{name} {strength}", config.Config)
            assert build.setup(made, build.arms(made)[0], 0, prepared).federation.clients


def test_claims_say_unit_neighbours_accountant_and_releases_and_are_never_merged(home) -> None:
    sets = ["defence.name=gaussian", "defence.options={noise_multiplier=2.0}", "dp_sgd={noise_multiplier=1.0}"]
    made = config.load(home / "c.toml", [*sets, "federation.local_epochs=1"])
    windows = build.windows(made, home / "cache")
    prepared = build.prepare(made, windows, build.make_folds(made, windows)[0])
    told = claims(made, prepared)
    assert [(s.protects, s.unit) for s in told] == [
        ("smashed data", "window"),
        ("smashed data", "subject"),
        ("models", "window"),
        ("models", "subject"),
    ]
    assert told[0].releases == 4  # rounds
    assert told[2].releases == 4 * math.ceil(32 / 8)
    assert told[3].vacuous
    assert "practically vacuous; " in str(told[3])
    assert "one of 3 training subjects" in str(told[1])
    assert all(json.dumps(fact, allow_nan=False) for fact in as_facts(told))
    with pytest.raises(TypeError, match="two claims"):
        told[0] + told[2]


def test_a_curve_is_run_cell_by_cell_and_not_run_again(home, monkeypatch) -> None:
    made = config.load(home / "c.toml", ["federation.rounds=2", "evaluation.n_resamples=100"])
    ask = {"cache": home / "cache", "defences": ["none"], "arms": ["classical"], "attacks": ["linear_probe"]}
    found = recipe.privacy_curve(made, home / "curve", "smoke", **ask)
    assert {p.defence for p in found.points} == {"none"}
    assert {row.attack for row in found.rows} == {TASK, "linear_probe"}
    assert all(path.stat().st_size for path in found.files)
    assert not list((home / "curve").glob("cells/**/tap.bin"))
    page = (home / "curve" / "privacy-smoke.html").read_text(encoding="utf-8")
    assert "linear_probe" in page
    assert "http-equiv" in page
    assert not [x for x in ("<script", 'src="http', "<link") if x in page]
    (attacked,) = (home / "curve").glob("cells/*/*/attacks/report-smoke.html")
    assert "main server" in attacked.read_text(encoding="utf-8")

    def refuse(*args, **options):
        raise AssertionError("it was run again")

    monkeypatch.setattr(recipe, "train", refuse)
    again = recipe.privacy_curve(made, home / "curve", "smoke", **ask)
    assert again.rows == found.rows
    with pytest.raises(ValueError, match="did you mean 'gaussian'"):
        recipe.privacy_curve(made, home / "curve", "smoke", **(ask | {"defences": ["gausian"]}))


def test_all_trainings_of_a_cell_are_attacked_and_pooled_and_data_are_scanned_once(home, monkeypatch) -> None:
    made = config.load(home / "c.toml", ["federation.rounds=2", "evaluation.n_resamples=100", "evaluation.seeds=[0,1]"])
    scans, scan = [], build.scan
    monkeypatch.setattr(build, "scan", lambda *args: scans.append(args) or scan(*args))
    ask = {"defences": ["none", "bottleneck"], "arms": ["classical"], "attacks": ["linear_probe"], "networks": "all"}
    found = recipe.privacy_curve(made, home / "all", "smoke", cache=home / "cache", **ask)
    assert len(scans) == 1
    attacked = [row for row in found.rows if row.attack == "linear_probe" and row.score is not None]
    pooled = [row for row in attacked if POOLED in row.facts]
    assert {row.seed for row in attacked} == {0, 1}
    cells = {row.defence for row in attacked}
    assert cells == {"none: none", *(f"bottleneck: n_smashed={n}" for n in (32, 16, 8, 4, 2, 1))}
    assert {row.defence for row in pooled} == cells
    for row in pooled:
        parts = [r for r in attacked if r is not row and _setting(r) == _setting(row) and POOLED not in r.facts]
        assert row.score == pytest.approx(sum(r.score for r in parts) / len(parts))


def test_two_settings_at_a_time_give_the_rows_of_one_after_the_other(home) -> None:
    made = config.load(home / "c.toml", ["federation.rounds=1", "evaluation.n_resamples=100"])
    ask = {"cache": home / "cache", "defences": ["bottleneck"], "arms": ["classical"], "attacks": ["linear_probe"]}
    one, two = (recipe.privacy_curve(made, home / f"apart {n}", "smoke", n_processes=n, **ask).rows for n in (1, 2))
    assert [replace(row, seconds=0.0) for row in two] == [replace(row, seconds=0.0) for row in one]
    assert len({row.defence for row in two}) == 6


def test_a_fed_server_under_secure_aggregation_is_shown_no_clients_update(tmp_path, monkeypatch) -> None:
    sets = ["federation.secure_aggregation=masks", "federation.rounds=2", "evaluation.n_resamples=100"]
    victim = victim_of(made_run(tmp_path, monkeypatch, *sets))
    seen = victim.observe("T4")
    assert [list(each) for each in seen.updates.values()] == [["group-1"], ["group-1"]]
    names = {client.name for client in victim.setup.federation.clients}
    by_update = next(case for case in people.cases(victim, PROFILES["smoke"]) if case.key == "linear_probe/T4/updates")
    (row,) = by_update.run()
    assert "sees no client's update, only means of groups" in row.facts["not_applicable"]
    recorded = victim.record.rounds[1]
    assert not names & {name for each in recorded.updates.values() for name in each}
