"""The scores as a table for the terminal."""

from collections.abc import Mapping

from cyclesh.scoring.tables import split_word


def results_table(results: Mapping) -> str:
    """One block a modality: Dice by structure beside the judge's, S-score beside its ceiling."""
    split = split_word(results)
    lines = [] if split == "test" else [f"of the {split} cases", ""]
    for modality, judge in results["judge"].items():
        test, s_score = results["test"][modality], results["s_score"][modality]
        columns = {
            "Dice": test and test["dice"],
            "judge": judge["dice"],
            "ASSD mm": test and test["assd_mm"],
            "HD95 mm": test and test["hd95_mm"],
            "S-score": s_score,
            "ceiling": judge["ceiling_by_structure"],
        }
        shown = {name: values for name, values in columns.items() if values}
        if not shown:
            continue
        structures = list(next(iter(shown.values())))
        width = max(map(len, [*structures, modality])) + 2
        lines.append(modality.upper().ljust(width) + "".join(f"{name:>10}" for name in shown))
        for structure in [*structures[1:], "mean"]:
            cells = "".join(_cell(values[structure]) for values in shown.values())
            lines.append(structure.ljust(width) + cells)
        floors = [judge.get(name) for name in ("untranslated", "histogram_matched")]
        if s_score and None not in floors:
            lines.append(
                f"the judge on inputs untranslated: {floors[0]:.3f}, "
                f"histogram-matched: {floors[1]:.3f}"
            )
        similarity = results["translation"][modality]
        if similarity:
            lines.append(
                f"synthetic {modality.upper()} against the truth: "
                f"MAE {_number(similarity['mae'])}, PSNR {_number(similarity['psnr_db'])} dB, "
                f"SSIM {_number(similarity['ssim'])}"
            )
        lines.append("")
    return "\n".join(lines).rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _cell(value: float | None) -> str:
    return f"{_number(value):>10}"
