"""What readers of the data set must know, in words: sampling, annotation, bias, limits."""

from __future__ import annotations

from hephaestus_build.catalog.dataset_findings import DatasetFindings
from hephaestus_build.core.plain_text import count_of

CITATIONS = (
    (
        "Hephaestus: A Large Scale Multitask Dataset Towards InSAR Understanding. CVPR Workshops, 2022, "
        "1453-1462"
    ),
    "Hephaestus Minicubes: A Global, Multi-Modal Dataset for Volcanic Unrest Monitoring",
)
USE = (
    "Research on volcanic deformation in wrapped interferograms: classification, segmentation, change "
    "over time, and the atmosphere's part in the phase."
)
MISUSE = (
    "Not for raising or calling off an alarm: the annotations are of past interferograms, no expert has "
    "looked at others, and rest means that no deformation was seen."
)
SAMPLING = (
    "One cube a frame of LiCSAR, with all of its interferograms that were asked for, on one grid and "
    "whole; no windows are cut out. Samples are annotated interferograms that are not corrupted, have no "
    "processing error and are not empty (column usable)."
)
ANNOTATION = (
    "Experts outlined deformation on LiCSAR's previews, one annotation an interferogram, and wrote its "
    "activity type, intensity, phase, flags, confidence and a caption. Masks are rasterized from the "
    "outlines; where they overlap the smaller one is on top."
)


def describe_spatial_bias(findings: DatasetFindings) -> str:
    """Return how unevenly places are represented."""
    total = sum(positives for _, positives in findings.regions.values())
    found = f"{count_of(findings.cubes, 'frame')} of {count_of(len(findings.regions), 'region')}"
    if not total:
        return f"{found}; no interferogram with deformation is annotated."
    shares = [
        f"{name} {positives / total:.0%}"
        for name, (_, positives) in list(findings.regions.items())[:3]
        if positives
    ]
    return (
        f"{found}. Of {count_of(total, 'interferogram')} with deformation: {', '.join(shares)}. A score "
        "over all of them is mostly one of these places; report scores by region too, and keep the frames "
        "of a region in one part."
    )


def describe_mask_position(findings: DatasetFindings) -> str:
    """Return how well it is known where the masks lie."""
    masks = findings.masks
    if not (total := sum(masks.values())):
        return "No interferogram here has a mask."
    told = (
        f"The preview that the expert saw tells the position of {masks['seen']} of {count_of(total, 'mask')}."
    )
    if masks["assumed"]:
        told += (
            f" That of {masks['assumed']} is assumed from the convention of the time; if it was the other "
            f"one, a mask is off by up to {findings.mask_error_rows:.1f} rows "
            f"({findings.mask_error_m:.0f} m) to the north or south (column mask_error_rows)."
        )
    if masks["uncertain"]:
        told += f" That of {masks['uncertain']} is not known: even the scale of the previews is uncertain."
    return told


def describe_defects(findings: DatasetFindings) -> list[str]:
    """Return a sentence for each kind of defect of the annotations."""
    if not findings.annotations:
        return ["The files of the annotations were not available when this catalogue was written."]
    total = sum(item.count for item in findings.defects)
    return [
        f"{count_of(total, 'defect')} in {count_of(findings.annotations, 'annotation')}",
        *(
            f"{item.kind}: {item.count}, {item.action} (such as {', '.join(item.files)})"
            for item in findings.defects
        ),
    ]


def describe_limits(findings: DatasetFindings) -> list[str]:
    """Return the limits that a reader must know."""
    return [
        "Phase is wrapped; exactly 0 is no data, and coherence 0 is no data.",
        (
            "Two interferograms that share an acquisition share its atmosphere, so they are not independent "
            "samples."
        ),
        "The newest dates may have preliminary ERA5 (columns era5_primary and era5_secondary).",
        describe_mask_position(findings),
    ]
