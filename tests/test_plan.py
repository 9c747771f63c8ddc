"""The plan: who shares what, in which order, and that compared arms may spend the same."""

from pathlib import Path

import pytest
from scan_files import HEART

from configs import default
from cyclesh import state
from cyclesh.cache import key_of
from cyclesh.data.pipeline import count_of
from cyclesh.errors import UserError
from cyclesh.evidence.arms import SCALES
from cyclesh.evidence.plan import OUTPUTS, make_plan
from cyclesh.evidence.trials import DICE, S_SCORE, Plan, budget_of, config_of, steps_of
from cyclesh.judges import deciding_fields, judge_config
from cyclesh.settings import to_json

FOLDER = Path("/somewhere")
SUBJECTS = {("ct", "train"): 19, ("mr", "train"): 19, ("ct", "test"): 24, ("mr", "test"): 24}


def plan_of(argument: str | None = None, subjects=SUBJECTS) -> Plan:
    return make_plan(default.build(argument, "joint"), HEART, subjects)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of()


def config(plan: Plan, name: str):
    return config_of(plan, plan.trials[name], FOLDER)


def cells(plan: Plan, output: str, method: str) -> list:
    return [c for c in plan.cells if (c.output, c.method) == (output, method)]


@pytest.mark.parametrize("argument", [None, "tiny", "abdomen", "mmwhs"])
def test_every_preset_has_a_plan_whose_configs_are_valid(argument):
    plan = plan_of(argument)
    for name in plan.trials:
        config(plan, name)  # validates
    assert {trial.name for trial in plan.wanted(OUTPUTS)} == set(plan.trials)


def test_no_two_trials_are_the_same_run(plan):
    configs = [to_json(config(plan, n)) | {"shift": str(t.shift_voxels), "judge": t.arm == "judge"}
               for n, t in plan.trials.items()]  # fmt: skip
    assert len({key_of(c) for c in configs}) == len(configs)


def test_trials_see_another_phantom_than_the_one_that_rates_were_chosen_on(plan):
    assert default.build(None, "joint").phantom.seed == 0
    assert {config(plan, name).phantom.seed for name in plan.trials} == {4}
    own = plan_of("tiny,data=/scans")
    assert {config(own, name).phantom.seed for name in own.trials} == {0}  # of no use there


def test_parents_come_before_and_lie_at_lower_levels(plan):
    for outputs in (["table1"], ["figure8", "table2"], OUTPUTS):
        order = [trial.name for trial in plan.wanted(outputs)]
        assert len(set(order)) == len(order)
        for trial in plan.wanted(outputs):
            assert set(trial.init.values()) <= set(trial.after)
            for parent in trial.after:
                assert order.index(parent) < order.index(trial.name)
                assert plan.level(plan.trials[parent]) < plan.level(trial)


def test_arms_share_their_parents_and_their_data(plan):
    for modality, by in (("ct", "baseline"), ("mr", "ada")):
        own = {
            c.method: c.trials for c in plan.cells if (c.output, c.modality) == ("table2", modality)
        }
        assert len(own["ours"]) == 5
        for ours, other in zip(own["ours"], own[by], strict=True):
            ours, other = plan.trials[ours], plan.trials[other]
            assert ours.init["seg"] == other.init["seg"] and ours.seed == other.seed
            parents = {ours.init["seg"], ours.init["gen"]}
            reals = {config(plan, n).data.real for n in (ours.name, other.name, *parents)}
            assert reals == {((modality, 0.14),)}


@pytest.mark.parametrize("argument", [None, "tiny", "abdomen", "mmwhs"])
def test_arms_start_from_the_last_networks_of_their_parents_which_nothing_chose(argument):
    plan = plan_of(argument)
    arms = [name for name, trial in plan.trials.items() if trial.init]
    parents = {parent for name in arms for parent in plan.trials[name].init.values()}
    assert {config(plan, name).init_checkpoint for name in arms} == {"last"}
    assert {config(plan, name).schedule.decay_epochs for name in parents} == {0}
    assert plan.base.init_checkpoint == "best"


def test_arms_of_table_2_may_spend_the_same(plan):
    for modality in ("ct", "mr"):
        budgets = {
            c.method: {budget_of(config(plan, name)) for name in c.trials}
            for c in plan.cells
            if (c.output, c.modality) == ("table2", modality)
        }
        assert all(len(of_seeds) == 1 for of_seeds in budgets.values())
        budgets = {method: of_seeds.pop() for method, of_seeds in budgets.items()}
        assert len({b.seg_updates for b in budgets.values()}) == 1
        assert len({b.volumes_read for b in budgets.values()}) == 1
        assert budgets["ours"].seg_updates > 0 and budgets["ada"].gen_updates == 0


