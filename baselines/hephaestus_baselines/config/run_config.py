"""Configuration of a run (the recipe), with types and descriptions, and presets (grids of runs).

Neither torch nor the cubes are needed to read, list or name runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hephaestus_baselines.config.channels import AtmosphereMode, BlindInput, InputChannels, PhaseEncoding
from hephaestus_baselines.config.tasks import TASK_SPECS, Task, TaskSpec
from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.machine.user_paths import local_path
from hephaestus_build.core.parsing import decode_utf8, describe_invalid_value, parse_yaml, read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.dataset.running_moments import MaskingConvention
from hephaestus_build.dataset.tiling import DEFAULT_TILING, TILE_SIZE, TilingMode

#: How a model is made: trained, or a frozen encoder under a probe or a memory bank.
Method = Literal["trained", "linear-probe", "knn-probe", "memory-bank", "memory-bank-knn"]
LossName = Literal["cross-entropy", "focal"]
LearningRateSchedule = Literal["fixed", "cosine"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed", "auto"]
Augmentation = Literal["blur", "crop", "flip", "rotation", "phase-offset", "time-reversal"]
RotationMode = Literal["full", "published", "metric"]
#: Augmentations of the paper, in the order in which they are applied.
AUGMENTATIONS: tuple[Augmentation, ...] = ("crop", "flip", "rotation", "blur")
#: All augmentations; those beyond the paper's are applied last, and only where they are named.
ALL_AUGMENTATIONS: tuple[Augmentation, ...] = (*AUGMENTATIONS, "phase-offset", "time-reversal")
_ModelT = TypeVar("_ModelT", bound=BaseModel)
#: Maximum pixels of all windows of a batch: 5 GB with the atmosphere, without the model's own memory.
_BATCH_PIXELS = 1 << 27
#: Maximum samples of a step.
_MAX_BATCH = 4096
#: Maximum runs and seeds of a preset, and bytes of its file; the paper's grid has 96 runs.
_MAX_RUNS, _MAX_PRESET_BYTES = 10_000, 1 << 20


def _validate_folder_name(text: str) -> str:
    """Return a text unchanged if it is safe as the name of a folder.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not text.isprintable() or not 0 < len(text) <= 100 or text.startswith(".") or set(text) & set("/\\:"):
        raise ValueError("it must have 1 to 100 printable characters without / \\ : and not begin with a dot")
    return text


FolderName = Annotated[str, AfterValidator(_validate_folder_name)]
_PRESETS_FOLDER = Path(__file__).parent / "presets"
#: Version of the defaults and of how runs are trained and scored; runs of different versions have different
#: keys.
PROTOCOL_VERSION = 2
#: Fields that do not affect results: runs that differ only in these have the same key.
_FIELDS_NOT_IN_KEY = {"workers", "weights", "control", "chosen_batch"}
#: Fields that differ between the runs of a preset, and what lists their values.
_AXES = {"seed": "seeds", "series": "series", "atmosphere": "atmosphere", "method": "methods of its task"}
#: Fields of each trained control.
CONTROL_FIELDS: Mapping[str, dict[str, Any]] = {
    "terrain only": {"blind": ("insar_difference", "insar_coherence")}
}


def _takes_numbers(kind: Any) -> bool:
    """Return whether a type is one of numbers, or has one among its alternatives."""
    return kind in (int, float) or any(map(_takes_numbers, get_args(kind)))


