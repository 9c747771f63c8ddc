"""ADA (R+S) of Table 2: segmentors fine-tuned on real and synthetic volumes of frozen generators.

The generators and the segmentors to start from are pre-trained in the same run, for as many epochs as
the fine-tuning takes where the preset does not say. To take them from other runs instead, name these
by `init.gen` and `init.seg` and set `schedule.pretrain_gan_epochs` and `..._seg_epochs` to 0.
"""

from configs import default


def get_config(argument: str | None = None):
    """``argument``: see `configs.default`."""
    config = default.build(argument, "ada")
    schedule = config.schedule
    epochs = schedule.constant_epochs + schedule.decay_epochs
    schedule.pretrain_seg_epochs = schedule.pretrain_seg_epochs or epochs
    schedule.pretrain_gan_epochs = schedule.pretrain_gan_epochs or epochs
    return config