def test_the_control_of_table_1_moves_g_as_often_from_the_same_parent(plan):
    (control, _), (ours, _) = cells(plan, "table1", "no_sc"), cells(plan, "table1", "sc")
    for a, b in zip(control.trials, ours.trials, strict=True):
        a_config, b_config = config(plan, a), config(plan, b)
        assert plan.trials[a].init["gen"] == plan.trials[b].init["gen"]
        assert a_config.init.disc == b_config.init.disc != ""
        assert budget_of(a_config).gen_updates == budget_of(b_config).gen_updates > 0
        assert (a_config.loss.shape, b_config.loss.shape) == (0.0, 5.0)
        assert a_config.optim.gen == b_config.optim.gen
        assert config(plan, plan.trials[a].init["gen"]).loss.shape == 0.0


@pytest.mark.parametrize(
    ("argument", "gammas"),
    [(None, {5.0}), ("abdomen", {5.0}), ("tiny", None), ("mmwhs", None)],
)
def test_the_papers_gamma_throughout_is_a_row_where_ours_is_another_anywhere(argument, gammas):
    plan = plan_of(argument)
    assert bool(cells(plan, "table1", "sc_gamma1")) == (gammas is not None)

    def weights(method: str) -> set[float]:
        own = config(plan, cells(plan, "table1", method)[0].trials[0])
        return {phase.shape_weight for phase in state.make_phases(own)}

    assert weights("sc") == (gammas or {1.0})
    if gammas:
        assert weights("sc_gamma1") == {1.0}
    base = default.build("tiny", "joint")
    base.schedule.pretrain_gan_shape = 5.0
    base.schedule.pretrain_gan_epochs = 0  # of no use without epochs
    assert not cells(make_plan(base, HEART, SUBJECTS), "table1", "sc_gamma1")


def test_from_scratch_gets_the_updates_of_both_stages(plan):
    (scratch, *_), (ours, *_) = cells(plan, "scratch", "scratch"), cells(plan, "scratch", "ours")
    whole, late = (budget_of(config(plan, c.trials[0])) for c in (scratch, ours))
    init = plan.trials[ours.trials[0]].init
    seg, gan = (budget_of(config(plan, init[player])) for player in ("seg", "gen"))
    longer = max(seg.seg_updates, gan.gen_updates)
    assert whole.gen_updates == whole.seg_updates == longer + late.gen_updates > late.gen_updates


def test_one_judge_a_store_and_none_of_its_networks_in_a_trial(plan):
    judges = {t.name for t in plan.trials.values() if t.arm == "judge"}
    assert judges == {"judge", "judge-extra"}
    keys: dict[str, set] = {}
    for name, trial in plan.trials.items():
        assert not set(trial.init.values()) & judges
        assert (trial.seed == plan.base.judge.seed) == (trial.arm == "judge")
        own = set(trial.after) & judges
        if own or trial.arm == "judge":
            deciding = deciding_fields(judge_config(config(plan, name)))
            keys.setdefault((own or {name}).pop(), set()).add(key_of(deciding))
    assert all(len(of_one) == 1 for of_one in keys.values()) and len(keys) == 2
    assert all(t.after for t in plan.trials.values() if config(plan, t.name).method != "baseline")


@pytest.mark.parametrize(
    ("field", "value", "another"),
    [
        ("judge.seed", 7, True), ("judge.rate", 0.5, True), ("judge.epochs", 7, True),
        ("model.filters", 3, True), ("augment.shift_mm", 1.0, True), ("batch", 2, True),
        ("optim.clip_norm", 1.0, True), ("schedule.epoch_steps", 5, True),
        ("schedule.patience", 9, False), ("optim.gen.rate", 0.5, False), ("seed", 9, False),
        ("data.path", "/else", False), ("model.disc_widths", (1, 1, 1), False),
    ],
)  # fmt: skip
def test_another_judge_where_a_field_decides_what_it_learns(field, value, another):
    config, changed = (default.build(None, "joint") for _ in range(2))
    changed.update_from_flattened_dict({field: value})
    fields = [deciding_fields(judge_config(c)) for c in (config, changed)]
    assert (fields[0] != fields[1]) == another