class Recipe(BaseModel):
    """Configuration of one run: its data, its model, and how it is trained.

    The defaults are the paper's settings where it states them, on label-free tiles of the strict split.
    Defaults never change within a version of the protocol, and the default of a new field keeps the earlier
    behaviour, so keys are stable.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: Task = Field(
        description="classification of windows, or segmentation of their pixels; activity or intensity of "
        "windows that show deformation"
    )
    model: str = Field(
        description="name of the architecture (hephaestus_baselines.config.architecture_catalog.MODELS)",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$",  # part of a folder name
    )
    method: Method = Field(
        "trained",
        description="trained: the whole network; otherwise `model` is any network of timm, frozen: under a "
        "linear or a nearest-neighbour probe, or with a memory bank of quiet interferograms",
    )
    series: bool = Field(False, description="three interferograms of one primary date instead of one")
    atmosphere: AtmosphereMode = Field(
        "none", description="ERA5 as channels: of both dates, or secondary minus primary"
    )
    phase: PhaseEncoding = Field("angle", description="how wrapped phase is encoded for the model")
    nodata: bool = Field(False, description="add a channel that is 1 where there is data")
    looks: int = Field(
        1, ge=1, le=8, description="average blocks of looks x looks pixels for the model; needs phase sin-cos"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of all random numbers")

    split: FolderName = Field("strict-temporal", description="name of the split (`hephaestus splits list`)")
    size: int = Field(
        TILE_SIZE, ge=32, le=8192, multiple_of=32, description="rows and columns of a window, pixels"
    )
    training: Literal["random", "label-centred"] = Field(
        "random", description="placement of training windows: at random, or centred on the label as published"
    )
    tiling: TilingMode = Field(DEFAULT_TILING, description="placement of validation and test windows")
    positives: Literal["any", "volcanic"] = Field(
        "any",
        description="deformation that counts: any, or volcanic, which leaves out interferograms that show an "
        "earthquake alone",
    )
    uncertain: Literal["by-task", "exclude", "keep"] = Field(
        "by-task",
        description="frames whose outlines are uncertain (the two of Reunion): by-task leaves them out of "
        "segmentation, whose labels are pixels, and keeps them in classification",
    )
    statistics: MaskingConvention = Field(
        "valid", description="moments for normalisation: of valid pixels, or the published convention"
    )

    epochs: int = Field(90, ge=1, le=100_000, description="passes over the balanced training samples")
    batch_size: Annotated[int, Field(ge=1, le=_MAX_BATCH)] | Literal["auto"] = Field(
        8,
        description="samples per step; auto: chosen by the device's memory when the run begins, and kept",
    )
    chosen_batch: int = Field(
        0,
        ge=0,
        le=_MAX_BATCH,
        description="what batch_size auto chose; the program writes it, and it does not change the run's key",
    )
    learning_rate: float = Field(1e-5, gt=0, le=1e3, description="largest learning rate of AdamW")
    weight_decay: float = Field(1e-2, ge=0, le=1e3, description="weight decay of AdamW")
    schedule: LearningRateSchedule = Field(
        "fixed", description="schedule; cosine: warm-up in the first twentieth of all steps, then to 0"
    )
    negatives: Literal["matched", "random"] = Field(
        "matched",
        description="windows of training samples without deformation: matched takes the window of a positive "
        "one in a quiet interferogram of the same frame; random lies anywhere",
    )
    control: Literal["", "terrain only"] = Field(
        "", description="name of a trained control; empty for a model that is compared with controls"
    )
    blind: tuple[BlindInput, ...] = Field(
        (), description="control run: inputs that the model does not see (their channels are 0)"
    )
    loss: LossName = Field("cross-entropy", description="loss function")
    focal_gamma: float = Field(2.0, ge=0, le=100, description="exponent; reduces the weight of easy cases")
    focal_alpha: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="weight of no deformation in the focal loss; that of deformation is 1 - alpha",
    )
    focal_detached: bool = Field(
        False, description="whether the weight of a case has no gradient, as in the published code"
    )
    choice: Literal["score", "loss"] = Field(
        "score", description="what chooses the epoch on validation: its score, or its loss as published"
    )
    balance: bool = Field(
        True,
        description="all positives and as many negatives, drawn again in each epoch; of activity and "
        "intensity, each class equally often",
    )
    augment: bool | tuple[Augmentation, ...] = Field(
        True,
        description="random augmentations of training samples: the paper's (true), none, or those named; "
        "phase-offset and time-reversal are not the paper's",
    )
    rotation: RotationMode = Field(
        "full",
        description="augmentation: full turns by any angle and leaves corners without data; metric does so "
        "in metres, as pixels are not square; published turns by up to 90 degrees and reflects the image "
        "into the corners",
    )
    weights: str = Field(
        "imagenet",
        max_length=4096,
        description="imagenet, none (from scratch), simulated (trained on simulated interferograms first), "
        "a folder with the ImageNet weights, or a .safetensors file",
    )
    pretraining_windows: int = Field(
        4096,
        ge=2,
        le=10_000_000,
        description="simulated windows that a run with weights simulated is trained on first",
    )
    validation_windows: int = Field(
        2000,
        ge=2,
        le=1_000_000,
        description="maximum number of validation windows, evenly spread, for selecting the best epoch",
    )
    confidence_weights: bool = Field(False, description="weight the loss by the annotator's confidence")
    shuffle_labels: bool = Field(
        False, description="control run: train on randomly permuted labels; it must score at chance"
    )

    calibrated: bool = Field(
        False,
        description="fit probabilities to validation: slope and offset of the logits, in the last layer",
    )
    precision: Precision = Field(
        "32-true",
        description="floating-point precision; mixed for speed on a GPU; auto: bf16-mixed on a GPU that has "
        "it, else 32-true",
    )
    devices: int = Field(
        1, ge=1, le=64, description="devices that train together; each takes batch_size samples"
    )
    workers: Annotated[int, Field(ge=0, le=128)] | Literal["auto"] = Field(
        "auto",
        description="reader processes; auto: by the machine's cores; results do not depend on their number",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_flags_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads `yes` as true, which would count as 1
        if isinstance(value, bool) and _takes_numbers(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("it takes a number, not true or false")
        return value

    @field_validator("weights")
    @classmethod
    def _check_weights_path(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("it has unprintable characters")
        return value

    @field_validator("augment")
    @classmethod
    def _normalize_augmentations(
        cls, value: bool | tuple[Augmentation, ...]
    ) -> bool | tuple[Augmentation, ...]:
        # normalise equivalent values, or equal runs would have different keys
        if isinstance(value, bool):
            return value
        names = tuple(name for name in ALL_AUGMENTATIONS if name in value)
        return names if names and names != AUGMENTATIONS else bool(names)

    @model_validator(mode="after")
    def _check_window_sizes(self) -> Self:
        if self.looks > 1 and self.phase != "sin-cos":
            raise ValueError("wrapped phase cannot be averaged as an angle: looks above 1 need phase sin-cos")
        if self.size % (32 * self.looks):
            raise ValueError(
                f"with {self.looks} looks a window must be a multiple of {32 * self.looks} pixels"
            )
        if self.samples_per_step == 1 and (
            self.model.startswith("deeplabv3") or self.size == 32 * self.looks
        ):  # one value a channel has no variance
            raise ValueError(
                f"{self.model} with windows of {self.size} pixels normalises one value a channel and sample, "
                "so batch_size must be at least 2"
            )
        if self.spec.tells_kind:
            self._check_kind_settings()
        if self.method in ("linear-probe", "knn-probe") and self.task != "classification":
            raise ValueError(f"a {self.method} classifies windows; its task is classification")
        if self.samples_per_step > self.largest_batch:
            raise ValueError(
                f"a batch of {self.samples_per_step} windows of {self.size} pixels is too large: at most "
                f"{self.largest_batch} of that size are possible"
            )
        if self.chosen_batch and self.batch_size != "auto":
            raise ValueError("chosen_batch is for batch_size auto alone")
        return self

    def _check_kind_settings(self) -> None:
        """Raise ValueError if a setting is for tasks that tell deformation from none."""
        if self.method != "trained":
            raise ValueError(
                f"`hephaestus benchmark probe` tells the {self.task} by heads on frozen networks"
            )
        if self.weights == "simulated":
            raise ValueError(f"simulated interferograms have no labels of {self.task}; choose other weights")
        if self.calibrated:
            raise ValueError(f"probabilities of {self.task} are not calibrated: calibrated must be false")
        if self.focal_alpha is not None:
            raise ValueError(f"focal_alpha weighs deformation against none, not classes of {self.task}")

    @property
    def spec(self) -> TaskSpec:
        """Labels, classes and scores of the task."""
        return TASK_SPECS[self.task]

    @property
    def samples_per_step(self) -> int:
        """Samples per step; 2 as long as ``batch_size`` is ``auto`` and none was chosen."""
        return self.chosen_batch or 2 if self.batch_size == "auto" else self.batch_size

    @property
    def largest_batch(self) -> int:
        """Largest possible number of samples per step of this size."""
        return min(_MAX_BATCH, _BATCH_PIXELS // (self.size**2 * self.steps))

    @property
    def steps(self) -> int:
        """Number of interferograms in a sample."""
        return 3 if self.series else 1

    @property
    def inputs(self) -> InputChannels:
        """The channels of each step."""
        return InputChannels(self.atmosphere, self.phase, self.nodata, self.blind)

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """The enabled augmentations, in order."""
        if isinstance(self.augment, bool):
            return AUGMENTATIONS if self.augment else ()
        return self.augment

    @property
    def model_title(self) -> str:
        """Name of the model in results: that of the architecture, with the method if it is not trained."""
        return self.model if self.method == "trained" else f"{self.model}, {self.method.replace('-', ' ')}"

    @property
    def folder_name(self) -> str:
        """Name of the run's folder: its key, which ends with the name of the control if it is one."""
        return f"{self.key}-control-{self.control.replace(' ', '-')}" if self.control else self.key

    @property
    def uses_uncertain(self) -> bool:
        """Whether frames whose outlines are uncertain are used."""
        return self.uncertain == "keep" or (self.uncertain == "by-task" and not self.spec.per_pixel)

    @property
    def is_pretrained(self) -> bool:
        """Whether training starts from ImageNet weights."""
        return self.weights not in ("none", "simulated")

    @property
    def portable_weights(self) -> str:
        """Source of the initial weights without a path, which belongs to one machine.

        ``none``, ``simulated``, ``imagenet`` (from the hub or a folder), or the name of a file of one's own.
        """
        if self.weights.endswith(".safetensors"):
            return Path(self.weights).name
        return "imagenet" if self.is_pretrained else self.weights

    @property
    def key(self) -> str:
        """A readable name and a hash, identical for equal runs on all machines and in all versions."""
        content = self.model_dump(mode="json", exclude_defaults=True, exclude=_FIELDS_NOT_IN_KEY)
        content["protocol"] = PROTOCOL_VERSION
        if self.portable_weights != "imagenet":
            content["weights"] = self.portable_weights
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        steps = "series" if self.series else "single"
        name = self.model if self.method == "trained" else f"{self.model}-{self.method}"
        named = f"{self.task}-{name}" if self.spec.tells_kind else name
        return f"{named}-{steps}-atmosphere-{self.atmosphere}-seed-{self.seed}-{digest[:8]}"

    def write(self, path: Path) -> None:
        """Write all fields as YAML, atomically.

        Raises
        ------
        HephaestusError
            If the file cannot be written.
        """
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        with translate_os_errors(f"run {self.key}: writing {path}", setting="--results"):
            write_atomic(path, text.encode())


