"""Every field of a run, with the paper's value or, where the paper is silent, our choice.

Off by default, though the paper has them: pre-training and the early stop (`schedule`).

A config file of this folder is `get_config(argument)`; the argument is what follows the colon in
`--config=configs/joint.py:abdomen,data=FOLDER,seed=1`: a preset, if any, then key=value items.
"""

from ml_collections import ConfigDict

from cyclesh import settings
from cyclesh.errors import UserError
from cyclesh.methods import apply_method


def fields() -> ConfigDict:
    """All fields with their defaults, at the paper's scale; presets change them below."""
    c = ConfigDict()
    c.method = "joint"  # name of the method; its settings are in cyclesh/methods.py
    c.preset = "mmwhs"  # which of PRESETS was applied
    c.moves = ("gen", "disc", "seg")  # the networks that the method updates
    c.seed = 0  # of initialisation, data order, augmentation and pool
    c.batch = 1  # volumes of each domain a step, over all devices (ours; CycleGAN's)
    c.steps = 0  # stop after this many training steps; 0: when the schedule ends

    # --- data: fallbacks; a dataset.json beside the scans, or a prepared store, overrides them
    c.data = d = ConfigDict()
    d.path = ""  # raw folder or prepared store; empty: the embedded phantom
    d.modalities = ("ct", "mr")  # domain A, domain B
    # (name, value in the label files), in the order of the classes: MM-WHS's five (5.1)
    d.structures = (("LV", 500), ("RV", 600), ("LA", 420), ("RA", 550), ("Myo", 205))
    d.aliases = ((421, 420),)  # (wrong, right) label values: a known typo in MM-WHS
    d.dropped = (820, 850)  # known label values that become background: aorta, pulmonary artery
    # per modality: fixed limits in source units, or percentiles of each crop (ours)
    d.windows = (("fixed", -800.0, 800.0), ("percentile", 0.5, 99.5))
    d.spacing_mm = (1.5, 1.5, 1.5)  # z, y, x of the training grid (5.1)
    d.shape = (86, 112, 112)  # z, y, x voxels of the training crop (5.1)
    d.override = ()  # which of "spacing_mm", "shape" the user set and dataset.json may not change
    d.fractions = (0.4, 0.1, 0.5)  # train, val, test by subject; half for test as in 5.1
    d.split_seed = 0  # another value draws another split (repeated splits)
    # (modality, amount): real training subjects that exist for this run, an int is a count, a
    # float a share (Table 2: 0.14); what is left out is invisible to every network
    d.real = ()  # modalities not named keep all
    d.synthetic = -1  # how many source volumes a modality are translated at most; -1: all
    d.attribution = ""  # whom to name beside pictures of the data
    d.processes = 0  # workers of verify and prepare; 0: one a core

    # --- the embedded phantom, used when data.path is empty
    c.phantom = p = ConfigDict()
    p.seed = 0  # apart from `seed`, so that runs of several seeds share their data
    p.subjects = 48  # of each modality
    p.extra = 0  # further source-only subjects of the first modality (the paper's S2)
    p.cohort_difference = 1.0  # 0: both modalities' subjects share one anatomy distribution

    # --- augmentation of training volumes; labels move with voxels (all ours)
    c.augment = a = ConfigDict()
    a.shift_mm = 6.0  # uniform in +- this, each axis
    a.rotate_deg = 8.0  # uniform in +- this, about each axis
    a.scale = 0.08  # uniform in 1 +- this
    a.flip = False  # left-right; a heart is not symmetric

    # --- networks (4.1)
    c.model = m = ConfigDict()
    m.filters = 16  # of G and S at full resolution, doubled at each level (ours)
    m.depth = 3  # downsamplings by two
    m.generator = "unet"  # "resnet": CycleGAN's, which the paper criticises (Figure 3)
    m.residual_blocks = 6  # of the "resnet" generator
    m.disc_widths = (2, 4, 8)  # discriminator layers but the last, in multiples of filters (ours)
    m.disc_strides = (2, 2, 1, 1)  # of all its layers: a receptive field of 23 voxels (ours)
    # Slope of S's ReLU below zero (ours). Plain ReLUs (0) die without a norm, and with them whole
    # structures: S then needs three times the updates, or never finds them.
    m.seg_leak = 0.2
    m.disc_leak = 0.2  # slope of D's LeakyReLU below zero (CycleGAN's)
    m.norm_epsilon = 1e-5  # of InstanceNorm (CycleGAN's)
    m.gan_init_std = 0.02  # normal initialisation of G and D (CycleGAN's)
    # S has no norm to mend what its layers do to the variance of its activations, so its kernels
    # start with a variance of this over their fan-in: He's 2 suits ReLUs, 1 linear layers (ours)
    m.seg_init_gain = 2.0

    # --- the objective (Eq. 3); `methods` sets what differs between experiments
    c.loss = w = ConfigDict()
    w.cycle = 10.0  # lambda (3.6)
    w.shape = 1.0  # gamma (3.6)
    w.identity = 0.0  # CycleGAN's identity loss; the paper has none
    w.disc = 0.5  # factor of the discriminators' loss (CycleGAN's)
    w.seg_real = 1 / 3  # weight of real volumes in `joint`'s loss of S (3.5; all three alike: ours)
    w.seg_fake = 1 / 3  # of synthetic volumes
    w.seg_rec = 1 / 3  # of reconstructed volumes
    w.pool_size = 50  # fakes that a domain's history pool holds (CycleGAN's)

    # --- Adam for each kind of network (4.2: 2e-4 for S, G and D as in CycleGAN)
    c.optim = o = ConfigDict()
    # pretrain_rate: in the pre-training phases; 0: the same rate (ours)
    adam = {"rate": 2e-4, "pretrain_rate": 0.0, "b1": 0.5, "b2": 0.999, "eps": 1e-8}
    o.gen = ConfigDict(adam)
    o.disc = ConfigDict(adam)
    o.seg = ConfigDict({**adam, "b1": 0.9})
    o.clip_norm = 0.0  # clip each player's gradient to this global norm; 0: never
    # steps of a run whose loss or gradient is not finite that may be left out; 0: the first stops
    o.skip_nonfinite = 0

    # --- epochs, each one pass over the larger domain (4.2)
    c.schedule = s = ConfigDict()
    s.epoch_steps = 0  # steps of an epoch instead, whatever the batch and the data; 0: one pass
    # segmentors alone on real data; the paper: 100, "for the purpose of fast experimenting"
    s.pretrain_seg_epochs = 0
    s.pretrain_gan_epochs = 0  # then G and D; the paper: 60. Then the method
    s.pretrain_gan_shape = 0.0  # gamma while G and D are pre-trained (ours; S rests meanwhile)
    s.constant_epochs = 50  # of the method at full rate
    s.decay_epochs = 50  # of the method while the rates fall linearly to 0
    s.early_stop = False  # stop when the metric stalls on validation (4.2)
    s.metric = "val/seg_loss"  # that of 4.2; "val/dice" and "val/s_score" are better when higher
    s.patience = 5  # for this many validations in a row (4.2: "about 5 epochs")
    s.min_delta = 0.0  # less than this is no progress
    s.from_epoch = 0  # of the method's phase; earlier ones never stop

    # --- start trees from other runs: workdirs; empty: scratch
    c.init = ConfigDict({"gen": "", "disc": "", "seg": ""})
    c.init_checkpoint = "best"  # which of theirs: the "best" on validation, or the "last"
    c.init_pretrain = False  # whether pre-training is for networks that come from there, too

    # --- validation, checkpoints, logs
    c.log = g = ConfigDict()
    g.validate_epochs = 1.0  # between validations, each followed by a checkpoint
    g.keep_every_steps = 0  # save and keep one every N steps too; 0: the newest two and the best
    g.row_steps = 10  # between rows of metrics.jsonl; a validation always writes one
    g.report_cases = 6  # test cases a direction shown in the report

    # --- the S-score's judges: `baseline` on all real training data, networks and batch the run's
    c.judge = j = ConfigDict()
    j.epochs = 100  # constant for half of them, then linear to 0
    j.rate = 2e-4
    # Apart from `seed`: segmentors that began as the judges did would agree with them for no reason
    j.seed = 1000

    # --- how it is computed
    c.compute = k = ConfigDict()
    # Of convolutions, or "bfloat16"; parameters, statistics and losses stay float32. In float32,
    # accelerators still round factors (to TF32 or bfloat16), unless the environment says
    # JAX_DEFAULT_MATMUL_PRECISION=highest
    k.dtype = "float32"
    k.lowering = "auto"  # "native" (GPU, TPU), "folded" (CPU), "auto" by platform; "plain" (ops.py)
    k.remat = False  # recompute activations in the backward pass: saves memory, not on a CPU
    k.save_memory = False  # CPU: less memory for a step, up to a third slower
    k.data_devices = 0  # over which a batch is spread; 0: as many as divide it, of those there are
    k.home_devices = 0  # 2: a device for the volumes of each domain; 0: where that is quicker
    k.depth_devices = 1  # over which the depth of each volume is spread, where one cannot hold it
    return c