@pytest.mark.parametrize(
    ("argument", "pretrained", "rests", "instead"),
    [
        ("abdomen,data=/somewhere", {}, 0, 0), (None, {}, 0, 6), ("mmwhs", {}, 0, 0),
        ("mmwhs", {"pretrain_gan_epochs": 7, "pretrain_gan_shape": 1.0}, 7, 0),
    ],
)  # fmt: skip
def test_segmentors_rest_at_first_where_preset_and_scale_let_them(
    argument, pretrained, rests, instead
):
    base = default.build(argument, "joint")
    base.schedule.update(pretrained)
    plan = make_plan(base, HEART, SUBJECTS)
    for output, method in (("table1", "sc"), ("table2", "ours")):
        own = config(plan, cells(plan, output, method)[0].trials[0])
        phases = state.make_phases(own)
        first, last = phases[0], phases[-1]
        assert last.moves == ("gen", "disc", "seg") and last.shape_weight == own.loss.shape
        if rests:
            assert (first.moves, first.epochs) == (("gen", "disc"), rests)
            assert first.shape_weight == plan.base.schedule.pretrain_gan_shape > 0
        assert (first is last) == (not rests)
        schedule = plan.base.schedule
        assert last.epochs == schedule.constant_epochs + schedule.decay_epochs + instead
    control = config(plan, cells(plan, "table1", "no_sc")[0].trials[0])
    assert [(p.epochs, p.shape_weight) for p in state.make_phases(control)] == [
        (p.epochs, 0.0) for p in state.make_phases(own)
    ]


@pytest.mark.parametrize(("argument", "weight"), [(None, 5.0), ("mmwhs", 0.0)])
def test_identity_guides_fresh_generators_that_no_segmentor_guides(argument, weight):
    plan = plan_of(argument)
    for name, trial in plan.trials.items():
        own = config(plan, name)
        alone = "gen" in own.moves and not own.loss.shape and not trial.init
        assert alone == (trial.arm in ("gan", "cyclegan"))
        if "gen" in own.moves:
            assert own.loss.identity == (weight if alone else 0.0)


@pytest.mark.parametrize(
    ("argument", "reads"), [(None, (0.6, 0.1, 0.3)), ("mmwhs", (0.5, 0.25, 0.25))]
)
def test_ada_reads_what_the_plan_says(argument, reads):
    plan = plan_of(argument)
    for output in ("table2", "figure7", "figure8"):
        for name in (name for cell in cells(plan, output, "ada") for name in cell.trials):
            loss = config(plan, name).loss
            assert (loss.seg_real, loss.seg_fake, loss.seg_rec) == reads
    flooded = config(plan, cells(plan, "flood", "ada_flooded")[0].trials[0]).loss
    assert (flooded.seg_real, flooded.seg_fake, flooded.seg_rec) == (0.05, 0.475, 0.475)


def test_seeds_are_part_of_the_plan(plan):
    for cell in plan.cells:
        wanted = 5 if cell.output.startswith("table") else 3
        assert [plan.trials[n].seed for n in cell.trials] == list(range(wanted))
    later = plan_of("seed=10")
    assert {t.seed for t in later.trials.values()} == {*range(10, 15), 1000}
    with pytest.raises(UserError, match="judges"):
        plan_of("seed=998")


def test_figure_7_shows_shares_up_to_one_and_volumes_from_two(plan):
    shown = {(c.modality, c.x) for c in cells(plan, "figure7", "ours")}
    # 14 % and 40 % of 19 subjects are 3 and 8.
    assert {x for m, x in shown if m == "ct"} == {0.158, 0.421, 1.0}
    assert {x for m, x in shown if m == "mr" and 0 < x <= 1} == {0.158, 0.421, 1.0}
    counts = {x for m, x in shown if x > 1}
    assert counts == {10, 38, 95} and {m for m, x in shown if x > 1} == {"mr"}
    for cell in cells(plan, "figure7", "ada"):
        synthetic = {config(plan, name).data.synthetic for name in cell.trials}
        assert synthetic == ({cell.x} if cell.x > 1 else {-1})


def test_amounts_of_equally_many_subjects_are_one_point_of_figure_7():
    subjects = {("ct", "train"): 6, ("mr", "train"): 12, ("ct", "test"): 9, ("mr", "test"): 9}
    plan = plan_of("abdomen,data=/somewhere", subjects)
    found = {
        m: [c for c in cells(plan, "figure7", "ours") if c.modality == m] for m in ("ct", "mr")
    }
    # Of 6 subjects, 14 % and 40 % are 2 (two at least); of 12 they are 2 and 5.
    assert [cell.x for cell in found["ct"]] == [0.333, 1.0]
    assert [cell.x for cell in found["mr"]] == [0.167, 0.417, 1.0]
    assert config(plan, found["ct"][0].trials[0]).data.real == (("ct", 0.14),)  # Table 2's
    assert not [name for name in plan.trials if name.startswith("ct0.4")]
    plan = plan_of("real_ct=1.0")
    shown = [c.x for c in cells(plan, "figure7", "ours") if c.modality == "ct"]
    assert shown == [0.421, 1.0]


