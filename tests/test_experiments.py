"""Reproduce: nothing twice, in order, through failures and signals; and the tables at the end."""

import csv
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import call
from PIL import Image
from plan_runs import CASES, LAST_STEP, leave_checkpoint, leave_record, tiny_config, tiny_plan
from tiny_store import write_store

from cyclesh import experiments
from cyclesh.data.store import Store
from cyclesh.errors import NonFiniteError, Stopped, UserError
from cyclesh.evidence import conduct, figures, records, slurm, tables
from cyclesh.evidence.plan import plan_for
from cyclesh.evidence.trials import config_of, steps_of


class Spawned:
    """Stands for the processes of trials: notes their names and leaves records."""

    def __init__(self, workdir: Path, statuses: dict[str, int] | None = None):
        self.workdir, self.statuses, self.names = Path(workdir), statuses or {}, []

    def __call__(self, trial, share) -> SimpleNamespace:
        self.names.append(trial.name)
        status = self.statuses.get(trial.name, 0)
        plan = tiny_plan()
        if status == 0:
            leave_record(plan, trial, self.workdir)
        if status == 3:
            records.write_failed(plan, trial, self.workdir, records.NON_FINITE, "step 3: seg/total")
        return SimpleNamespace(poll=lambda: status)


WORDS = ["--mode=reproduce", "--config=configs/joint.py:tiny,epochs=2", "--quiet"]


