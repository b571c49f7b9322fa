"""``README.md``: the data card, with the YAML in front that hubs for data sets read."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from hephaestus_build.catalog.dataset_findings import DatasetFindings
from hephaestus_build.catalog.known_limits import (
    ANNOTATION,
    CITATIONS,
    MISUSE,
    SAMPLING,
    USE,
    describe_defects,
    describe_limits,
    describe_mask_position,
    describe_spatial_bias,
)
from hephaestus_build.catalog.sources_credit import SIMULATED_NOTICE, licences_of
from hephaestus_build.catalog.stac_collection import dataset_title, describe_dataset
from hephaestus_build.core.plain_text import format_bytes
from hephaestus_build.dataset.splits import PARTS
from hephaestus_build.report.markdown import escape_markdown, markdown_table

#: Classes of size that hubs know, by the number of rows that each ends below.
_SIZES = {
    1_000: "n<1K",
    10_000: "1K<n<10K",
    100_000: "10K<n<100K",
    1_000_000: "100K<n<1M",
    10_000_000: "1M<n<10M",
}
_OPEN = """```python
import pystac
import xarray as xr

collection = pystac.read_file("collection.json")
item = next(collection.get_items(recursive=True))
asset = item.assets["cube"]
cube = xr.open_dataset(asset.get_absolute_href(), **asset.extra_fields["xarray:open_kwargs"])
```

```python
import pandas as pd

pairs = pd.read_parquet("pairs.parquet")
pairs[pairs.usable & pairs.deformation][["frame", "pair", "insar:temporal_baseline"]]
```"""


def render_data_card(findings: DatasetFindings) -> str:
    """Return the data card as Markdown.

    Parameters
    ----------
    findings : DatasetFindings
        What is known of the data set.
    """
    parts = [
        f"---\n{_front_matter(findings)}---",
        f"# {dataset_title(findings.simulated)}",
        *(
            [f"> **{SIMULATED_NOTICE}** Nothing of it says anything of a volcano."]
            if findings.simulated
            else []
        ),
        describe_dataset(findings),
        "## Contents",
        markdown_table(("", ""), _content_rows(findings)),
        "## How to open it",
        _OPEN,
        "## Use",
        f"{USE}\n\n{MISUSE}",
        "## Samples",
        SAMPLING,
        "## Splits",
        *_split_parts(findings),
        "## Annotations",
        ANNOTATION,
        "### Defects",
        _list(describe_defects(findings)),
        "### Where the masks lie",
        describe_mask_position(findings),
        "## Bias",
        describe_spatial_bias(findings),
        markdown_table(("region", "pairs", "with deformation"), _region_rows(findings)),
        "## Limits",
        _list(describe_limits(findings)[:-1]),
        "## Licences",
        markdown_table(("source", "licence", "covers", "credit"), _licence_rows(findings)),
        "## Citation",
        _list(CITATIONS),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(findings: DatasetFindings) -> str:
    size = next((name for limit, name in _SIZES.items() if findings.pairs < limit), "n>10M")
    license_fields = (
        {"license": "mit"}
        if findings.simulated
        else {"license": "other", "license_name": "of-four-sources", "license_link": "README.md"}
    )
    matter = {
        **license_fields,
        "pretty_name": dataset_title(findings.simulated),
        "language": ["en"],
        "task_categories": ["image-segmentation", "image-classification"],
        "annotations_creators": ["machine-generated" if findings.simulated else "expert-generated"],
        "size_categories": [size],
        "tags": [
            *(["simulated"] if findings.simulated else []),
            *(
                "InSAR",
                "Sentinel-1",
                "LiCSAR",
                "ERA5",
                "volcano",
                "deformation",
                "zarr",
                "stac",
                "geospatial",
            ),
        ],
        "configs": [{"config_name": "pairs", "data_files": "pairs.parquet"}],
    }
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=False, width=110)


def _content_rows(findings: DatasetFindings) -> list[tuple[str, str]]:
    low, high = (f"{size:.0f}" for size in findings.resolution)
    return [
        (
            "data",
            "SIMULATED" if findings.simulated else "LiCSAR interferograms, ERA5, Hephaestus annotations",
        ),
        ("cubes", f"{findings.cubes}, {format_bytes(findings.size)}"),
        ("interferograms", str(findings.pairs)),
        ("annotated", f"{findings.annotated}, {findings.usable} of them samples"),
        ("with deformation", str(findings.deforming)),
        ("acquisitions", f"{findings.first} to {findings.last}"),
        ("pairs span", f"{findings.baselines[0]} to {findings.baselines[1]} days"),
        ("pixels", f"{low} m" if low == high else f"{low} to {high} m"),
        ("newest cube", findings.updated),
    ]


def _split_parts(findings: DatasetFindings) -> list[str]:
    if not findings.splits:
        return ["No split was written when this card was made; `hephaestus splits write` writes them."]
    counts = [
        (
            f"`{split.name}`",
            str(split.version),
            f"`{split.sha256}`",
            *(f"{split.counts[part]['positive']} / {split.counts[part]['negative']}" for part in PARTS),
            str(sum(split.here.values())),
        )
        for split in findings.splits
    ]
    audits = [
        (
            f"`{split.name}`",
            escape_markdown(", ".join(split.promises) or "nothing"),
            "kept" if split.audit["passed"] else "BROKEN",
            escape_markdown("; ".join(split.findings) or "nothing"),
        )
        for split in findings.splits
    ]
    return [
        (
            "Samples with and without deformation, the hash of each split, and how many of its samples are "
            "here. The column `split:<name>` of `pairs.parquet` has the part of each pair."
        ),
        markdown_table(("split", "version", "sha256", *PARTS, "here"), counts),
        "What the audit of each found:",
        markdown_table(("split", "promises", "promises are", "found"), audits),
    ]


def _region_rows(findings: DatasetFindings) -> list[tuple[str, str, str]]:
    return [
        (escape_markdown(name), str(pairs), str(positives))
        for name, (pairs, positives) in findings.regions.items()
    ]


def _licence_rows(findings: DatasetFindings) -> list[tuple[str, ...]]:
    return [
        (item.source, f"[{item.licence}]({item.url})", item.covers, item.credit)
        for item in licences_of(findings.simulated)
    ]


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)