class TaskGrid(BaseModel):
    """The models of one task in a preset; each may set fields of its runs.

    Attributes
    ----------
    fields : dict
        Fields of :class:`Recipe` for all of them.
    methods : tuple of str
        How each of them is made, one run for each.
    models : dict
        Maps each model's name to its own fields. A model with ``weights: none`` is trained from scratch,
        whatever weights are asked for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: dict[str, Any] = Field(default_factory=dict)
    methods: tuple[Method, ...] = Field(("trained",), min_length=1)
    models: dict[str, dict[str, Any]] = Field(min_length=1)


def fold_family(splits: Sequence[str]) -> str:
    """Return the name that the splits of several folds share, such as ``volcano-group``; empty if none.

    Examples
    --------
    >>> fold_family(["volcano-group-rifts", "volcano-group-others"])
    'volcano-group'
    """
    families = {name.rpartition("-")[0] for name in splits}
    return families.pop() if len(families) == 1 and len(set(splits)) > 1 else ""


class Preset(BaseModel):
    """A named grid of runs.

    Attributes
    ----------
    name, description : str
    legacy : bool
        Whether it uses the published data set-up, so that the paper's scores can be shown beside.
    fields : dict
        Fields of :class:`Recipe` that all runs share.
    tasks : dict
        Maps each task to its models.
    series_fields : dict
        Fields of runs on series only; there are fewer series than interferograms.
    series, atmosphere, seeds : tuple
        Values of the other axes of the grid.
    splits : tuple of str
        Splits of which each run is made, such as the folds of ``volcano-group``, whose tests are pooled in
        the tables; by default the one in the fields.
    controls : tuple of str
        Trained controls: for each task, its first model on single interferograms with the first seed and
        without atmosphere, changed by :data:`CONTROL_FIELDS`. They run first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FolderName
    description: str = Field(max_length=10_000)
    legacy: bool = False
    fields: dict[str, Any] = Field(default_factory=dict)
    tasks: dict[Task, TaskGrid] = Field(min_length=1)
    series_fields: dict[str, Any] = Field(default_factory=dict)
    series: tuple[bool, ...] = Field((False, True), min_length=1)
    atmosphere: tuple[AtmosphereMode, ...] = Field(("none", "both"), min_length=1)
    seeds: tuple[StrictInt, ...] = Field((0, 1, 2), min_length=1, max_length=_MAX_RUNS)
    splits: tuple[FolderName, ...] = ()
    controls: tuple[Literal["terrain only"], ...] = ()

    def select_tasks(self, names: Sequence[str]) -> Preset:
        """Return the preset with some of its tasks alone.

        Raises
        ------
        UsageError
            If it has no such task.
        """
        if unknown := set(names) - set(self.tasks):
            raise UsageError(
                f"preset {self.name}: it has no runs of {sanitize_text(min(unknown), 60)}; its tasks are "
                f"{', '.join(self.tasks)}"
            )
        return self.model_copy(
            update={"tasks": {task: grid for task, grid in self.tasks.items() if task in names}}
        )

    def make_recipes(self, /, **changes: Any) -> tuple[Recipe, ...]:
        """Return all runs, those of the first seed first, so that an interrupted grid has a complete table.

        Parameters
        ----------
        **changes
            Fields of :class:`Recipe` that override the preset's.

        Raises
        ------
        UsageError
            If a field is unknown or has an invalid value.
        """
        if unknown := changes.keys() - Recipe.model_fields.keys():
            raise UsageError(_unknown_field(f"preset {self.name}", min(unknown), Recipe))
        self._check_field_names()
        models = sum(len(grid.models) * len(grid.methods) for grid in self.tasks.values())
        count = len(self.seeds) * len(self.series) * len(self.atmosphere) * models * max(1, len(self.splits))
        if count > _MAX_RUNS:
            raise UsageError(f"preset {self.name}: it has {count} runs, more than {_MAX_RUNS}; split it")
        if len(set(self.splits)) > 1 and not fold_family(self.splits):
            raise UsageError(
                f"preset {self.name}: its splits are not folds of one split, and could stand in no table "
                "together; write a preset for each"
            )
        kinds = [task for task in self.tasks if TASK_SPECS[task].tells_kind]
        if kinds and len(set(self.splits)) > 1:
            raise UsageError(
                f"preset {self.name}: folds are not scored together for {kinds[0]}; give it one split"
            )
        if not self.splits or "split" in changes:
            return _drop_repeated(self._iter_recipes(changes))
        folds = [tuple(self._iter_recipes({**changes, "split": name})) for name in self.splits]
        # all folds of a run follow each other, so that an interrupted grid has whole ones
        return _drop_repeated(recipe for runs in zip(*folds, strict=True) for recipe in runs)

    def _check_field_names(self) -> None:
        """Raise UsageError if fields of several runs name none, or one that the axes of the grid decide."""
        places = {"fields": self.fields, "series_fields": self.series_fields}
        places |= {f"tasks.{task}.fields": grid.fields for task, grid in self.tasks.items()}
        for place, fields in places.items():
            for name in fields:
                if name in _AXES:
                    raise UsageError(
                        f"preset {self.name}: {place} cannot have {name}; list its values in {_AXES[name]}"
                    )
                if name not in Recipe.model_fields:
                    raise UsageError(_unknown_field(f"preset {self.name}, {place}", name, Recipe))

    def _iter_recipes(self, changes: dict[str, Any]) -> Iterator[Recipe]:
        for control, (task, grid) in product(self.controls, self.tasks.items()):
            model, own = next(iter(grid.models.items()))
            own = {"method": grid.methods[0], **self.fields, **grid.fields, **own, **changes}
            own |= CONTROL_FIELDS[control]
            axes = {"series": False, "atmosphere": "none", "seed": self.seeds[0], "control": control}
            named = {"task": task, "model": model, **own, **axes}
            yield _validate_model(Recipe, named, f"preset {self.name}, control {control}")
        for seed, (task, grid) in product(self.seeds, self.tasks.items()):
            for (model, own), method, series, atmosphere in product(
                grid.models.items(), grid.methods, self.series, self.atmosphere
            ):
                axes = {"method": method, "series": series, "atmosphere": atmosphere, "seed": seed}
                form = self.series_fields if series else {}
                chosen = {**self.fields, **grid.fields, **form, **axes, **own, **changes}
                if own.get("weights") == "none":
                    chosen["weights"] = "none"
                with_names = {"task": task, "model": model, **chosen}
                yield _validate_model(Recipe, with_names, f"preset {self.name}, model {model}")


