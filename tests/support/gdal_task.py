"""Program that reads and writes rasters in a separate process and prints the results (see test_gdal.py)."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.export.geotiff import encode_cog, read_export_key
from hephaestus_build.export.geotiff_layers import KEY_TAG, GeotiffLayer
from hephaestus_build.simulation.world.geotiff_writer import write_raster
from hephaestus_build.sources.licsar.geotiff import CorruptRaster, read_phase


def main(folder: Path, out: Path) -> None:
    """Read a PixelIsPoint raster and a damaged one; write a COG with overviews and a simulated raster."""
    raster = read_phase(folder / "point.tif")
    try:
        refused = repr(read_phase(folder / "damaged.tif"))
    except CorruptRaster as error:
        refused = str(error)
    grid = Grid(600, 16, 10.0, 40.0, 0.001, 0.001)
    image = np.arange(grid.size, dtype="f4").reshape(grid.shape) / 4000
    image[:, :9] = np.nan
    out.write_bytes(
        encode_cog(
            image, grid, GeotiffLayer("dem.tif", cube_schema().variables["dem"], (), {KEY_TAG: "made"})
        )
    )
    found: dict[str, object] = {
        "values": hashlib.md5(raster.values.tobytes()).hexdigest(),
        "grid": repr(raster.grid),
        "notes": raster.notes,
        "refused": refused,
        "cog": hashlib.md5(out.read_bytes()).hexdigest(),
        "key": read_export_key(out),
    }
    write_raster(out, image, grid, point=True)
    print(json.dumps(found | {"simulated": hashlib.md5(out.read_bytes()).hexdigest()}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
