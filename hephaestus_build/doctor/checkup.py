"""All checks of the doctor, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hephaestus_build.core.filesystem.manners import probe_filesystem
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.machine.limits import read_machine_limits
from hephaestus_build.core.settings import SettingOrigin, Settings
from hephaestus_build.doctor.atmosphere import check_atmosphere
from hephaestus_build.doctor.check import Check, run_checks
from hephaestus_build.doctor.configuration import check_keys, check_network, check_settings
from hephaestus_build.doctor.data_folder import check_manners, check_writers
from hephaestus_build.doctor.installation import check_installation
from hephaestus_build.doctor.machine import check_clock, check_limits, check_open_files, open_file_limit
from hephaestus_build.doctor.portal import PortalFindings, check_portal

#: Extras whose packages are checked where they are installed.
_EXTRAS = ("flows", "baselines")


def check_this_machine(settings: Settings, origins: dict[str, SettingOrigin]) -> Iterator[Check]:
    """Yield the checks that ask nobody.

    Parameters
    ----------
    settings : Settings
        The settings that take effect.
    origins : dict of str to str
        Where each comes from.
    """
    yield from run_checks(
        (
            ("packages", partial(check_installation, _EXTRAS)),
            ("data_folder", lambda: check_manners(probe_filesystem(settings.data_dir))),
            ("writers", lambda: [check_writers(settings.cubes_dir)]),
            ("cpu", lambda: check_limits(read_machine_limits())),
            ("open_files", lambda: [check_open_files(open_file_limit())]),
            ("settings", lambda: check_settings(settings, origins)),
            ("network", lambda: [check_network(settings)]),
            ("cds_key", lambda: check_keys(settings)),
            ("clock", lambda: [check_clock(datetime.now(UTC))]),
        )
    )


def check_archives(frame: Frame, settings: Settings) -> Iterator[Check]:
    """Yield the checks that ask the archives of the settings for the smallest product of each kind.

    What they answer is kept in a folder that is removed afterwards, so that every product is asked for and
    the cache is not touched.

    Parameters
    ----------
    frame : Frame
        Frame that is asked for.
    settings : Settings
        Addresses of the archives.
    """
    settings = settings.for_frame(frame)
    findings = PortalFindings()
    with TemporaryDirectory(prefix="hephaestus-doctor-") as folder:
        apart = settings.model_copy(update={"cache_dir": Path(folder)})
        yield from run_checks(
            (
                ("portal_listing", lambda: check_portal(frame, apart, findings)),
                ("era5", lambda: check_atmosphere(frame, apart, findings)),
            )
        )
