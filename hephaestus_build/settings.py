"""Every setting, typed, described and refused when unknown."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from hephaestus_build.accept import EXAMPLE, PRODUCTS, read_accept
from hephaestus_build.errors import UsageError

PREFIX = "HEPHAESTUS_"
#: Names the YAML file of settings; everything in it may also be given as HEPHAESTUS_<NAME>.
FILE_VARIABLE = PREFIX + "SETTINGS"

Era5Choice = Literal["auto", "cds", "arco"]
PairChoice = Literal["auto", "annotated", "all"]


class Settings(BaseSettings):
    """All settings of the builder; a field's description is its documentation."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    data_dir: Path = Field(Path("data"), description="Folder that holds cubes/, the cache and the results.")
    cache_dir: Path | None = Field(
        None, description="Folder of downloads; may be thrown away at any time. Default: <data_dir>/cache."
    )
    cache_limit_gb: float = Field(50.0, gt=0, description="Size that the cache is pruned to, in gigabytes.")
    licsar_url: str = Field(
        "https://gws-access.jasmin.ac.uk/public/nceo_geohazards/LiCSAR_products/",
        description="Base address of the LiCSAR portal, the folder that holds the track folders.",
    )
    licsar_mirror_url: str | None = Field(
        None,
        description="Base address of a mirror in the layout of the CEDA archive (interferograms directly "
        "under the frame). Default: CEDA's own when licsar_url is the real portal, none otherwise.",
    )
    annotations: str | None = Field(
        None,
        description="Annotation archive (.tar.gz, folder or file), or the address of one. "
        "Default: none; `hephaestus annotations fetch` puts the published one where it is found.",
    )
    era5: Era5Choice = Field(
        "auto",
        description="Source of ERA5: cds, arco, or auto (the CDS where a key is configured, else ARCO).",
    )
    arco_url: str = Field(
        "https://storage.googleapis.com/gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3",
        description="Address of the ARCO-ERA5 Zarr store.",
    )
    connections: int = Field(
        4, ge=1, le=16, description="Downloads at once from one archive; fewer after 429 and 5xx."
    )
    retries: int = Field(4, ge=0, le=20, description="Further tries of a request that failed in passing.")
    timeout: float = Field(
        60.0, gt=0, description="Seconds without a byte after which a request counts as stalled."
    )
    era5_deadline: float = Field(
        6 * 3600.0, gt=0, description="Seconds to wait for a queued ERA5 request before it counts as owed."
    )
    workers: int = Field(0, ge=0, description="Interferograms worked on at once; 0 = one per core.")
    pairs: PairChoice = Field(
        "auto",
        description="Pairs to build: annotated, all, or auto (annotated where the frame has annotations).",
    )
    accept: Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(read_accept)] = Field(
        {},
        description="Absences that are known and no news: by frame, or '*' for every frame, what the archive "
        f"does not have. There are {', '.join(PRODUCTS)}, a pair such as 20160909_20160921, and the date of "
        "ERA5. Such a product is still asked for by every build, and fetched once it is there; until then it "
        "is listed as accepted, not as owed. A product that there is and that could not be fetched or read "
        "stays owed. HEPHAESTUS_ACCEPT takes the same as JSON.",
        examples=[EXAMPLE],
    )

    @property
    def cubes_dir(self) -> Path:
        """Folder of the published cubes."""
        return self.data_dir / "cubes"

    @property
    def downloads_dir(self) -> Path:
        """Folder of the download cache."""
        return self.cache_dir if self.cache_dir is not None else self.data_dir / "cache"

    @property
    def threads(self) -> int:
        """How many interferograms are worked on at once."""
        affinity = getattr(os, "sched_getaffinity", None)  # the cores we may use, where the system tells
        return self.workers or (len(affinity(0)) if affinity else os.cpu_count() or 2)

    @classmethod
    def settings_customise_sources(  # noqa: D102 (pydantic's hook)
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        if path := os.environ.get(FILE_VARIABLE):
            sources.append(YamlConfigSettingsSource(settings_cls, yaml_file=Path(path)))
        return tuple(sources)


def load_settings(**overrides: Any) -> Settings:
    """Return the settings from `overrides`, the environment and the YAML file, in that order.

    Raises
    ------
    UsageError
        If a key is unknown or a value is not of its type; the message names it and the nearest key.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {FILE_VARIABLE}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `hephaestus settings` lists them all"
            raise UsageError(f"the environment sets {name}, which is no setting{hint}")
    if (path := os.environ.get(FILE_VARIABLE)) and not Path(path).is_file():
        raise UsageError(
            f"{FILE_VARIABLE} names {path}, which is no file; write one with `hephaestus settings`"
        )
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        hint = f" (did you mean {near[0]}?)" if near and name not in Settings.model_fields else ""
        raise UsageError(
            f"setting {name}: {first['msg'].lower()}{hint}; `hephaestus settings` lists them all"
        ) from None


def settings_template() -> str:
    """Return a YAML file with every setting at its default, commented with its description."""
    import textwrap

    import yaml

    lines = [f"# Settings of hephaestus-build. Use: export {FILE_VARIABLE}=<this file>"]
    for name, field in Settings.model_fields.items():
        lines += ["", *(f"# {line}" for line in textwrap.wrap(field.description or "", 96))]
        default = field.get_default()
        value = (
            yaml.safe_dump(str(default) if isinstance(default, Path) else default)
            .removesuffix("...\n")
            .strip()
        )
        lines += [f"# Example: {name}: {example}" for example in field.examples or ()]
        lines.append(f"# {name}: {value}")
    return "\n".join(lines) + "\n"