def rows(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def run(workdir: Path, spawned: Spawned, only=("table1",)):
    return experiments.reproduce(tiny_config(), workdir, only, quiet=True, start=spawned)


def test_every_trial_runs_once_after_its_parents_and_a_finished_one_never_again(tmp_path):
    spawned, plan = Spawned(tmp_path), tiny_plan()
    run(tmp_path, spawned)
    assert sorted(spawned.names) == sorted(t.name for t in plan.wanted(["table1"]))
    for name in spawned.names:
        before = spawned.names[: spawned.names.index(name)]
        assert set(plan.trials[name].after) <= set(before)
    again = Spawned(tmp_path)
    run(tmp_path, again)
    assert again.names == []
    run(tmp_path, again, ("table1", "table2"))
    assert again.names and not set(again.names) & set(spawned.names)


def test_a_stop_ends_it_and_the_same_call_goes_on(tmp_path):
    stopped = Spawned(tmp_path, {"all-ours-s0": 75})
    with pytest.raises(Stopped, match="all-ours-s0"):
        run(tmp_path, stopped)
    assert not (tmp_path / "table1.csv").exists()
    rest = Spawned(tmp_path)
    run(tmp_path, rest)
    assert rest.names[0] == "all-ours-s0" and not set(rest.names) & set(stopped.names[:-1])
    assert len(rows(tmp_path / "table1.csv")) == 2 * 2 * 6


def test_records_alone_go_on_elsewhere_and_only_parents_that_are_needed_train_again(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    run(here, Spawned(here))
    (there / "runs").mkdir(parents=True)
    for record in (here / "runs").glob("*.json"):
        if record.stem != "all-ours-s1":
            shutil.copy(record, there / "runs")
    spawned = Spawned(there)
    run(there, spawned)
    assert spawned.names == ["all-gan-s1", "all-seg-s1", "all-ours-s1"]
    assert (there / "table1.csv").read_text() == (here / "table1.csv").read_text()


def test_a_parent_that_was_ended_while_it_trained_again_is_not_taken_for_its_record(tmp_path):
    plan = tiny_plan()
    run(tmp_path, Spawned(tmp_path))
    parent, child = plan.trials["all-gan-s1"], plan.trials["all-ours-s1"]
    shutil.rmtree(tmp_path / "runs" / parent.name)
    leave_checkpoint(parent, tmp_path, LAST_STEP - 2)  # in its folder, but too early a `last`
    (tmp_path / "runs" / parent.name / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
    records.record_path(tmp_path, child.name).unlink()
    with pytest.raises(UserError, match=f"starts from {parent.name}; run that first"):
        conduct.run_trial(tmp_path, child.name, quiet=True)
    spawned = Spawned(tmp_path)
    run(tmp_path, spawned)
    assert spawned.names == [parent.name, child.name]


def test_a_loss_that_is_not_finite_is_named_and_costs_no_other_row(tmp_path):
    spawned = Spawned(tmp_path, {"all-gan-s1": 3})
    with pytest.raises(NonFiniteError, match="all-gan-s1"):
        run(tmp_path, spawned)
    assert "all-ours-s1" not in spawned.names and "all-ours-s0" in spawned.names
    table = rows(tmp_path / "table1.csv")
    assert len(table) == 2 * 2 * 6 and {row["n"] for row in table} == {"1"}
    page = (tmp_path / "table1.md").read_text()
    assert "all-gan-s1 (non-finite loss: step 3" in page and "all-ours-s1 (parent failed" in page
    again = Spawned(tmp_path)
    with pytest.raises(NonFiniteError):
        run(tmp_path, again)
    assert again.names == []


def test_what_failed_for_its_parent_runs_once_that_has_a_result(tmp_path):
    failed = ["all-gan-s1", "all-no_sc-s1", "all-ours-s1"]
    for _ in range(2):
        with pytest.raises(NonFiniteError, match="3 trials without result"):
            run(tmp_path, Spawned(tmp_path, {failed[0]: 3}))
    plan, (parent, *children) = tiny_plan(), failed
    records.record_path(tmp_path, parent).unlink()  # to try it again: its children follow
    missing = records.to_run(plan, plan.wanted(["table1"]), tmp_path)
    assert sorted(trial.name for trial in missing) == sorted(failed)
    leave_record(plan, plan.trials[parent], tmp_path)  # by itself, as on a cluster
    spawned = Spawned(tmp_path)
    run(tmp_path, spawned)
    assert sorted(spawned.names) == sorted(children)
    assert {row["n"] for row in rows(tmp_path / "table1.csv")} == {"2"}
    assert "without result" not in (tmp_path / "table1.md").read_text()


@pytest.mark.parametrize(("status", "error"), [(2, UserError), (1, RuntimeError), (-9, UserError)])
def test_any_other_end_of_a_trial_stops_everything(status, error, tmp_path):
    spawned = Spawned(tmp_path, {"all-gan-s0": status})
    with pytest.raises(error, match="all-gan-s0"):
        run(tmp_path, spawned)
    assert spawned.names[-1] == "all-gan-s0"


def test_tables_hold_means_over_seeds_of_the_right_scores(tmp_path):
    run(tmp_path, Spawned(tmp_path), ("table1", "table2"))
    table = {(r["method"], r["modality"], r["structure"]): r for r in rows(tmp_path / "table2.csv")}
    assert (
        (tmp_path / "table2.csv").read_text().startswith("method,modality,structure,x,mean,sd,n\n")
    )
    # 0.3 + 0.2 (ours) + 0.04 (third structure) + 0.005 (MR) + 0.005 (mean of seeds 0 and 1)
    row = table["ours", "mr", "LA"]
    assert float(row["mean"]) == pytest.approx(0.55) and row["n"] == "2" and row["x"] == ""
    assert float(row["sd"]) == pytest.approx(0.01 / 2**0.5, rel=1e-4)
    assert {method for method, *_ in table} == {"baseline", "ada", "ours"}
    found = {(r["comparison"], r["modality"]): r for r in rows(tmp_path / "table2_differences.csv")}
    row = found["ours - baseline", "ct"]
    assert float(row["mean"]) == pytest.approx(0.2) == pytest.approx(float(row["low"]))
    assert (row["seeds"], row["subjects"], row["primary"]) == ("2", "3", "1")
    assert float(found["ours - ada", "mr"]["mean"]) == pytest.approx(0.1)
    page = (tmp_path / "table2.md").read_text()
    assert "Yes for CT with 2 real training volumes (+0.200 Dice, 95 % interval " in page
    assert "g" * 40 in page and "d" * 64 in page and "seeds: 0, 1" in page
    table = {(r["method"], r["structure"]) for r in rows(tmp_path / "table1.csv")}
    assert {("no_sc", "mean"), ("sc", "Myo")} <= table


def test_volumes_of_one_subject_are_one_subject_of_an_interval(tmp_path):
    run(tmp_path, Spawned(tmp_path), ("table2",))
    for name, record in records.read_records(tmp_path).items():
        change_record(tmp_path, name, subjects=record["subjects"] | {"ct_1": "p", "ct_2": "p"})
    experiments.write_output(tmp_path, "table2")
    found = rows(tmp_path / "table2_differences.csv")
    assert {(r["modality"], r["subjects"]) for r in found} == {("ct", "2"), ("mr", "3")}


def test_a_seed_of_which_there_are_parents_alone_is_not_named(tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path, Spawned(tmp_path, {"all-no_sc-s1": 75}))
    assert records.read_record(tmp_path, "all-gan-s1")
    experiments.write_output(tmp_path, "table1")
    assert "- seeds: 0; judges: 1000\n" in (tmp_path / "table1.md").read_text()


def test_a_page_that_lacks_seeds_says_so_before_its_verdicts(tmp_path):
    missing = "Not all of the plan's 2 seeds are in.** So far, complete: `baseline` 2, `ada` 1, "
    with pytest.raises(NonFiniteError):
        run(tmp_path, Spawned(tmp_path, {"mr0.14-ada-s1": 3, "mr0.14-ours-s1": 3}), ("table2",))
    page = (tmp_path / "table2.md").read_text()
    assert page.splitlines()[2].startswith(f"**{missing}`ours` 1. Means of a table")
    assert "\n\n**So far, with 1 to 2 of 2 seeds: does synthetic data help" in page
    for modality, seeds in (("ct", "2, 3"), ("mr", "1 of 2, 3")):
        (line,) = lines_of(tmp_path / "table2.md", "**ours - baseline**", modality)
        assert line.endswith(f"| {seeds} |")
    for name in ("mr0.14-ada-s1", "mr0.14-ours-s1"):
        leave_record(tiny_plan(), tiny_plan().trials[name], tmp_path)
    run(tmp_path, Spawned(tmp_path), ("table2", "displacement"))
    page = (tmp_path / "table2.md").read_text()
    assert "So far" not in page and " of 2, " not in page
    records.record_path(tmp_path, "all-shifted-sc-s1").unlink()
    experiments.write_output(tmp_path, "displacement")
    assert "complete: `no_sc` 2, `sc` 1." in (tmp_path / "displacement.md").read_text()
    records.record_path(tmp_path, "mr0.14-ours-s0").unlink()
    experiments.write_output(tmp_path, "figure6")  # of one seed
    assert "Not all of its trials have finished" in (tmp_path / "figure6.md").read_text()


def test_means_beside_each_other_are_over_the_same_seeds(tmp_path):
    outputs = ("table1", "table2", "figure7", "figure8", "displacement")
    run(tmp_path, Spawned(tmp_path), outputs)
    lost = ("all-ours-s0", "mr0.14-ours-s0", "mr0.14-ada-s1", "all-shifted-sc-s0")
    for name in lost:
        records.record_path(tmp_path, name).unlink()
    for output in outputs:
        experiments.write_output(tmp_path, output)
    found = {
        output: {
            (r["method"], r["modality"], r["x"]): (r["n"], r["mean"])
            for r in rows(tmp_path / f"{output}.csv")
            if r["structure"] in ("mean", "structures")
        }
        for output in outputs
    }
    assert found["table1"]["no_sc", "ct", ""] == ("1", "0.4")  # of seed 1 alone
    assert {found["table2"][m, "mr", ""][0] for m in ("baseline", "ada", "ours")} == {"0"}
    assert {found["table2"][m, "ct", ""][0] for m in ("baseline", "ada", "ours")} == {"2"}
    assert found["figure7"]["ada", "ct", "1"][0] == found["figure7"]["ours", "ct", "1"][0] == "1"
    assert {n for n, _ in found["figure8"].values()} == {"2"}
    assert {n for n, _ in found["displacement"].values()} == {"1"}
    assert "seeds: 1; judges" in (tmp_path / "table1.md").read_text()
    differences = rows(tmp_path / "table2_differences.csv")
    assert {r["seeds"] for r in differences if r["modality"] == "mr"} == {"0", "1"}


def test_a_secondary_row_that_is_run_last_takes_no_seed_from_the_others(tmp_path):
    config = tiny_config()
    config.loss.shape = 5.0
    plan = plan_for(config)
    (points,) = (own for (m, _), own in tables.beside(plan, "table1").items() if m == "ct")
    found = {name: {"status": records.FINISHED} for names in points.values() for name in names}

    def seeds() -> dict:
        return {
            method: own for (method, _), own in tables.shared_seeds(plan, points, found).items()
        }

    assert list(seeds()) == ["no_sc", "sc", "sc_gamma1"]
    del found["all-ours-gamma1-s1"]
    assert seeds() == {"no_sc": {0, 1}, "sc": {0, 1}, "sc_gamma1": {0}}
    del found["all-no_sc-s0"]
    assert seeds() == {"no_sc": {1}, "sc": {1}, "sc_gamma1": set()}


def test_points_that_a_line_joins_are_over_the_same_seeds(tmp_path):
    run(tmp_path, Spawned(tmp_path), ("figure7", "figure8"))
    plan = tiny_plan()
    cells = {(c.output, c.method, c.x): c for c in plan.cells if c.modality == "mr"}
    real = [
        c for (output, method, _), c in cells.items() if (output, method) == ("figure8", "real")
    ]
    records.record_path(tmp_path, real[0].trials[0]).unlink()
    found = records.read_records(tmp_path)
    counts = {
        key: len(tables.shared(plan, cell, found))
        for key, cell in cells.items()
        if key[0] in ("figure7", "figure8")
    }
    assert {n for (output, *_), n in counts.items() if output == "figure8"} == {1}
    assert {n for (output, *_), n in counts.items() if output == "figure7"} == {2}


def test_curves_are_compared_with_where_nothing_is_added(tmp_path):
    run(tmp_path, Spawned(tmp_path), ("figure7", "figure8"))
    figure8 = rows(tmp_path / "figure8_differences.csv")
    assert {r["comparison"] for r in figure8} >= {
        f"{m} - baseline" for m in ("real", "ada", "ours")
    }
    assert all(float(r["x"]) > 0 and r["seeds"] == "2" for r in figure8)
    figure7 = rows(tmp_path / "figure7_differences.csv")
    assert any(float(r["x"]) > 1 for r in figure7 if r["comparison"] == "ours - baseline")


def lines_of(page: Path, *cells: str) -> list[str]:
    """The lines of the page's tables that begin with these cells."""
    start = "| " + " | ".join(cells) + " |"
    return [line for line in page.read_text().splitlines() if line.startswith(start)]


def test_s_scores_stand_beside_what_the_judges_reach_without_a_generator(tmp_path):
    run(tmp_path, Spawned(tmp_path), ("table1", "table2"))
    for page in (tmp_path / "table1.md", tmp_path / "table2.md"):
        (floor,) = lines_of(page, "ct", "floor: inputs untranslated")
        assert floor.split("|")[3:] == [" 0.310 ", *[" - "] * 5, "  ", ""]
        assert lines_of(page, "ct", "floor: inputs histogram-matched", "0.070")
        assert lines_of(page, "mr", "floor: inputs histogram-matched", "0.080")
        assert lines_of(page, "mr", "ceiling: true volumes", "0.910", "0.950", "0.910")
        for told in ("Where an S-score is not above the floors", "The ceiling is no limit"):
            assert told in page.read_text()
    assert "floor" not in (tmp_path / "table1.csv").read_text()
    # Table 2's rows are Dice; a second table has the S-scores of what ada and ours read.
    before, after = (tmp_path / "table2.md").read_text().split("S-scores of the generators")
    assert "| ct | ada | 0.445 +- 0.007 |" in before and "| ct | ada | 0.445 +- 0.007 |" in after
    assert "floor" not in before and "| ct | baseline | 0." not in after


def test_a_ceiling_that_no_data_have_is_no_row(tmp_path):
    run(tmp_path, Spawned(tmp_path))
    for name, record in records.read_records(tmp_path).items():
        block = {m: {**own, "ceiling": None} for m, own in record["judge"].items()}
        change_record(tmp_path, name, judge=block)
    run(tmp_path, Spawned(tmp_path))
    assert lines_of(tmp_path / "table1.md", "mr", "floor: inputs untranslated", "0.310")
    assert "ceiling: true" not in (tmp_path / "table1.md").read_text()


def test_s_scores_of_two_pairs_of_judges_are_not_taken_from_each_other(tmp_path):
    run(tmp_path, Spawned(tmp_path), ("table1", "scratch"))
    page, name = tmp_path / "table1.md", "all-no_sc-s1"
    assert "pairs of judges" not in page.read_text()
    scratch = records.read_record(tmp_path, "all-scratch-s0")["judge"]
    judge = {m: {**own, "ceiling": 0.8} for m, own in scratch.items()}
    change_record(tmp_path, "all-scratch-s0", judge=judge)
    experiments.write_output(tmp_path, "scratch")
    assert "are of 2 pairs of judges" in (tmp_path / "scratch.md").read_text()
    record = records.read_record(tmp_path, name)
    for moved, pairs in ((1e-6, 1), (0.01, 2)):
        judge = {m: {**own, "untranslated": 0.31 + moved} for m, own in record["judge"].items()}
        change_record(tmp_path, name, judge=judge)
        experiments.write_output(tmp_path, "table1")
        differences = rows(tmp_path / "table1_differences.csv")
        assert {row["seeds"] for row in differences} == {"2" if pairs == 1 else "1"}
        assert ("These S-scores are of 2 pairs of judges" in page.read_text()) == (pairs == 2)
    assert f"judges 2: `{name}`)" in page.read_text()
    assert lines_of(page, "ct", "floor: inputs untranslated, judges 1", "0.310")
    assert lines_of(page, "ct", "floor: inputs untranslated, judges 2", "0.320")


def test_table_1_says_how_close_to_the_true_volumes_where_there_are_any(tmp_path):
    run(tmp_path, Spawned(tmp_path))
    page = tmp_path / "table1.md"
    assert "MAE, PSNR dB, SSIM against the true volumes; intensities in [-1, 1]" in page.read_text()
    # SSIM: 0.3 + 0.2 (sc) + 0.005 (MR) + 0.005 (mean of seeds 0 and 1); the others follow it.
    line = "| mr | sc | 0.245 +- 0.004 | 15.10 +- 0.07 | 0.510 +- 0.007 | 2 |"
    assert lines_of(page, "mr", "sc", "0.245 +- 0.004") == [line]
    table = rows(tmp_path / "table1_translation.csv")
    assert len(table) == 2 * 2 * 3 and {r["measure"] for r in table} == {"mae", "psnr_db", "ssim"}
    for name in records.read_records(tmp_path):
        change_record(tmp_path, name, translation={"ct": None, "mr": None})
    run(tmp_path, Spawned(tmp_path))
    assert "PSNR" not in page.read_text()


def test_curves_and_displacement_are_drawn_and_written(tmp_path):
    outputs = ("figure7", "figure8", "displacement", "scratch", "flood")
    files = run(tmp_path, Spawned(tmp_path), outputs)
    for name in ("figure7", "figure8", "displacement"):
        assert {tmp_path / f"{name}.{kind}" for kind in ("png", "svg", "csv", "md")} <= set(files)
        assert all(path.stat().st_size for path in files)
        assert "Bars are one standard deviation over seeds" in (tmp_path / f"{name}.md").read_text()
        with Image.open(tmp_path / f"{name}.png") as image:
            told = (image.text["Description"], (tmp_path / f"{name}.svg").read_text())
        for text in told:  # command, commit, seeds, data
            assert all(w in text for w in ("reproduce()", "g" * 40, "seeds: 0, 1", "d" * 64))
    curve = rows(tmp_path / "figure7.csv")
    assert {r["x"] for r in curve if r["modality"] == "ct"} == {"0.5", "1"}  # 2 of 4, and all
    assert {r["x"] for r in curve if r["modality"] == "mr"} == {"0.5", "1", "0", "8"}
    (ratio,) = rows(tmp_path / "figure8_ratio.csv")
    assert float(ratio["ratio"]) == pytest.approx(0.5)  # (0.2 - 0.1) / (0.3 - 0.1)
    assert ratio["denominator_not_above_zero"] == "0"
    moved = {(r["method"], r["x"]): r for r in rows(tmp_path / "displacement.csv")}
    assert float(moved["sc", "4"]["mean"]) == 3.0 and float(moved["no_sc", "4"]["mean"]) == 15.0


@pytest.mark.parametrize("output", ["figure7", "figure8", "displacement"])
def test_curves_without_any_result_are_not_drawn(output, tmp_path):
    experiments.claim(tiny_config(), tmp_path)
    experiments.write_output(tmp_path, output)
    assert f"{output}.png)" not in (tmp_path / f"{output}.md").read_text()
    assert not list(tmp_path.glob("*.png"))


def test_the_flood_takes_off_what_ours_and_ada_differ_by_anyway(tmp_path):
    run(tmp_path, Spawned(tmp_path), ("flood",))
    for seed, loss in ((0, 0.04), (1, 0.06)):  # of ours by the flood, of CT's first case more
        name = f"ct0.14-ours-flooded-s{seed}"
        cases = records.read_record(tmp_path, name)["cases"]
        for own in cases["dice"]["ct"].values():
            own.update({case: value - loss for case, value in own.items()})
            own["ct_1"] -= 0.03
        change_record(tmp_path, name, cases=cases)
    experiments.write_output(tmp_path, "flood")
    found = {(r["comparison"], r["modality"]): r for r in rows(tmp_path / "flood_differences.csv")}
    row = found["(ours_flooded - ours) - (ada_flooded - ada)", "ct"]
    assert float(row["mean"]) == pytest.approx(-0.05 - 0.01)
    assert (row["seeds"], row["subjects"], row["primary"]) == ("2", "3", "0")
    assert float(row["low"]) < -0.06 < float(row["high"])
    assert float(found["ours_flooded - ada_flooded", "ct"]["mean"]) == pytest.approx(0.1 - 0.06)
    records.record_path(tmp_path, "ct0.14-ada-s0").unlink()
    experiments.write_output(tmp_path, "flood")
    (line,) = lines_of(tmp_path / "flood.md", "(ours_flooded - ours) - (ada_flooded - ada)", "ct")
    assert line.endswith("| 1 of 2, 3 |")


def test_dice_and_s_score_of_one_page_are_told_apart(tmp_path):
    run(tmp_path, Spawned(tmp_path), ("scratch",))
    for seed in (0, 1):
        record = records.read_record(tmp_path, f"all-scratch-s{seed}")
        record["s_score"]["ct"]["mean"] = 0.123
        change_record(tmp_path, record["name"], s_score=record["s_score"])
    run(tmp_path, Spawned(tmp_path), ("scratch",))
    assert lines_of(tmp_path / "scratch.md", "ct", "scratch (s-score)", "0.123 +- 0.000")
    assert lines_of(tmp_path / "scratch.md", "ct", "scratch (dice)", "0.345 +- 0.007")
    table = {(r["method"], r["modality"], r["structure"]) for r in rows(tmp_path / "scratch.csv")}
    assert len(table) == len(rows(tmp_path / "scratch.csv")) == 2 * 2 * 2 * 6


def test_figure_3_has_a_row_for_each_step_from_cyclegan_to_ours(tmp_path, monkeypatch):
    run(tmp_path, Spawned(tmp_path), ("table1",))
    plan = tiny_plan()
    for seed in (0, 1):
        leave_record(plan, plan.trials[f"all-cyclegan-s{seed}"], tmp_path)
    volume = np.zeros((8, 8, 8), np.float32)
    store = SimpleNamespace(
        description=SimpleNamespace(shape=volume.shape, spacing_mm=(1, 1, 1)),
        volumes=[SimpleNamespace(id=c, modality=m) for m, ids in CASES.items() for c in ids],
        image=lambda _: volume,
        label=lambda _: volume.astype(int),
    )
    asked, made = [], []

    def translate(domain: str, image: np.ndarray) -> np.ndarray:
        made.append(domain)
        return image

    def trained(workdir: Path, name: str):
        asked.append(name)
        return SimpleNamespace(store=store), SimpleNamespace(translate=translate)

    monkeypatch.setattr(figures, "trained", trained)
    found = records.read_records(tmp_path)
    figure = figures.figure3(plan, tmp_path, [], found)
    assert asked == ["all-cyclegan-s0", "all-no_sc-s0", "all-ours-s0"]
    assert made == ["A"] * 6 + ["B"] * 6  # two cases by three models, MR to CT first
    titles = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    assert titles == ["input", "CycleGAN", "ours, gamma 0", "ours"]


def test_cases_are_shown_by_their_rank():
    dice = {f"ct_{i}": i / 10 for i in range(9)}
    record = {"cases": {"dice": {"ct": {"LV": dice, "Myo": dict.fromkeys(dice, 0.5)}}}}
    assert figures.chosen_cases(record, "dice", "ct") == ["ct_2", "ct_6"]  # a quarter, three
    assert figures.mean_dice(record, "dice", "ct", "ct_2") == pytest.approx(0.35)


def test_figure_6_shows_what_each_arm_finds(tmp_path, monkeypatch):
    plan, volume, shown = tiny_plan(), np.zeros((8, 8, 8), np.float32), []
    for trial in plan.wanted(["figure6"]):
        leave_record(plan, trial, tmp_path)
    store = SimpleNamespace(
        description=SimpleNamespace(shape=volume.shape, spacing_mm=(1, 1, 1)),
        volumes=[SimpleNamespace(id=c, modality=m) for m, ids in CASES.items() for c in ids],
        image=lambda _: volume,
        label=lambda _: volume.astype(int),
    )

    def trained(workdir: Path, name: str):
        seg = {"A": f"{name} A", "B": f"{name} B"}
        segment = lambda tree, image: shown.append(tree) or image.astype(int)  # noqa: E731
        return SimpleNamespace(store=store), SimpleNamespace(seg=seg, segment=segment)

    monkeypatch.setattr(figures, "trained", trained)
    figures.figure6(plan, tmp_path, [], records.read_records(tmp_path))
    few = {"A": "ct0.14", "B": "mr0.14"}
    assert shown == [
        f"{few[d]}-{arm}-s0 {d}" for d in "AB" for _ in range(2) for arm in ("baseline", "ours")
    ]


def test_pictures_are_left_out_where_networks_are_missing_and_the_page_says_so(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    outputs = ("figure3", "figure6", "flood")
    plan = tiny_plan()
    for folder in (here, there):
        (folder / "runs").mkdir(parents=True)
    for trial in plan.wanted(outputs):
        leave_record(plan, trial, here)
        shutil.copy(records.record_path(here, trial.name), there / "runs")
    spawned = Spawned(there)
    files = run(there, spawned, outputs)
    assert spawned.names == [] and not list(there.glob("*.png"))
    assert {there / "figure3.csv", there / "figure6.md", there / "flood.md"} <= set(files)
    for output, name in (("figure3", "all-cyclegan-s0"), ("figure6", "mr0.14-ours-s0")):
        assert "No pictures" in (text := (there / f"{output}.md").read_text())
        assert f"`{name}`" in text and "-s1`" not in text
    assert "No pictures" not in (there / "flood.md").read_text()
    assert figures.without_networks(plan, "figure3", here) == []


def test_records_of_another_plan_are_refused(tmp_path):
    run(tmp_path, Spawned(tmp_path))
    path = records.record_path(tmp_path, "all-ours-s0")
    record = json.loads(path.read_text())
    record["config"]["loss"]["cycle"] = 3.0
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="loss.cycle"):
        run(tmp_path, Spawned(tmp_path))
    with pytest.raises(UserError, match="another"):
        config = tiny_config(",seed=5")
        experiments.reproduce(config, tmp_path, ["table1"], quiet=True, start=Spawned(tmp_path))


@pytest.mark.parametrize(
    "text", ['{"name": "all-seg', "[]", '{"a": 1}', '{"status": "finished"}', "\xff"]
)
def test_a_damaged_record_is_named(tmp_path, text):
    path = records.record_path(tmp_path, "all-seg-s0")
    path.parent.mkdir()
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="all-seg-s0.json: (cannot be read|is not the record)"):
        run(tmp_path, Spawned(tmp_path))


def test_records_of_trials_that_the_plan_has_no_more_are_not_published(tmp_path):
    run(tmp_path, Spawned(tmp_path))
    path = records.record_path(tmp_path, "all-seg-s0")
    shutil.copy(path, path.with_name("old-s0.json"))
    for _ in range(2):
        files = experiments.publish(tmp_path, tmp_path / "kept")
        assert {p.name for p in files} >= {"table1.md", "all-seg-s0.json"}
        assert not (tmp_path / "kept" / "runs" / "old-s0.json").exists()


def test_records_name_no_folder_of_the_machine_and_data_may_move(tmp_path):
    plan = tiny_plan()
    plan.base.data.path = str(tmp_path / "my_scans")
    (tmp_path / records.RUNS).mkdir()
    trial = plan.trials["all-ours-s0"]
    records.write_failed(plan, trial, tmp_path, records.NON_FINITE, "step 3: seg/total")
    record = records.read_record(tmp_path, trial.name)
    assert record["config"]["data"]["path"] == "my_scans"
    assert record["config"]["init"]["seg"] == "all-seg-s0"
    assert str(tmp_path) not in records.record_path(tmp_path, trial.name).read_text()
    plan.base.data.path = "/else/where"
    assert records.differing_fields(plan, trial, record) == []


@pytest.mark.parametrize("field", ["steps", "optim.skip_nonfinite"])
def test_records_with_a_cap_on_steps_or_with_steps_left_out_are_not_the_plans(tmp_path, field):
    run(tmp_path, Spawned(tmp_path))
    path = records.record_path(tmp_path, "all-seg-s0")
    record = json.loads(path.read_text())
    *sections, name = field.split(".")
    section = record["config"][sections[0]] if sections else record["config"]
    section[name] = 3
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"all-seg-s0.json: was made with another {field}"):
        run(tmp_path, Spawned(tmp_path))


def test_records_of_another_displacement_are_not_the_plans(tmp_path):
    run(tmp_path, Spawned(tmp_path), ("displacement",))
    config = records.read_record(tmp_path, "all-seg-s0")["config"]
    rarely = {"log": config["log"] | {"keep_every_steps": 2}}
    change_record(tmp_path, "all-seg-s0", config=config | rarely)
    run(tmp_path, Spawned(tmp_path), ("displacement",))  # has no say in what is not shifted
    name = "all-shifted-sc-s1"
    record = records.read_record(tmp_path, name)
    for field, changes in (
        ("shift_voxels", {"shift_voxels": [0, 0, 1]}),
        ("log.keep_every_steps", {"config": record["config"] | rarely}),
    ):
        records.record_path(tmp_path, name).write_text(json.dumps(record | changes))
        with pytest.raises(UserError, match=f"{name}.json: was made with another {field};"):
            run(tmp_path, Spawned(tmp_path), ("displacement",))


def contents(workdir: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_a_refused_command_changes_nothing(tmp_path):
    experiments.reproduce(
        tiny_config(), tmp_path, ["table1"], True, Spawned(tmp_path), command="the first"
    )
    before, spawned = contents(tmp_path), Spawned(tmp_path)
    capped = tiny_config(",steps=2")
    with pytest.raises(UserError, match="was made with another steps"):
        experiments.reproduce(capped, tmp_path, ["table1"], True, spawned, command="a cap")
    with pytest.raises(UserError, match="was made with another steps"):
        experiments.submit(capped, tmp_path, ["table1"], command="a cap")
    assert contents(tmp_path) == before and spawned.names == []
    config = records.read_record(tmp_path, "all-ours-s0")["config"]
    change_record(tmp_path, "all-ours-s0", config=config | {"batch": 7})
    with pytest.raises(UserError, match="all-ours-s0.json: was made with another batch"):
        experiments.reproduce(  # Table 1 would be written anew, too
            tiny_config(), tmp_path, ["flood"], True, spawned, publish_in=str(tmp_path / "kept")
        )
    assert spawned.names == []


def test_what_has_trained_for_longer_than_the_plan_is_not_gone_on_with(tmp_path):
    plan, name = tiny_plan(",steps=2"), "all-seg-s0"
    leave_checkpoint(plan.trials[name], tmp_path, 2)
    assert records.unsettled(plan, [plan.trials[name]], tmp_path)
    leave_checkpoint(plan.trials[name], tmp_path, LAST_STEP)
    with pytest.raises(UserError, match=rf"4 steps, the plan has 2; delete runs/{name}\*"):
        experiments.reproduce(tiny_config(",steps=2"), tmp_path, ["table1"], quiet=True)
    assert not (tmp_path / "config.json").exists()


def change_record(workdir: Path, name: str, **changes) -> None:
    path = records.record_path(workdir, name)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("field", ["data", "split"])
def test_records_of_other_data_are_refused_but_a_phantom_with_extra_subjects_is_another(
    tmp_path, field
):
    run(tmp_path, Spawned(tmp_path), ("table1", "figure7"))
    extra = [t.name for t in tiny_plan().trials.values() if t.fields.get("phantom.extra")]
    assert "judge-extra" in extra
    for name in extra:
        if records.record_path(tmp_path, name).exists():
            change_record(tmp_path, name, **{field: "e" * 64})
    run(tmp_path, Spawned(tmp_path))
    change_record(tmp_path, "all-ours-s0", **{field: "e" * 64})
    with pytest.raises(UserError, match=r"all-ours-s0.json: was made on other data than .*\.json"):
        run(tmp_path, Spawned(tmp_path))


def test_records_of_other_data_than_the_store_at_hand_are_refused(tmp_path):
    store = Store.open(write_store(tmp_path / "store"))
    config = tiny_config(f",data={store.root},shape=16x16x16")
    workdir, plan = tmp_path / "work", experiments.claim(config, tmp_path / "work")
    leave_record(plan, plan.trials["judge"], workdir)
    with pytest.raises(UserError, match=f"judge.json: was made on other data than {store.root}"):
        records.to_run(plan, plan.wanted(["table1"]), workdir)
    here = {"data": store.sha256, "split": store.split_sha256}
    change_record(workdir, "judge", **here)
    assert records.to_run(plan, [plan.trials["judge"]], workdir) == []


def test_a_trial_does_not_begin_on_other_data_than_the_records(tmp_path, monkeypatch):
    plan = experiments.claim(tiny_config(), tmp_path)
    leave_record(plan, plan.trials["judge"], tmp_path)
    here = SimpleNamespace(sha256="e" * 64, split_sha256="s" * 64, root=tmp_path / "store")
    monkeypatch.setattr(conduct, "open_store", lambda *_, **__: here)
    with pytest.raises(UserError, match="judge.json: was made on other data"):
        conduct.run_trial(tmp_path, "all-seg-s0", quiet=True)


def test_a_trial_that_is_not_finite_advises_nothing_that_a_plan_refuses(tmp_path, monkeypatch):
    plan, name = experiments.claim(tiny_config(), tmp_path), "all-seg-s0"
    leave_record(plan, plan.trials["judge"], tmp_path)
    settled = records.read_record(tmp_path, "judge")
    here = SimpleNamespace(sha256=settled["data"], split_sha256=settled["split"], root="store")
    monkeypatch.setattr(conduct, "open_store", lambda *_, **__: here)

    def diverge(config, workdir, quiet):
        raise NonFiniteError(workdir, "step 3: seg/total", "--config.optim.skip_nonfinite=10")

    monkeypatch.setattr(conduct.train, "train", diverge)
    with pytest.raises(NonFiniteError, match=f"{name}: step 3: seg/total; the plan") as told:
        conduct.run_trial(tmp_path, name, quiet=True)
    assert "skip_nonfinite" not in str(told.value)
    assert records.read_record(tmp_path, name)["message"] == "step 3: seg/total"


def test_a_denominator_that_may_not_be_above_zero_is_marked(tmp_path):
    from cyclesh.evidence.pages import ratio_table
    from cyclesh.evidence.tables import gap_ratios
    from cyclesh.evidence.trials import Cell, Comparison
    from cyclesh.scoring.statistics import Difference

    cell = Cell("figure8", "ours", "mr", "dice", 0.5, ())

    def pair(name, mean, low, high):
        return Comparison(name, cell, cell, False), Difference(mean, low, high, 3, 24)

    gain = pair("ours - ada", 0.01, 0.0, 0.02)
    assert "0.500 (*)" in ratio_table(gap_ratios([gain, pair("real - ada", 0.02, -0.01, 0.05)]))
    assert "-0.500 (*)" in ratio_table(gap_ratios([gain, pair("real - ada", -0.02, -0.03, -0.01)]))
    one_seed = pair("real - ada", 0.02, float("nan"), float("nan"))
    assert "0.500 (*)" in ratio_table(gap_ratios([gain, one_seed]))
    assert "0.500 |" in ratio_table(gap_ratios([gain, pair("real - ada", 0.02, 0.01, 0.03)]))


def test_both_differences_of_a_ratio_are_over_the_same_seeds(tmp_path):
    run(tmp_path, Spawned(tmp_path), ("figure8",))
    trials = {c.method: c.trials for c in tiny_plan().cells if c.output == "figure8"}
    cases = records.read_record(tmp_path, trials["real"][0])["cases"]
    for own in cases["dice"]["mr"].values():
        own.update(dict.fromkeys(own, 0.99))
    change_record(tmp_path, trials["real"][0], cases=cases)
    records.record_path(tmp_path, trials["ours"][0]).unlink()
    experiments.write_output(tmp_path, "figure8")
    (ratio,) = rows(tmp_path / "figure8_ratio.csv")
    assert float(ratio["real_minus_ada"]) == pytest.approx(0.2)  # of seed 1
    assert float(ratio["ratio"]) == pytest.approx(0.5)


def test_one_seed_has_no_interval_and_says_so():
    from cyclesh.evidence.pages import interval
    from cyclesh.scoring.statistics import Difference

    nan = float("nan")
    assert interval(Difference(0.02, -0.01, 0.05, 3, 24)) == "-0.010 to +0.050"
    assert "two seeds" in interval(Difference(0.02, nan, nan, 1, 24))
    assert interval(Difference(nan, nan, nan, 0, 0)) == "-"


def test_what_is_asked_is_checked(tmp_path, capfd):
    config = "--config=configs/joint.py:tiny"
    for words, named in (
        ((config, "--only=table9", f"--workdir={tmp_path / 'new'}"), "table9"),
        ((f"--workdir={tmp_path}", "--trial=judge"), "config.json"),
        (("--config=configs/baseline.py:tiny",), "configs/joint.py"),
        ((), "--config"),
    ):
        done = call(capfd, "--mode=reproduce", "--quiet", *words)
        assert done.status == 2 and named in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "new").exists()
    experiments.claim(tiny_config(), tmp_path)
    for trial, named in (("nobody", "nobody"), ("all-ours-s0", "all-gan-s0")):
        done = call(capfd, "--mode=reproduce", f"--workdir={tmp_path}", f"--trial={trial}")
        assert done.status == 2 and named in done.err


# ----------------------------------------------------------------------------------- elsewhere


def test_a_dry_run_lists_what_is_missing_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("cyclesh.evidence.durations.measured_step_s", lambda config, share: 90.0)
    workdir = tmp_path / "new"
    text = experiments.dry_run(tiny_config(), workdir, ["table1"])
    # 4 steps of 90 s and a minute: all but the judge, whose epochs are more
    assert text.count("7 min") == 8 and "all-ours-s1" in text and "sbatch" not in text
    judge = config_of(tiny_plan(), tiny_plan().trials["judge"], workdir)
    assert f", {8 * LAST_STEP + steps_of(judge)} steps, one trial after another" in text

    def not_here(*_):
        raise AssertionError("a step was taken where nothing will run")

    monkeypatch.setattr("cyclesh.evidence.durations.measured_step_s", not_here)
    text = experiments.dry_run(tiny_config(), workdir, ["table1"], "slurm")
    assert "sbatch" in text and " min" not in text and "9 trials to run, ?" in text
    assert not workdir.exists()
    run(tmp_path, Spawned(tmp_path))
    text = experiments.dry_run(tiny_config(), tmp_path, ["table1"], "here")
    assert "9 settled" in text and "sbatch" not in text


def test_levels_go_to_slurm_as_arrays_that_wait_for_each_other(tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "sbatch"
    fake.parent.mkdir()
    log = tmp_path / "log"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\nwc -l < {log}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    workdir = tmp_path / "work"
    lines = experiments.submit(tiny_config(), workdir, ["table1"])
    calls = log.read_text().splitlines()
    assert len(lines) == len(calls) == 4
    arrays = [word for line in calls for word in line.split() if word.startswith("--array")]
    assert arrays == ["--array=0-2", "--array=0-1", "--array=0-3"]
    assert "--dependency" not in calls[0] and "--dependency=afterany:3" in calls[3]
    assert calls[3].endswith("table1")
    names = [
        (workdir / slurm.LEVELS / f"level-{level}.txt").read_text().split() for level in range(3)
    ]
    assert names == slurm.levels(tiny_plan(), tiny_plan().wanted(["table1"]))
    fake.write_text("#!/bin/sh\necho no such partition >&2\nexit 1\n")
    with pytest.raises(UserError, match="sbatch: no such partition$"):
        experiments.submit(tiny_config(), tmp_path / "other", ["table1"])
    log.unlink()
    fake.write_text(f"#!/bin/sh\necho >> {log}\nn=$(wc -l < {log})\necho $n\n[ $n -lt 3 ]\n")
    with pytest.raises(UserError, match="sbatch: status 1; .*: scancel 1 2$"):
        experiments.submit(tiny_config(), tmp_path / "third", ["table1"])


def test_lines_for_slurm_can_be_given_as_they_stand(tmp_path):
    workdir = tmp_path / "a {b}"
    text = experiments.dry_run(tiny_config(), workdir, ["table1"], "slurm")
    (line,) = (line for line in text.splitlines() if "cyclesh-level1" in line)
    assert str(workdir / "slurm" / "level-1.txt") in shlex.split(line)
    assert "--dependency=afterany:ID-OF-THE-JOB-BEFORE" in shlex.split(line)


def test_the_job_script_runs_its_trial_and_asks_for_another_turn_after_a_stop(tmp_path):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$@"\nexit 75\n')
    requeue = tmp_path / "scontrol"
    requeue.write_text('#!/bin/sh\necho "scontrol $@"\n')
    for path in (fake, requeue):
        path.chmod(0o755)
    (tmp_path / "level.txt").write_text("first\nsecond\n")
    environment = {
        **os.environ,
        "PYTHON": str(fake),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_JOB_ID": "77",
    }
    done = subprocess.run(
        ["bash", str(slurm.SCRIPT), "/work dir", str(tmp_path / "level.txt")],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 75 and "scontrol requeue 77" in done.stdout
    assert "--mode=reproduce --workdir=/work dir --trial=second" in done.stdout


def test_a_page_says_so_where_subjects_have_unequally_many_scores(tmp_path):
    run(tmp_path, Spawned(tmp_path))
    said = "Each subject counts alike"
    assert said not in (tmp_path / "table1.md").read_text()
    cases = records.read_record(tmp_path, "all-ours-s1")["cases"]
    structure = next(iter(cases["s_score"]["mr"]))
    cases["s_score"]["mr"][structure]["mr_2"] = None
    change_record(tmp_path, "all-ours-s1", cases=cases)
    experiments.write_output(tmp_path, "table1")
    assert said in (tmp_path / "table1.md").read_text()


def test_a_table_without_rows_goes_here_and_where_it_was_published(tmp_path):
    work, kept = tmp_path / "work", tmp_path / "kept"
    run(work, Spawned(work))
    experiments.publish(work, kept)
    assert (kept / "table1_translation.csv").exists()
    for name in records.read_records(work):
        nothing = dict.fromkeys(("ct", "mr"))
        change_record(work, name, translation=nothing)
    experiments.publish(work, kept)
    for folder in (work, kept):
        assert (folder / "table1.csv").exists() and not [*folder.glob("*_translation.csv")]


def test_a_dry_run_refuses_to_publish_over_another_plan(tmp_path):
    run(tmp_path / "work", Spawned(tmp_path / "work"))
    experiments.publish(tmp_path / "work", tmp_path / "kept")
    with pytest.raises(UserError, match="kept"):
        experiments.dry_run(
            tiny_config(",filters=2"), tmp_path / "new", ["table1"], publish_in=tmp_path / "kept"
        )


def test_what_is_kept_is_copied(tmp_path):
    run(tmp_path / "work", Spawned(tmp_path / "work"))
    files = experiments.publish(tmp_path / "work", tmp_path / "kept")
    names = {str(path.relative_to(tmp_path / "kept")) for path in files}
    assert {"table1.csv", "table1.md", "table1_differences.csv", "runs/judge.json"} <= names
    assert len([name for name in names if name.startswith("runs/")]) == 9


def test_what_is_copied_is_as_new_as_the_records_and_without_pictures_of_before(tmp_path):
    work, kept, plan = tmp_path / "work", tmp_path / "kept", tiny_plan()
    with pytest.raises(NonFiniteError):
        run(work, Spawned(work, {"all-ours-s1": 3}), ("table1", "displacement"))
    for trial in plan.wanted(["figure3"]):
        leave_record(plan, trial, work)
    for folder in (work, kept):  # pictures of networks that are here no longer
        folder.mkdir(exist_ok=True)
        for kind in ("md", "png", "svg"):
            (folder / f"figure3.{kind}").touch()
    shutil.rmtree(work / "runs" / "all-cyclegan-s0")
    files = experiments.publish(work, kept)
    assert "No pictures" in (kept / "figure3.md").read_text()
    assert not [*work.glob("figure3.[ps]*g"), *kept.glob("figure3.[ps]*g")]
    assert {row["n"] for row in rows(kept / "table1.csv")} == {"2"}
    assert kept / "displacement.png" in files and (kept / "displacement.png").stat().st_size
    assert not (kept / "table2.md").exists()


@pytest.mark.parametrize("change", [{"batch": 7}, {"name": "nobodys"}, {"data": "e" * 64}])
def test_a_folder_with_another_plans_records_is_not_published_in(tmp_path, change):
    work, kept, spawned = tmp_path / "work", tmp_path / "kept", Spawned(tmp_path / "work")
    run(work, Spawned(work))
    experiments.publish(work, kept)
    experiments.publish(work, kept)  # its own may be renewed
    record = records.read_record(kept, "all-seg-s0")
    name = change.get("name", "all-seg-s0")
    record["config"] |= {field: value for field, value in change.items() if field == "batch"}
    record |= {field: value for field, value in change.items() if field == "data"}
    records.record_path(kept, name).write_text(json.dumps(record))
    before = contents(kept)
    with pytest.raises(UserError, match=f"{name}.json: is of another plan or of other data; give"):
        experiments.publish(work, kept)
    shutil.rmtree(work / "runs" / "all-gan-s0")  # which would be trained again
    with pytest.raises(UserError, match="is of another plan"):
        experiments.reproduce(
            tiny_config(), work, ["table1", "flood"], True, spawned, publish_in=str(kept)
        )
    assert contents(kept) == before and not spawned.names


def test_a_folder_of_other_data_than_the_store_at_hand_is_refused_before_training(tmp_path):
    store = Store.open(write_store(tmp_path / "store"))
    config, kept = tiny_config(f",data={store.root},shape=16x16x16"), tmp_path / "kept"
    plan = plan_for(config)
    leave_record(plan, plan.trials["all-seg-s0"], kept)
    spawned = Spawned(tmp_path / "new")
    with pytest.raises(UserError, match="all-seg-s0.json: is of another plan or of other data"):
        experiments.reproduce(
            config, tmp_path / "new", ["table1"], True, spawned, publish_in=str(kept)
        )
    assert not spawned.names and not (tmp_path / "new").exists()


def test_tables_that_name_a_failure_are_copied_too(tmp_path, capfd, monkeypatch):
    workdir, kept = tmp_path / "work", tmp_path / "kept"
    spawned = Spawned(workdir, {"all-gan-s1": 3})
    monkeypatch.setattr(
        experiments, "start_process", lambda _, trial, share, quiet: spawned(trial, share)
    )
    done = call(capfd, *WORDS, "--only=table1", f"--workdir={workdir}", f"--output={kept}")
    assert done.status == 3 and "all-gan-s1" in done.err
    assert "all-gan-s1 (non-finite loss: step 3" in (kept / "table1.md").read_text()
    assert {row["n"] for row in rows(kept / "table1.csv")} == {"1"}
    assert (kept / "runs" / "all-gan-s1.json").exists()
