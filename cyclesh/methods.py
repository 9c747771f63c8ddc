"""The paper's experiments as settings of one trainer: who moves, what S reads, gamma.

config     moves   S reads                      gamma   in the paper
baseline   S       real                         -       Baseline (R); on all data: the S-score judge
gan        G D     -                            0       pre-training; "G w/o SC" of Table 1
cyclegan   G D     -                            0       Figure 3: gan with the generator criticised
ada        S       1/2 real, 1/4 fake, 1/4 rec  -       ADA (R+S): offline augmentation, G frozen
joint      G D S   real, fake, rec              preset  ours; "G w/ SC" of Table 1

A method sets the fields of the config that it names in METHODS; all others are common. Only `joint`
names neither gamma (`loss.shape`) nor the weights in S's loss (`loss.seg_*`): it takes those of the
preset, by default the paper's gamma of 1 and equal weights.
"""


def _segmentors_read(real: float, fake: float, rec: float) -> dict[str, float]:
    return {"loss.seg_real": real, "loss.seg_fake": fake, "loss.seg_rec": rec}


METHODS = {
    "baseline": {"moves": ("seg",), "loss.shape": 0.0, **_segmentors_read(1.0, 0.0, 0.0)},
    "gan": {"moves": ("gen", "disc"), "loss.shape": 0.0, **_segmentors_read(1.0, 0.0, 0.0)},
    "cyclegan": {
        "moves": ("gen", "disc"),
        "loss.shape": 0.0,
        **_segmentors_read(1.0, 0.0, 0.0),
        "model.generator": "resnet",
    },
    "ada": {"moves": ("seg",), "loss.shape": 0.0, **_segmentors_read(1 / 2, 1 / 4, 1 / 4)},
    "joint": {"moves": ("gen", "disc", "seg")},
}


def apply_method(config, name: str):
    """Set the fields of method ``name`` in a locked ConfigDict, in place; returns it."""
    config.update_from_flattened_dict({"method": name, **METHODS[name]})
    return config


def translates(config) -> bool:
    """Whether a run's method has generators, and so an S-score (a baseline has none)."""
    return "gen" in config.moves or bool(config.loss.seg_fake or config.loss.seg_rec)
