"""The stages of a build, in order: what the command, the flow and a repair go through alike."""

from __future__ import annotations

from hephaestus_build.pipeline.atmosphere_stage import AtmosphereStage
from hephaestus_build.pipeline.grid_stage import GridStage
from hephaestus_build.pipeline.interferogram_stage import InterferogramStage
from hephaestus_build.pipeline.mask_stage import MaskStage
from hephaestus_build.pipeline.optional_stage import OptionalStage
from hephaestus_build.pipeline.overview_stage import OverviewStage
from hephaestus_build.pipeline.stage import Stage

GRID = GridStage()
INTERFEROGRAMS = InterferogramStage()
MASKS = MaskStage()
ATMOSPHERE = AtmosphereStage()
OPTIONAL = OptionalStage()
OVERVIEWS = OverviewStage()

#: Each needs what those before it have finished.
STAGES: tuple[Stage, ...] = (GRID, INTERFEROGRAMS, MASKS, ATMOSPHERE, OPTIONAL, OVERVIEWS)