def test_data_without_extra_volumes_have_no_third_part_of_figure_7():
    plan = plan_of("abdomen,data=/somewhere")
    assert all(c.x <= 1 for c in cells(plan, "figure7", "ours"))
    plan = plan_of("abdomen,data=/somewhere", {**SUBJECTS, ("ct", "extra"): 81})
    assert 100 in {c.x for c in cells(plan, "figure7", "ours")}
    assert all(t.fields.get("phantom.extra") is None for t in plan.trials.values())


def test_figure_8_adds_as_many_real_volumes_as_synthetic_ones(plan):
    for real, ada in zip(
        cells(plan, "figure8", "real"), cells(plan, "figure8", "ada"), strict=True
    ):
        assert real.x == ada.x
        ((_, total),) = config(plan, real.trials[0]).data.real
        added = config(plan, ada.trials[0]).data.synthetic
        assert total - 3 == added == round(real.x * 19)
        init = {plan.trials[n].init["seg"] for n in (real.trials[0], ada.trials[0])}
        assert len(init) == 1


def test_primary_comparisons_are_what_the_paper_claims(plan):
    primary = {
        (c.better.output, c.name, c.better.modality, c.better.measure)
        for c in plan.comparisons
        if c.primary
    }
    assert primary == {
        ("table1", "sc - no_sc", "ct", S_SCORE),
        ("table1", "sc - no_sc", "mr", S_SCORE),
        ("table2", "ours - baseline", "ct", DICE),
        ("table2", "ours - baseline", "mr", DICE),
    }


def test_secondary_comparisons_tell_architecture_shape_consistency_and_flood_apart(plan):
    compared = {(c.better.output, c.name) for c in plan.comparisons if not c.primary}
    assert {
        ("figure3", "no_sc - cyclegan"),
        ("figure3", "ours - no_sc"),
        ("flood", "ours_flooded - ada_flooded"),
        ("flood", "(ours_flooded - ours) - (ada_flooded - ada)"),
        ("table2", "ours - ada"),
    } <= compared
    # The middle row of Figure 3 costs nothing: its trials are Table 1's.
    for figure, table in zip(
        cells(plan, "figure3", "no_sc"), cells(plan, "table1", "no_sc"), strict=True
    ):
        assert figure.modality == table.modality and figure.trials == table.trials[:3]


def test_the_amount_that_the_user_gives_is_that_of_table_2():
    plan = plan_of("real_ct=1.0,real_mr=7")
    by_modality = {c.modality: c.trials[0] for c in cells(plan, "table2", "ours")}
    assert config(plan, by_modality["ct"]).data.real == ()
    assert config(plan, by_modality["mr"]).data.real == (("mr", 7),)


@pytest.mark.parametrize("preset", ["phantom", "tiny", "abdomen", "mmwhs"])
@pytest.mark.parametrize("amounts", ["real_mr=1.0", "real_ct=1.0,real_mr=1.0", "real_ct=1.0"])
def test_all_real_data_may_be_the_amount_of_table_2(preset, amounts):
    plan = plan_of(f"{preset},{amounts}", {**SUBJECTS, ("ct", "extra"): 76 * (preset == "mmwhs")})
    assert len({trial.name for trial in plan.trials.values()}) == len(plan.trials)
    for cell in cells(plan, "figure8", "ours"):
        assert {config(plan, name).phantom.extra for name in cell.trials} == {0}


@pytest.mark.parametrize("amounts", ["real_mr=19", "real_mr=1.0"])
def test_an_amount_that_leaves_nothing_out_is_all(amounts):
    plan = plan_of(amounts)
    (cell,) = (c for c in cells(plan, "table2", "ours") if c.modality == "mr")
    assert cell.trials[0] == "all-ours-s0" and not [n for n in plan.trials if "mr19" in n]


@pytest.mark.parametrize(
    ("amounts", "said"),
    [
        ("real_mr=20", "real_mr=20: only 19 training subjects"),
        ("real_pet=5", "real_pet: the data has modalities ct, mr"),
    ],
)
def test_an_amount_that_the_data_cannot_give_is_refused(amounts, said):
    with pytest.raises(UserError, match=said):
        plan_of(amounts)