def preset_names() -> list[str]:
    """Return the names of the built-in presets."""
    return sorted(path.stem for path in _PRESETS_FOLDER.glob("*.yaml"))


def read_preset(name: str | Path) -> Preset:
    """Return the preset called `name`, or the one in the YAML file `name`.

    Raises
    ------
    UsageError
        If there is none, or it has unknown fields.
    """
    path = (
        Path(local_path("preset", str(name)))
        if str(name).endswith((".yaml", ".yml"))
        else _PRESETS_FOLDER / f"{name}.yaml"
    )
    known = ", ".join(preset_names())
    content = _read_yaml(path, f"there is no preset {name}; known are {known}, or give a YAML file")
    return _validate_model(Preset, {"name": path.stem, **content}, f"preset {name}")


def read_recipe(path: Path) -> Recipe:
    """Read a file that :meth:`Recipe.write` wrote.

    Raises
    ------
    UsageError
        If it is missing or has unknown fields.
    """
    return _validate_model(Recipe, _read_yaml(path, f"there is no recipe at {path}"), f"recipe {path}")


def _read_yaml(path: Path, absent: str) -> dict[str, Any]:
    try:
        content = parse_yaml(decode_utf8(read_bounded(path, _MAX_PRESET_BYTES)))
    except OSError as error:
        raise UsageError(absent) from error
    except ValueError as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} has no fields; see `{_PRESETS_FOLDER.name}/small.yaml` for an example")
    return content


def _validate_model(kind: type[_ModelT], content: dict[str, Any], what: str) -> _ModelT:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        errors = error.errors()
        first = next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UsageError(_unknown_field(what, place, kind)) from error
        alike = [first]
        if kind is Recipe and first["loc"]:  # what is wrong with it as each of the types that it may have
            place = str(first["loc"][0])
            alike = [item for item in errors if item["loc"][0] == place]
        words = " or ".join(dict.fromkeys(map(describe_invalid_value, alike))).replace(
            " or it must be ", " or "
        )
        where, given = f"{sanitize_text(place, 100)}: ", f" (is {sanitize_text(repr(first['input']), 80)})"
        raise UsageError(f"{what}: {where}{words}{given}" if place else f"{what}: {words}") from error


def _unknown_field(what: str, name: object, kind: type[BaseModel]) -> str:
    return (
        f"{what}: there is no field {sanitize_text(name, 100)}; the fields are {', '.join(kind.model_fields)}"
    )


def _drop_repeated(recipes: Iterable[Recipe]) -> tuple[Recipe, ...]:
    """Return each run once; a repeated one would count as a further seed in tables."""
    return tuple({recipe.folder_name: recipe for recipe in recipes}.values())
