"""Settings of the builder, read from arguments, the environment and a YAML file, and validated."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from hephaestus_build.core.accepted_absences import (
    ACCEPT_EXAMPLE,
    ACCEPTABLE_PRODUCTS,
    parse_accepted_absences,
)
from hephaestus_build.core.configuration.setting_values import (
    CENTER_TIME_EXAMPLE,
    parse_center_times,
    parse_clusters,
    parse_folders,
    parse_optional_variables,
    parse_share,
)
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.machine.environment import is_service_variable
from hephaestus_build.core.machine.limits import read_machine_limits
from hephaestus_build.core.machine.user_paths import expand_path, local_path
from hephaestus_build.core.parsing import (
    decode_utf8,
    describe_invalid_value,
    parse_json,
    parse_yaml,
    read_bounded,
)
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.registry import OPTIONAL_VARIABLES

ENV_PREFIX = "HEPHAESTUS_"
#: Variable that names the YAML file of settings; each can also be set as HEPHAESTUS_<NAME>.
SETTINGS_FILE_VARIABLE = ENV_PREFIX + "SETTINGS"

Era5Choice = Literal["auto", "cds", "arco"]
Era5Form = Literal["frame", "tile"]
#: Where the value of a setting comes from.
SettingOrigin = Literal["default", "file", "environment", "option"]
PairChoice = Literal["auto", "annotated", "all"]

#: Subfolder of the data folder, and of a separate cache folder, for simulated data.
SIMULATED_FOLDER = "simulated"


def _simulated_folder(folder: Path) -> Path:
    """Return the folder of simulated data in `folder`, which may be that folder already."""
    return folder if folder.absolute().name == SIMULATED_FOLDER else folder / SIMULATED_FOLDER


@dataclass(frozen=True)
class EmbeddedArchive:
    """A simulated archive served by this process.

    Attributes
    ----------
    licsar_url, annotations, arco_url : str
        Values of the settings of these names for requests to it.
    cds_url, cds_key : str
        Address and key of its CDS; the key is not secret.
    frames : tuple of str
        Ids of its frames.
    """

    licsar_url: str
    annotations: str
    arco_url: str
    cds_url: str
    cds_key: str
    frames: tuple[str, ...]


_FILE_BYTES = 1 << 20
_DAY = 86400.0


class _BoundedEnvSource(EnvSettingsSource):
    """Settings source of environment variables, whose JSON is parsed with limits."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        return value if NoDecode in field.metadata else parse_json(value)