PRESETS = {
    # The embedded phantom on two CPU cores, in minutes.
    "phantom": {
        "data.spacing_mm": (4.0, 4.0, 4.0),
        "data.shape": (32, 40, 40),
        "model.filters": 8,
        # Hundreds of updates instead of ten thousands, so G's rate is higher (D's is lower once all
        # move) and gamma is 5: with the paper's 1, segmentors that learn from G's fakes come to
        # accept whatever it makes sooner than it learns to please them. At first they rest, and
        # know real volumes only.
        "loss.shape": 5.0,
        # For the same reason synthetic volumes weigh little in S's loss: with equal weights, G and
        # S come to agree on volumes that the judges cannot segment, the more the longer they train.
        "loss.seg_real": 0.6,
        "loss.seg_fake": 0.1,
        "loss.seg_rec": 0.3,
        "optim.gen.pretrain_rate": 2e-3,
        "optim.disc.pretrain_rate": 6e-4,
        "optim.seg.pretrain_rate": 1e-3,
        "optim.gen.rate": 1e-3,
        "optim.disc.rate": 1e-4,
        "schedule.pretrain_seg_epochs": 24,
        "schedule.pretrain_gan_epochs": 12,
        "schedule.pretrain_gan_shape": 5.0,
        "schedule.constant_epochs": 4,
        "schedule.decay_epochs": 6,
        "log.validate_epochs": 2.0,
        "judge.epochs": 40,
        "judge.rate": 1e-3,
    },
    # The same at the smallest size that still runs everything: for tests.
    "tiny": {
        "data.override": ("shape", "spacing_mm"),
        "data.spacing_mm": (8.0, 8.0, 8.0),
        "data.shape": (16, 24, 24),
        "phantom.subjects": 10,
        "model.filters": 4,
        "loss.pool_size": 5,
        "optim.gen.rate": 1e-3,
        "optim.disc.rate": 4e-4,
        "optim.seg.rate": 2e-3,
        "schedule.constant_epochs": 5,
        "schedule.decay_epochs": 5,
        "log.row_steps": 1,
        "log.keep_every_steps": 4,
        "judge.epochs": 10,
        "judge.rate": 2e-3,
    },
    # Abdominal CT and MR with liver, kidneys and spleen: real volumes that two cores can train on.
    "abdomen": {
        "data.structures": (("liver", 1), ("right_kidney", 2), ("left_kidney", 3), ("spleen", 4)),
        "data.aliases": (),
        "data.dropped": (),
        "data.windows": (("fixed", -125.0, 275.0), ("percentile", 0.5, 99.5)),
        "data.spacing_mm": (6.0, 6.0, 6.0),
        "data.shape": (40, 48, 56),
        "model.filters": 8,
        "augment.shift_mm": 12.0,
        # As on the phantom, and for the same reasons.
        "loss.shape": 5.0,
        "loss.seg_real": 0.6,
        "loss.seg_fake": 0.1,
        "loss.seg_rec": 0.3,
        "optim.gen.pretrain_rate": 1e-3,
        "optim.disc.pretrain_rate": 5e-4,
        "optim.seg.pretrain_rate": 1e-3,
        "optim.gen.rate": 1e-3,
        "optim.disc.rate": 1e-4,
        "optim.seg.rate": 5e-4,
        "schedule.pretrain_seg_epochs": 60,
        "schedule.pretrain_gan_epochs": 40,
        "schedule.pretrain_gan_shape": 5.0,
        "schedule.constant_epochs": 15,
        "schedule.decay_epochs": 15,
        "log.validate_epochs": 5.0,
        "judge.epochs": 100,
        "judge.rate": 1e-3,
    },
    # The paper's scale: 1.5 mm, 86x112x112, accelerators. The fields' own values.
    "mmwhs": {},
}


def build(argument: str | None, method: str) -> ConfigDict:
    """The config of a method: fields, preset, method, then the argument's key=value items."""
    preset, items = settings.split_argument(argument)
    preset = preset or "phantom"
    if preset not in PRESETS:
        raise UserError(f"--config: unknown preset {preset!r}; known are {', '.join(PRESETS)}")
    config = fields().lock()
    config.update_from_flattened_dict({"preset": preset, **PRESETS[preset]})
    apply_method(config, method)
    settings.apply_items(config, items)
    settings.validate(config)
    return config
