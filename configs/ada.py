"""ADA (R+S) of Table 2: segmentors fine-tuned on real and synthetic volumes of frozen generators.

The generators and the segmentors to start from are pre-trained in the same run, unless `init` names
the runs that have them: by default for as many epochs as the preset or `epochs` gives the
fine-tuning (`--config.schedule...` comes later and changes the one that it names alone).
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