class Settings(BaseSettings):
    """All settings of the builder; they are documented by the descriptions of the fields."""

    # hide_input_in_errors: an address may contain a password
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(
        Path("data"),
        description="Folder of cubes/, the cache and the results; simulated data is in its simulated/.",
    )
    cache_dir: Path | None = Field(
        None, description="Folder of downloads; may be deleted at any time. Default: <data_dir>/cache."
    )
    data_roots: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(parse_folders)] = Field(
        (),
        description="Folders, besides the data_dir set here, that may contain the data_dir and other "
        "paths given to Prefect flows; as a list, or separated as in PATH.",
    )
    clusters: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_clusters)] = Field(
        (),
        description="Addresses of Dask clusters that the parameter `cluster` of Prefect flows may name, "
        "besides local:N; in a list or with commas, such as tcp://10.0.0.7:8786.",
    )
    cache_limit_gb: float = Field(
        50.0, gt=0, le=1e9, allow_inf_nan=False, description="Maximum size of the cache, in gigabytes."
    )
    licsar_url: str = Field(
        "https://gws-access.jasmin.ac.uk/public/nceo_geohazards/LiCSAR_products/",
        description="Base address of the LiCSAR portal, the folder that holds the track folders.",
        repr=False,
    )
    licsar_mirror_url: str | None = Field(
        None,
        description="Base address of a mirror in the layout of the CEDA archive (interferograms directly "
        "under the frame). Default: CEDA's own when licsar_url is the real portal, none otherwise.",
        repr=False,
    )
    annotations: str | None = Field(
        None,
        description="Annotation archive (.tar.gz, folder or file), or the address of one. "
        "Default: the one downloaded by `hephaestus annotations fetch`, if any.",
        repr=False,
    )
    era5: Era5Choice = Field(
        "auto",
        description="Source of ERA5: cds, arco, or auto (the CDS where a key is configured, else ARCO).",
    )
    arco_url: str = Field(
        "https://storage.googleapis.com/gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3",
        description="Address of the ARCO-ERA5 Zarr store.",
        repr=False,
    )
    connections: int = Field(
        4, ge=1, le=16, description="Concurrent downloads from one archive; fewer after HTTP 429 and 5xx."
    )
    requests_per_second: float = Field(
        4.0,
        gt=0,
        le=1000,
        allow_inf_nan=False,
        description="Requests that begin in a second, to each archive, over any 10 seconds; unlimited for a "
        "server of this machine (loopback), unless it is set.",
    )
    share: Annotated[str, BeforeValidator(parse_share)] = Field(
        "1",
        description="Part of connections and requests_per_second that this machine takes, such as 1/20 on "
        "each of 20 machines without a coordinator; at least one connection is left.",
        examples=["1/20"],
    )
    retries: int = Field(4, ge=0, le=20, description="Retries of a request after a temporary failure.")
    timeout: float = Field(
        60.0,
        gt=0,
        le=_DAY,
        allow_inf_nan=False,
        description="Seconds without a byte after which a request counts as stalled.",
    )
    era5_deadline: float = Field(
        6 * 3600.0,
        gt=0,
        le=366 * _DAY,
        allow_inf_nan=False,
        description="Seconds to wait for a queued ERA5 request before its product is listed as owed.",
    )
    era5_requests: int = Field(
        4,
        ge=1,
        le=100,
        description="Requests in the queue of the CDS at once, over all builds that share the cache folder, "
        "on one machine or many; a build alone has no more than `connections` there.",
    )
    era5_area: Era5Form = Field(
        "frame",
        description="Area that the CDS is asked for: frame (the frame's own, the days that are needed), or "
        "tile (a fixed box of 15 by 20 degrees that holds the frame, whole months, once for all frames in it "
        "and all builds with one cache folder). A cube keeps the one of its first build.",
    )
    era5_fields: int = Field(
        1000,
        ge=3,
        le=100_000,
        description="Largest number of fields (variables times days times hours) of a request to the CDS, "
        "whose own limit is not published and changes; a month at one hour has 93, of a tile 558.",
    )
    workers: int = Field(
        0,
        ge=0,
        le=1024,
        description="Interferograms in parallel; 0 = one per core that this process may use, "
        "fewer where its memory is small.",
    )
    pairs: PairChoice = Field(
        "auto",
        description="Pairs to build: annotated, all, or auto (annotated where the frame has annotations).",
    )
    variables: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_optional_variables)] = Field(
        (),
        description="Optional variables that a build adds to cubes, in a list or with commas: "
        f"{', '.join(OPTIONAL_VARIABLES)}. A cube keeps those that it has; none takes them all away.",
    )
    center_time: Annotated[dict[str, str], NoDecode, BeforeValidator(parse_center_times)] = Field(
        {},
        description="Time of day of the acquisitions, UTC, by frame, in place of the one that the archive "
        "states in metadata.txt, or does not state; ERA5 is taken at the full hour nearest to it. "
        "HEPHAESTUS_CENTER_TIME takes the same as JSON.",
        examples=[CENTER_TIME_EXAMPLE],
    )
    quiet_share: float = Field(
        0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Part of the time since a frame's last new product after which `watch` looks at the "
        "frame again, at most 14 days: one that was quiet for 60 days is asked every 6 days. 0 asks every "
        "frame in every round; so does an archive on this machine (loopback) unless this is set. Frames that "
        "are named are always asked.",
    )
    overdue_days: int = Field(
        18,
        ge=0,
        le=36600,
        description="Days without a new pair after which `watch` and `status` say so: three repeat cycles of "
        "two satellites, counted from the newest date that the archive lists of a frame. 0 says nothing. Of "
        "simulated frames it is said only where this is set.",
    )
    heartbeat_url: str | None = Field(
        None,
        description="Address that `watch` asks for (GET) after each round in which no frame failed, so that "
        "a service which waits for it, such as healthchecks.io or Uptime Kuma, notices silence. It is kept "
        "secret: messages name its host alone.",
        repr=False,
    )
    metrics_file: Path | None = Field(
        None,
        description="File that `watch` replaces by metrics for Prometheus after each round, the command and "
        "the flow alike; its folder must exist.",
        examples=["/var/lib/node_exporter/hephaestus.prom"],
    )
    overview_factor: int = Field(
        8,
        ge=2,
        le=64,
        description="Pixels of the frame's grid for each pixel of the group `overview`, along either axis; "
        "another value makes the next build draw all overviews again.",
    )
    accept: Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(parse_accepted_absences)] = Field(
        {},
        description="Products known to be absent from the archive, by frame, or '*' for every frame: "
        f"{', '.join(ACCEPTABLE_PRODUCTS)}, a pair such as 20160909_20160921, or a date of ERA5. Every build "
        "still asks for such a product, and fetches it once the archive has it; until then it is listed as "
        "accepted, not as owed. A product that exists but could not be fetched or read stays owed. "
        "HEPHAESTUS_ACCEPT takes the same as JSON.",
        examples=[ACCEPT_EXAMPLE],
    )

    _simulated: bool = PrivateAttr(False)
    _real_dir: Path | None = PrivateAttr(None)
    _embedded: EmbeddedArchive | None = PrivateAttr(None)

    @field_validator("data_dir", "cache_dir", "annotations", mode="before")
    @classmethod
    def _as_written_by_users(cls, value: Any, info: Any) -> Any:
        if info.field_name == "annotations" and "://" in str(value):  # may hold a password
            return value
        return local_path(info.field_name, value)

    @property
    def is_simulated(self) -> bool:
        """Whether these settings are for simulated data, as made by :meth:`for_simulated`."""
        return self._simulated

    def for_simulated(self) -> Self:
        """Return a copy for simulated data, with the data folder ``<data_dir>/simulated``.

        A folder of that name that the settings name is the one of simulated data itself. The copy uses the
        embedded archive, if any (see :meth:`with_embedded_archive`) and no portal is set.
        """
        embedded = self._embedded if not self.is_portal_set else None
        if self._simulated and embedded is None:
            return self
        changes: dict[str, Any] = {}
        if not self._simulated:
            changes["data_dir"] = _simulated_folder(self.data_dir)
            if self.cache_dir is not None:
                changes["cache_dir"] = _simulated_folder(self.cache_dir)
        made = self.model_copy(update=changes)
        made._simulated, made._real_dir = True, self.real_data_dir
        return made.using_archive(embedded) if embedded is not None else made

    def for_standalone_simulated(self, folder: Path) -> Self:
        """Return a copy for simulated cubes in a separate data folder, without any real data."""
        made = self.model_copy(update={"data_dir": folder, "cache_dir": folder / "cache"})
        made._simulated, made._real_dir = True, None
        return made

    @property
    def real_data_dir(self) -> Path | None:
        """Data folder of real data; None where simulated data has none beside it or has the folder itself."""
        if self._simulated:
            return self._real_dir
        return None if _simulated_folder(self.data_dir) == self.data_dir else self.data_dir

    def using_archive(self, embedded: EmbeddedArchive) -> Self:
        """Return a copy that uses the embedded archive for all requests, even if a portal is set."""
        changes = {name: getattr(embedded, name) for name in ("licsar_url", "annotations", "arco_url")}
        made = self.model_copy(update={**changes, "licsar_mirror_url": None})
        made._embedded = embedded
        return made

    def for_frame(self, frame: Frame) -> Self:
        """Return the settings for a frame: those for simulated data if the frame is simulated."""
        return self.for_simulated() if frame.is_simulated or self._simulated else self

    def with_embedded_archive(self, embedded: EmbeddedArchive) -> Self:
        """Return a copy that uses the embedded archive for simulated data, unless a portal is set."""
        made = self.model_copy()
        made._embedded = embedded
        return made

    @property
    def embedded_archive(self) -> EmbeddedArchive | None:
        """The embedded archive, if these settings use it."""
        known = self._embedded
        return known if known is not None and self.licsar_url == known.licsar_url else None

    @property
    def is_portal_set(self) -> bool:
        """Whether a portal is set explicitly."""
        return "licsar_url" in self.model_fields_set

    @property
    def is_archive_embedded(self) -> bool:
        """Whether simulated data comes from the archive that each command serves itself."""
        return self._simulated and (self.embedded_archive is not None or not self.is_portal_set)

    def check_frame_available(self, frame: Frame) -> None:
        """Raise an error if the configured archive cannot have a frame.

        Raises
        ------
        HephaestusError
            If `frame` is simulated and only the real portal is configured, or the embedded archive lacks it.
        """
        if self._simulated and not self.is_portal_set:
            raise HephaestusError(
                f"{frame}: it is simulated, and no archive that has it is set; `hephaestus build {frame}` "
                f"serves one itself, or set HEPHAESTUS_LICSAR_URL to one"
            )
        if self.embedded_archive is not None and frame.id not in self.embedded_archive.frames:
            raise HephaestusError(
                f"{frame}: the embedded archive has no such frame, it has "
                f"{', '.join(self.embedded_archive.frames)}; "
                f"check the id, or set HEPHAESTUS_LICSAR_URL to an archive that has it"
            )

    @field_validator("heartbeat_url")
    @classmethod
    def _check_heartbeat_url(cls, value: str | None) -> str | None:
        if value is not None:
            from hephaestus_build.core.web_address import HttpUrl  # requests takes a while to load

            HttpUrl.parse(value)
        return value

    @field_validator("data_dir", "cache_dir", "data_roots", "metrics_file")
    @classmethod
    def _no_nul(cls, value: Any) -> Any:
        if any("\0" in str(path) for path in (value if isinstance(value, tuple) else (value,))):
            raise ValueError("a path cannot contain a null character")
        return value

    @property
    def cubes_dir(self) -> Path:
        """Folder of the published cubes."""
        return self.data_dir / "cubes"

    @property
    def downloads_dir(self) -> Path:
        """Folder of the download cache."""
        return self.cache_dir if self.cache_dir is not None else self.data_dir / "cache"

    @property
    def connections_allowed(self) -> int:
        """Concurrent requests to one archive: `connections`, or the share of them, at least one."""
        return max(1, int(self.connections * Fraction(self.share)))

    def request_rate(self, *, is_loopback: bool) -> float | None:
        """Return the requests per second to an archive, on this machine or not; None if not limited."""
        if is_loopback and "requests_per_second" not in self.model_fields_set:
            return None
        return float(self.requests_per_second * Fraction(self.share))

    @property
    def worker_count(self) -> int:
        """Number of interferograms processed in parallel."""
        return self.workers or read_machine_limits().image_workers

    @classmethod
    def settings_customise_sources(  # noqa: D102 (pydantic's hook)
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [init_settings, _BoundedEnvSource(settings_cls)]
        if path := os.environ.get(SETTINGS_FILE_VARIABLE):
            sources.append(InitSettingsSource(settings_cls, read_settings_file(path)))
        return tuple(sources)


def read_settings_file(path: str) -> dict[str, Any]:
    """Read a YAML file of settings."""
    shown = sanitize_text(path, 200)
    path = expand_path(path, SETTINGS_FILE_VARIABLE)
    if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises for names that are too long)
        raise UsageError(
            f"{SETTINGS_FILE_VARIABLE} is not a file ({shown}); write one with `hephaestus settings`"
        )
    try:
        content = parse_yaml(decode_utf8(read_bounded(Path(path), _FILE_BYTES)))
    except OSError as error:
        raise UsageError(f"the settings file {shown} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(
            f"the settings file {shown}: {error}; write one with `hephaestus settings`"
        ) from None
    if content is None:  # all lines are comments
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UsageError(
            f"the settings file {shown} has no lines of `name: value`; write one with `hephaestus settings`"
        )
    return content


