"""The model card of an export: what the model is, learned, reaches, is for, and is not for."""

from collections.abc import Mapping

from cyclesh.deployed import Deployed
from cyclesh.scoring.console import results_table

PURPOSES = {
    "gen": "translates volumes of either modality into the other",
    "seg": "segments volumes of either modality",
}
LIMITS = """\
- Research only. Not a medical device; not for diagnosis, treatment or its planning.
- A synthetic volume is a guess at how the anatomy would look, not a measurement: its intensities
  (HU of synthetic CT included) must not be used as measured ones, and pathology may be added,
  removed or moved. The `agreement` in the JSON beside each result says where the segmentors of both
  modalities see the same structures; a high one does not prove a faithful translation.
- It holds for scans like those it was trained on: other scanners, protocols, contrast phases,
  populations, diseases and fields of view are a domain shift that nothing here detects reliably.
- It sees only the structures listed above, at the spacing of its grid."""


def model_card(
    model: Deployed, config: Mapping, data: Mapping, results: Mapping | None, precision: str
) -> str:
    """Markdown.

    Args:
      config: the run's, of which the section `data` says whose volumes these are.
      data: data.json's content.
      results: results.json's content when it scores just this checkpoint, else None.
      precision: of the numbers in the file.
    """
    first, second = model.description.modalities
    players = " and ".join(PURPOSES[player] for player in model.players)
    sections = {
        "Data": _data(model, config["data"], data),
        "Scores": _scores(model, results),
        "Use": _use(model),
        "Limits": LIMITS,
        "Origin": _origin(model, precision),
    }
    title = (
        f"# {model.config.method}: {first.upper()} and {second.upper()}\n\nA model that {players}."
    )
    parts = [title, *(f"## {heading}\n\n{text}" for heading, text in sections.items())]
    return "\n\n".join(parts) + "\n"


def _data(model: Deployed, section: Mapping, data: Mapping) -> str:
    description = model.description
    whose = "Volumes of the user's own" if section["path"] else "The phantom's simulated volumes"
    rows = [
        f"- {whose}, unpaired; their content has the SHA-256 `{model.provenance['data']}`.",
        f"- Structures (label values): {_listed(description.structures)}.",
        f"- Grid: {_by(description.shape)} voxels of {_by(description.spacing_mm)} mm (z, y, x), "
        "about the middle of the structures.",
    ]
    for modality in description.modalities:
        rule, low, high = description.window(modality)
        kind = "the percentiles" if rule == "percentile" else "the values"
        low_out, high_out = model.windows[modality]
        rows.append(
            f"- {modality.upper()}: -1 and 1 are {kind} {low:g} and {high:g} of the scan; "
            f"synthetic volumes are given in {low_out:g} to {high_out:g}."
        )
    if "real" in data:
        real, source = data["real"], data["source"]
        counts = [f"{len(real[m])} {m.upper()} ({len(source[m])} translated)" for m in real]
        rows.append(
            f"- Training volumes: {', '.join(counts)}. Train, validation and test were split by "
            f"subject (SHA-256 of the split `{data['split_sha256']}`)."
        )
    if section["attribution"]:
        rows.append(f"- Attribution: {section['attribution']}")
    return "\n".join(rows)


def _scores(model: Deployed, results: Mapping | None) -> str:
    if results is None:
        step = model.provenance["checkpoint"]
        return f"Checkpoint {step} has not been scored (`--mode=evaluate --checkpoint={step}`)."
    scored = [f"{row['n']} {m.upper()} volumes" for m, row in results["test"].items() if row]
    split = f"the {results['scored_split']} split" + f" ({', '.join(scored)})" * bool(scored)
    return (
        f"On {split}, on the training grid, background excluded. The judge is a segmentor of real "
        "volumes only; the S-score is its Dice on synthetic volumes, the ceiling that on true "
        "volumes of the same subjects, where these exist.\n\n"
        f"```\n{results_table(results)}\n```"
    )


def _use(model: Deployed) -> str:
    first, second = model.description.modalities
    lines = []
    if model.has("gen"):
        lines.append(f"--mode=translate --to={second} --input=SCAN.nii.gz --output=RESULT.nii.gz")
    if model.has("seg"):
        lines.append(
            f"--mode=segment --modality={first} --input=SCAN.nii.gz --output=LABELS.nii.gz"
        )
    commands = "\n".join(f"    python -m cyclesh.main --workdir=FOLDER {line}" for line in lines)
    return (
        "For research on translation and segmentation of volumes like those above. With the "
        f"package `cyclesh` and this folder alone:\n\n{commands}"
    )


def _origin(model: Deployed, precision: str) -> str:
    about = model.provenance
    return (
        f"Method `{about['method']}`, seed {about['seed']}, checkpoint {about['checkpoint']}; the "
        f"numbers in `weights.safetensors` are {precision}, computing is in "
        f"{model.config.compute.dtype}.\n\nThe method is that of Zhang, Yang and Zheng, "
        "*Translating and Segmenting Multimodal Medical Volumes with Cycle- and Shape-Consistency "
        "Generative Adversarial Network*, CVPR 2018; please cite it."
    )


def _by(numbers) -> str:
    return "x".join(f"{number:g}" for number in numbers)


def _listed(structures) -> str:
    return ", ".join(f"{name} ({value})" for name, value in structures)
