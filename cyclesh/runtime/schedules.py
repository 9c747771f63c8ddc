"""Learning rates over a run: constant, then linear to zero (paper 4.2)."""

import optax


def constant_then_linear(
    rate: float,
    constant_updates: int,
    decay_updates: int,
    *,
    pretrain_rate: float,
    pretrain_updates: int,
) -> optax.Schedule:
    """``rate`` for ``constant_updates`` updates, then a straight line to 0 over ``decay_updates``.

    Before both, ``pretrain_rate`` for ``pretrain_updates``. Counts are updates of the tree that the
    schedule belongs to: a tree that rests in a phase does not age in it.
    """
    return optax.join_schedules(
        [
            optax.constant_schedule(pretrain_rate),
            optax.constant_schedule(rate),
            optax.linear_schedule(rate, 0.0, max(decay_updates, 1)),
        ],
        [pretrain_updates, pretrain_updates + constant_updates],
    )
