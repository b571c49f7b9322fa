"""Thin Prefect flows over :mod:`hephaestus_build.pipeline.stages`."""

import os
import sys
import warnings

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.extras import check_extra
from hephaestus_build.core.machine.home import find_home
from hephaestus_build.core.machine.start import prepare_environment
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.download.network_environment import describe_ca_fault

# before Prefect and NumPy are imported, which read the environment then
prepare_environment()
os.environ.setdefault(
    "DO_NOT_TRACK", "1"
)  # else Prefect's client announces on a terminal that it collects data

#: Whether Python is looking for the module that a command names: trouble is one line then, no traceback.
_IS_COMMAND = sys.argv[0] == "-m"

try:
    check_extra("flows", "a flow")
except HephaestusError as error:
    if _IS_COMMAND:
        sys.exit(str(error))
    raise ModuleNotFoundError(str(error), name="prefect") from None

if find_home() is None and (prefect_home := os.environ.get("PREFECT_HOME")):
    os.environ["HOME"] = prefect_home  # Prefect asks for a home even where it does not use it
elif find_home() is None and _IS_COMMAND:
    sys.exit(
        "hephaestus: Prefect keeps its database in the home folder, and this user has none (neither HOME nor "
        "the list of users names one): set PREFECT_HOME to a folder"
    )

# read by Prefect's HTTP client as it is imported
if _IS_COMMAND and (ca_fault := describe_ca_fault(["SSL_CERT_FILE"])):
    sys.exit(f"hephaestus: {ca_fault}")

if _IS_COMMAND:
    # commands that need its home say so themselves
    warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
    try:
        from prefect.settings import get_current_settings

        get_current_settings()
    except Exception as error:
        why = sanitize_text(" ".join(str(error).partition(" For further")[0].split()), 300)
        sys.exit(
            f"hephaestus: Prefect's settings cannot be read ({why}): correct the variables PREFECT_*, or "
            f"profiles.toml in Prefect's home"
        )
