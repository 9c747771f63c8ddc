"""ADA (R+S) of Table 2: segmentors fine-tuned on real and synthetic volumes of frozen generators.

The generators and the segmentors to start from are pre-trained in the same run, for as many epochs
as the fine-tuning takes, unless `init` names the runs that have them.
"""

from configs import default


def get_config(argument: str | None = None):
    """``argument``: see `configs.default`."""
    config = default.build(argument, "ada")
    epochs = config.schedule.constant_epochs + config.schedule.decay_epochs
    config.schedule.pretrain_seg_epochs = epochs
    config.schedule.pretrain_gan_epochs = epochs
    return config
