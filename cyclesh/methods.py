"""The paper's experiments as settings of one trainer: who moves, what S reads, gamma.

config     moves   S reads                      gamma   in the paper
baseline   S       real                         -       Baseline (R); on all data: the S-score judge
gan        G D     -                            0       pre-training; "G w/o SC" of Table 1
cyclegan   G D     -                            0       Figure 3: gan with the generator criticised
ada        S       1/2 real, 1/4 fake, 1/4 rec  -       ADA (R+S): offline augmentation, G frozen
joint      G D S   real, fake, rec              its own ours; "G w/ SC" of Table 1

Keys are fields of the config; whatever is not named here is common to all methods, but for gamma
(`loss.shape`: the paper's 1) and for what the segmentors' loss weighs (`loss.seg_*`: all alike),
which only `joint` leaves as they are: the default's unless a preset has others.
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
