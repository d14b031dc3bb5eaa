"""Variables of MATLAB files of version 5, as older datasets come in; those of version 7.3 are HDF5."""

from pathlib import Path
from typing import Any

from depthkit.checks import optional_import
from depthkit.convert.records.files import read_bytes
from depthkit.errors import LabelError


def read_mat(file: Path, name: str) -> Any:
    """Read a variable of a MATLAB file.

    Args:
        file: the file.
        name: of the variable.

    Raises:
        DepthKitError: SciPy is not installed, or the file is not there.
        LabelError: it is no such file, or has no such variable.
    """
    scipy_io = optional_import("scipy.io", "convert")
    if not file.is_file():
        read_bytes(file)
    try:
        content = scipy_io.loadmat(file, variable_names=[name])
    except (ValueError, TypeError, IndexError, OSError, NotImplementedError, scipy_io.matlab.MatReadError) as error:
        raise LabelError(f"{file}: expected a MATLAB file of version 5; it does not read ({error}). Get it again.") from error
    if name not in content:
        raise LabelError(f"{file}: expected a variable {name}; there is none. Check the layout.")
    return content[name]