def test_equally_many_volumes_are_one_point_of_figure_7():
    subjects = {("ct", "train"): 5, ("mr", "train"): 5, ("ct", "extra"): 1}
    shown = [c.x for c in cells(plan_of("mmwhs,data=/somewhere", subjects), "figure7", "ours")]
    assert len([x for x in shown if x > 1]) == len({x for x in shown if x > 1}) == 2


def test_what_the_user_sets_of_the_method_holds_for_its_arms():
    base = default.build(None, "joint")
    base.loss.shape, base.loss.seg_fake = 3.0, 0.2
    plan = make_plan(base, HEART, SUBJECTS)
    assert (config(plan, "all-ours-s0").loss.shape, config(plan, "all-ours-s0").loss.seg_fake) == (
        3.0,
        0.2,
    )
    assert config(plan, "all-no_sc-s0").loss.shape == config(plan, "all-gan-s0").loss.shape == 0.0


def test_the_cap_on_steps_holds_for_every_trial():
    plan = plan_of("tiny,steps=3")
    assert {steps_of(config(plan, n)) for n, t in plan.trials.items() if t.arm != "judge"} == {3}


def test_the_plan_starts_from_the_joint_method():
    with pytest.raises(UserError, match="configs/joint.py"):
        make_plan(default.build(None, "ada"), HEART, SUBJECTS)


def test_a_preset_of_ones_own_has_no_plan():
    base = default.build("tiny", "joint")
    base.preset = "mine"
    with pytest.raises(UserError, match="preset is mine; the plan is for abdomen, mmwhs"):
        make_plan(base, HEART, SUBJECTS)


def test_every_preset_has_a_scale():
    assert set(SCALES) == set(default.PRESETS)


@pytest.mark.parametrize("method", ["joint", "ada", "baseline"])
def test_judges_learn_from_all_real_volumes_whatever_a_run_may_see(method):
    """What their key leaves out must not reach them."""
    whole = judge_config(default.build("tiny", method))
    few = default.build("tiny,real_ct=2,real_mr=2,synthetic=1,steps=3,seed=5", method)
    few.init.seg = "runs/other"
    found = judge_config(few)
    for field in ("data.real", "data.synthetic", "steps", "seed", "init.seg", "init.gen"):
        section, _, name = field.rpartition(".")
        own, same = (c[section] if section else c for c in (found, whole))
        assert own[name] == same[name], field
    assert (found.data.real, found.data.synthetic, found.steps) == ((), -1, 0)
    assert found.seed != few.seed and not found.init.seg


@pytest.mark.parametrize(
    "argument", [None, "tiny", "abdomen", "mmwhs", "real_mr=1.0", "real_mr=17"]
)
def test_no_trial_asks_for_more_subjects_than_there_are(argument):
    plan = plan_of(argument)
    for name in plan.trials:
        for modality, amount in config(plan, name).data.real:
            count_of(modality, amount, SUBJECTS[modality, "train"])  # raises


def test_what_begins_fresh_has_the_rates_of_pre_training_and_arms_have_the_methods(plan):
    base = plan.base
    assert all(base.optim[p].pretrain_rate not in (0, base.optim[p].rate) for p in ("gen", "disc"))
    for name, trial in plan.trials.items():
        own = config(plan, name)
        for player in own.moves if trial.arm != "judge" else ():
            optim = base.optim[player]
            expected = optim.rate if trial.init else optim.pretrain_rate
            assert own.optim[player].rate == expected, (name, player)


@pytest.mark.parametrize("argument", [None, "abdomen", "mmwhs"])
def test_shifted_generators_differ_in_shape_consistency_alone(argument):
    plan = plan_of(argument)
    scale = SCALES[plan.base.preset]
    arms = [
        [t for n in plan.needs["displacement"] if (t := plan.trials[n]).arm == arm]
        for arm in ("no_sc", "sc")
    ]
    for control, ours in zip(*arms, strict=True):
        assert control.seed == ours.seed
        assert control.shift_voxels == ours.shift_voxels == scale.shift_voxels
        assert {**ours.init, **control.init} == ours.init
        assert ours.init.keys() == {"gen", "disc", "seg"}
        a, b = (config(plan, trial.name) for trial in (control, ours))
        assert budget_of(a).gen_updates == budget_of(b).gen_updates > 0
        assert a.log.keep_every_steps == b.log.keep_every_steps == scale.measured_every