def load_settings(**overrides: Any) -> Settings:
    """Return the settings from `overrides`, the environment and the YAML file, in that order.

    Raises
    ------
    UsageError
        If a key is unknown or a value is invalid; the message names it and the nearest key.
    """
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | {SETTINGS_FILE_VARIABLE}
    for name in sorted(os.environ):
        if (
            name.startswith(ENV_PREFIX)
            and name not in known
            and not is_service_variable(name, os.environ[name], ENV_PREFIX)
        ):
            stems = [setting.removeprefix(ENV_PREFIX) for setting in known]  # what all share is no likeness
            near = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), stems, n=1)
            hint = (
                f"; did you mean {ENV_PREFIX}{near[0]}?" if near else "; `hephaestus settings` lists them all"
            )
            raise UsageError(f"the environment sets {name}, which is not a setting{hint}")
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        hint = f" (did you mean {near[0]}?)" if near and name not in Settings.model_fields else ""
        raise UsageError(
            f"setting {name}: {describe_invalid_value(first)}{hint}; `hephaestus settings` lists them all"
        ) from None
    except SettingsError as error:  # an environment variable that should contain JSON
        why = str(error.__cause__ or "it cannot be read")
        raise UsageError(f"the environment: {error}: {why}; `hephaestus settings` lists them all") from None
