"""Thin Prefect flows over :mod:`hephaestus_build.pipeline.stages`."""

import sys

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.machine.start import prepare_environment

# before Prefect and NumPy are imported, which read the environment then
prepare_environment()

try:
    check_extra("flows", "a flow")
except HephaestusError as error:
    if sys.argv[0] == "-m":  # Python is looking for the module that a command names: one line, no traceback
        sys.exit(str(error))
    raise ModuleNotFoundError(str(error), name="prefect") from None
