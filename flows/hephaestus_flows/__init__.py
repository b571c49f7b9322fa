"""Thin Prefect flows over :mod:`hephaestus_build.pipeline.stages`."""

import os
import sys

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.machine.environment import discard_unusable_size
from hephaestus_build.core.machine.limits import bound_library_threads

# before Prefect and NumPy are imported, which read the environment then
discard_unusable_size(os.environ)
bound_library_threads()

try:
    check_extra("flows", "a flow")
except HephaestusError as error:
    if sys.argv[0] == "-m":  # Python is looking for the module that a command names: one line, no traceback
        sys.exit(str(error))
    raise ModuleNotFoundError(str(error), name="prefect") from None
