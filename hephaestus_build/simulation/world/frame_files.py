"""Product files of a simulated frame: their names, their content, and their irregularities."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from hephaestus_build.core.era5_grid import nearest_era5_hour
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.simulation.world.annotator import preview_projection
from hephaestus_build.simulation.world.frame_catalog import CROP_PIXELS, SHIFT_PIXELS
from hephaestus_build.simulation.world.frame_scene import FrameScene, SimulatedInterferogram
from hephaestus_build.simulation.world.geotiff_writer import crop_edges, shift_grid, write_raster
from hephaestus_build.simulation.world.previews import write_grey_preview, write_phase_preview

#: Index in the frame's list of pairs of the pair that each oddity affects.
_ODD_POSITIONS = {
    "cropped": 4, "shifted": 11, "no-files": 16, "unannotated": 20, "no-preview": 7,
    "empty-phase": 2, "blank-phase": 14, "other-crs": 23, "pair-turn": 5,
}  # fmt: skip
#: Rasters whose secondary is before this date are tagged as GAMMA writes them, later ones as GDAL does.
_GDAL_SINCE = date(2019, 10, 1)
_PAIR_SUFFIXES = ("geo.cc.png", "geo.diff.png", "geo.cc.tif", "geo.diff_pha.tif", "geo.unw.tif")
_EPOCH_SUFFIXES = ("geo.mli.png", "geo.mli.tif", "icams.sltd.geo.tif", "sltd.geo.tif")


class FrameFiles:
    """Product files of one frame.

    Parameters
    ----------
    scene : FrameScene
        The frame.
    oddities : iterable of str
        Enabled keys of ``ODDITIES`` and ``FAULTY_ODDITIES``.
    """

    def __init__(self, scene: FrameScene, oddities: Iterable[str]) -> None:
        self.scene = scene
        self.oddities = frozenset(oddities)

    def pair_with_oddity(self, oddity: str) -> Pair | None:
        """Return the pair that `oddity` affects; None if it is disabled or does not affect a single pair."""
        if oddity not in self.oddities:
            return None
        if oddity == "unlisted":
            days = self.scene.epochs
            pairs = (Pair(days[0], day) for day in days[1:])
            return next((pair for pair in pairs if pair not in self.scene.pairs), None)
        position = _ODD_POSITIONS.get(oddity)
        return None if position is None else self.scene.pairs[position % len(self.scene.pairs)]

    # names of files

    def metadata_files(self) -> tuple[str, ...]:
        """Return the names of the files in ``metadata/``."""
        name = self.scene.frame.id
        rasters = ["E", "N", "U", "hgt", "landmask"]
        if "no-dem" in self.oddities:
            rasters.remove("hgt")
        texts = ["metadata.txt", f"{name}-poly.txt"]
        if "sparse-metadata" not in self.oddities:
            texts.append("baselines")
        return tuple(sorted([*(f"{name}.geo.{raster}.tif" for raster in rasters), *texts]))

    def pair_files(self, pair: Pair) -> tuple[str, ...]:
        """Return the names of a pair's files, previews first."""
        if pair == self.pair_with_oddity("no-files"):
            return ()
        without = {"geo.diff.png"} if pair == self.pair_with_oddity("no-preview") else set()
        return tuple(f"{pair}.{suffix}" for suffix in _PAIR_SUFFIXES if suffix not in without)

    def epoch_files(self, day: date) -> tuple[str, ...]:
        """Return the names of an epoch's files, previews first."""
        return tuple(f"{day:%Y%m%d}.{suffix}" for suffix in _EPOCH_SUFFIXES)

    def modified_time(self, day: date, revision: int = 0) -> datetime:
        """Return the modification time of the files of `day`: some days after it, later for each revision."""
        hour = timedelta(hours=3 + sum(self.scene.frame.id.encode()) % 17, minutes=day.day)
        written = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return written + hour + timedelta(days=6 + 200 * revision)

    # content of files

    def served_content(self, pair: Pair, revision: int = 0) -> tuple[SimulatedInterferogram, Grid]:
        """Return the content of a pair's rasters and their grid.

        The grid differs from the frame's for the pairs with the oddities ``cropped`` and ``shifted``.
        """
        return self._apply_oddity(pair, self.scene.simulate_interferogram(pair, revision))

    def _apply_oddity(self, pair: Pair, seen: SimulatedInterferogram) -> tuple[SimulatedInterferogram, Grid]:
        grid = self.scene.grid
        if pair == self.pair_with_oddity("cropped"):
            parts = [
                crop_edges(values, grid, CROP_PIXELS)[0]
                for values in (seen.phase, seen.coherence, seen.unwrapped)
            ]
            return SimulatedInterferogram(*parts), crop_edges(seen.phase, grid, CROP_PIXELS)[1]
        if pair == self.pair_with_oddity("shifted"):
            return seen, shift_grid(grid, SHIFT_PIXELS)
        if pair == self.pair_with_oddity("pair-turn"):
            return seen, _in_other_turn(grid)
        if pair == self.pair_with_oddity("blank-phase"):
            return replace(seen, phase=np.zeros_like(seen.phase)), grid
        return seen, grid

    # writing

    def write_pair(
        self, pair: Pair, folder: Path, revision: int = 0, names: Iterable[str] | None = None
    ) -> None:
        """Write the files of `pair` into `folder`.

        Parameters
        ----------
        pair : Pair
            The interferogram.
        folder : Path
            Existing folder.
        revision : int
            Number of times the pair was reprocessed.
        names : iterable of str, optional
            Names of the files to write, from :meth:`pair_files`; all of them by default.
        """
        scene = self.scene
        whole = scene.simulate_interferogram(pair, revision)
        seen, grid = self._apply_oddity(pair, whole)
        old = "mixed-tags" in self.oddities and pair.secondary < _GDAL_SINCE
        crs = "EPSG:32626" if pair == self.pair_with_oddity("other-crs") else "EPSG:4326"
        projection = preview_projection(scene, pair)

        def raster(values: np.ndarray, strip: int = 1) -> Callable[[Path], None]:
            return lambda path: write_raster(
                path, values, grid, strip=strip, point=old, nodata=0 if old else None, crs=crs
            )

        makers: dict[str, Callable[[Path], None]] = {
            # the preview of a cropped raster still shows the full frame
            "geo.cc.png": lambda path: write_grey_preview(path, whole.coherence, scene.grid, projection),
            "geo.diff.png": lambda path: write_phase_preview(
                path, whole.phase, scene.height, scene.grid, projection
            ),
            "geo.cc.tif": raster(seen.coherence, strip=4),
            "geo.diff_pha.tif": raster(seen.phase),
            "geo.unw.tif": raster(seen.unwrapped),
        }
        if pair == self.pair_with_oddity("empty-phase"):
            makers["geo.diff_pha.tif"] = lambda path: path.touch()
        chosen = self.pair_files(pair) if names is None else tuple(names)
        for name in chosen:
            makers[name.removeprefix(f"{pair}.")](folder / name)
        self._set_mtimes(folder, chosen, self.modified_time(pair.secondary, revision))

    def write_epoch(self, day: date, folder: Path, names: Iterable[str] | None = None) -> None:
        """Write the files of an epoch into `folder`: those in `names`, or all of them.

        They are the multilooked intensity with its preview, and the slant delays: GACOS at the time of the
        acquisition, ICAMS at the hour of ERA5 nearest to it.
        """
        chosen = self.epoch_files(day) if names is None else tuple(names)
        if any(".mli." in name for name in chosen):
            self._write_intensity(day, folder)
        hour = nearest_era5_hour(day, self.scene.spec.center_time)
        for name, time, nodata in (
            (f"{day:%Y%m%d}.sltd.geo.tif", None, np.nan),
            (f"{day:%Y%m%d}.icams.sltd.geo.tif", hour, None),
        ):
            if name in chosen:
                delay = self.scene.slant_delay(day, time)
                write_raster(folder / name, delay, self.scene.grid, point=True, nodata=nodata)
        self._set_mtimes(folder, chosen, self.modified_time(day))

    def _write_intensity(self, day: date, folder: Path) -> None:
        scene = self.scene
        rise = np.gradient(scene.height, axis=1) * np.sign(-scene.line_of_sight[0])
        brightness = np.where(scene.valid_mask, 0.25 * np.exp(-rise / (np.abs(rise).mean() * 4 + 1e-3)), 0)
        brightness = (brightness * (1 + 0.3 * scene.vegetation)).astype(np.float32)
        plain, picture = (f"{day:%Y%m%d}.geo.mli.{suffix}" for suffix in ("tif", "png"))
        write_raster(folder / plain, brightness, scene.grid, point=True, nodata=0)
        grey = np.clip(brightness * 400, 0, 255).astype(np.uint8)
        write_grey_preview(folder / picture, grey, scene.grid, "linear")

    def write_metadata(self, folder: Path, names: Iterable[str] | None = None) -> None:
        """Write the files of ``metadata/`` into `folder`: those in `names`, or all of them."""
        scene, name = self.scene, self.scene.frame.id
        old = "mixed-tags" in self.oddities

        def sight(axis: int) -> Callable[[Path], None]:
            return lambda path: write_raster(
                path,
                np.where(scene.valid_mask, scene.line_of_sight[axis], np.float32(0)),
                scene.grid,
                point=old,
            )

        def hgt(path: Path) -> None:
            grid = _in_other_turn(scene.grid) if "dem-turn" in self.oddities else scene.grid
            write_raster(path, scene.height, grid, point=old, nodata=0 if old else None)

        def landmask(path: Path) -> None:
            land = np.where(scene.height > 0, np.float32(1), np.float32(np.nan))
            write_raster(path, land, scene.grid, nodata=np.nan, tiled=True)

        makers: dict[str, Callable[[Path], object]] = {
            **{f"{name}.geo.{letter}.tif": sight(axis) for axis, letter in enumerate("ENU")},
            f"{name}.geo.hgt.tif": Path.touch if "empty-dem" in self.oddities else hgt,
            f"{name}.geo.landmask.tif": landmask,
            "metadata.txt": lambda path: path.write_text(self._metadata_text()),
            f"{name}-poly.txt": lambda path: path.write_text(self._corners_text()),
            "baselines": lambda path: path.write_text(self._baselines_text()),
        }
        chosen = self.metadata_files() if names is None else tuple(names)
        for file in chosen:
            makers[file](folder / file)
        self._set_mtimes(folder, chosen, self.modified_time(scene.epochs[0]))

    def _metadata_text(self) -> str:
        scene, place = self.scene, self.scene.spec
        near, far = place.incidence
        lines = {
            "master": f"{scene.epochs[0]:%Y%m%d}",
            "center_time": str(place.center_time),
            "heading": f"{place.heading:.6f}",
            "avg_incidence_angle": f"{(near + far) / 2:.4f}",
            "azimuth_resolution": "14.034330",
            "range_resolution": "2.329562",
            "centre_range_m": "901242.4791",
            "avg_height": f"{float(scene.height[scene.height > 0].mean()):.6f}",
            "applied_DEM": "simulated",
            "simulated": "true",
        }
        if "sparse-metadata" in self.oddities:
            for key in ("heading", "avg_height", "applied_DEM"):
                del lines[key]
        return "".join(f"{key}={value}\n" for key, value in lines.items())

    def _baselines_text(self) -> str:
        first = self.scene.epochs[0]
        lines = "".join(
            f"{first:%Y%m%d} {day:%Y%m%d} {self.scene.perpendicular_baseline(day):.4f} {(day - first).days}\n"
            for day in self.scene.epochs
        )
        # the comment comes last, since readers take the number of columns from the first line
        return f"{lines}# simulated\n"

    def _corners_text(self) -> str:
        """Return the corners of the footprint: not closed, slightly inside the raster, as on the portal."""
        west, south, east, north = self.scene.grid.bounds
        slant = 0.05 * (east - west)
        left, right = (slant, 0.0) if self.scene.frame.direction == "D" else (0.0, slant)
        inset = 0.01 * (east - west)
        corners = [
            (west + left + inset, north - inset),
            (east - right - inset, north - 3 * inset),
            (east - left - inset, south + inset),
            (west + right + inset, south + 3 * inset),
        ]
        return "".join(f"{longitude:.14f} {latitude:.14f}\n" for longitude, latitude in corners)

    @staticmethod
    def _set_mtimes(folder: Path, names: Iterable[str], moment: datetime) -> None:
        for name in names:
            os.utime(folder / name, (moment.timestamp(), moment.timestamp()))


def _in_other_turn(grid: Grid) -> Grid:
    """Return a grid with longitudes of 0 to 360 in place of -180 to 180, or the reverse."""
    return replace(grid, west=grid.west + (360 if grid.west < 0 else -360))
