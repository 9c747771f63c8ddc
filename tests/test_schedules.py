"""The paper's schedule (4.2), counted in updates of the tree that it belongs to."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import ada, default
from cyclesh import state
from cyclesh.runtime.schedules import constant_then_linear

EPOCH_STEPS = 7


def test_by_hand():
    rate = constant_then_linear(0.8, 3, 4, pretrain_rate=1.0, pretrain_updates=2)
    np.testing.assert_allclose(
        [rate(n) for n in range(11)], [1, 1, 0.8, 0.8, 0.8, 0.8, 0.6, 0.4, 0.2, 0, 0], atol=1e-7
    )


def test_without_decay_it_is_constant_to_the_last_update():
    rate = constant_then_linear(0.8, 3, 0, pretrain_rate=1.0, pretrain_updates=0)
    np.testing.assert_allclose([rate(n) for n in range(3)], 0.8)


@pytest.mark.parametrize(("epoch", "value"), [(0, 2e-4), (50, 2e-4), (75, 1e-4), (100, 0.0)])
def test_the_papers_values(epoch, value):
    rates = state.make_rates(default.build("mmwhs", "joint"), EPOCH_STEPS)
    for rate in rates:
        np.testing.assert_allclose(rate(epoch * EPOCH_STEPS), value, atol=1e-12)


def test_pre_training_comes_before_the_decay():
    config = default.build("mmwhs", "joint")
    config.schedule.pretrain_seg_epochs, config.schedule.pretrain_gan_epochs = 100, 60
    rates = state.make_rates(config, EPOCH_STEPS)
    for rate, pre_training in ((rates.seg, 100), (rates.gen, 60), (rates.disc, 60)):
        values = [rate((pre_training + epoch) * EPOCH_STEPS) for epoch in (0, 50, 75, 100)]
        np.testing.assert_allclose(values, [2e-4, 2e-4, 1e-4, 0], atol=1e-12)


def test_pre_training_may_have_a_rate_of_its_own():
    config = default.build("mmwhs", "joint")
    config.schedule.pretrain_seg_epochs, config.optim.seg.pretrain_rate = 100, 1e-3
    config.optim.gen.pretrain_rate = 1e-3  # G is not pre-trained here, so it never counts
    rates = state.make_rates(config, EPOCH_STEPS)
    values = [rates.seg(epoch * EPOCH_STEPS) for epoch in (0, 99, 100, 150, 175)]
    np.testing.assert_allclose(values, [1e-3, 1e-3, 2e-4, 2e-4, 1e-4], atol=1e-9)
    np.testing.assert_allclose(rates.gen(0), 2e-4, atol=1e-9)


def test_a_tree_that_rests_does_not_age():
    # ada moves S alone: S decays over the method's last epochs, G and D never do.
    rates = state.make_rates(ada.get_config("mmwhs"), EPOCH_STEPS)  # pre-trains all for 100
    np.testing.assert_allclose(
        [rates.seg(epoch * EPOCH_STEPS) for epoch in (0, 150, 175, 200)],
        [2e-4, 2e-4, 1e-4, 0],
        atol=1e-12,
    )
    for rate in (rates.gen, rates.disc):
        np.testing.assert_allclose([rate(0), rate(100 * EPOCH_STEPS - 1)], 2e-4, rtol=1e-6)


def test_optimisers_follow_their_own_rates():
    # Under a gradient that stays 1, Adam's step is the rate itself.
    config = default.build("mmwhs,epochs=4", "joint")  # 2 constant, 2 decaying
    config.optim.gen.rate, config.optim.disc.rate, config.optim.seg.rate = 0.1, 0.01, 0.001
    for tx, rate in zip(state.make_optimisers(config, 2), (0.1, 0.01, 0.001), strict=True):
        opt, steps = tx.init(jnp.zeros(())), []
        for _ in range(9):
            update, opt = tx.update(jnp.ones(()), opt)
            steps.append(-float(update) / rate)
        np.testing.assert_allclose(steps, [1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0], atol=1e-4)
