"""A network and inputs from files, for the command line; nothing is unpickled."""

import importlib
import importlib.util
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from crlib import checks, data

__all__ = ["inputs", "network"]

# What reading a file raises that ends too early.
CUT = (EOFError, zipfile.BadZipFile)


def network(maker: str, weights: str | Path | None = None) -> nn.Module:
    """Return the network that a function makes, with weights from a file.

    Args:
        maker: ``"package.module:function"`` or ``"file.py:function"``; the function
            takes no arguments and returns a module.
        weights: a state dictionary, ``.safetensors`` or what torch.save wrote; its
            code is not run.

    Raises:
        ValueError: no such function, what is no module, or weights that do not fit.
    """
    where, _, name = maker.rpartition(":")
    if not where or not name:
        raise ValueError(f"{maker!r}: write module:function, or file.py:function.")
    try:
        function = getattr(_module(where), name)
    except (ImportError, AttributeError, OSError) as error:
        raise ValueError(f"{maker!r} cannot be had: {error}") from error
    made = function()
    if not isinstance(made, nn.Module):
        raise ValueError(f"{maker!r} made a {type(made).__name__}, not a module.")
    if weights is not None:
        try:
            made.load_state_dict(_weights(Path(weights)))
        except RuntimeError as error:
            raise ValueError(f"{weights} does not fit {maker!r}: {error}") from error
    return made.eval()


def inputs(
    source: str | Path | DataLoader[Any], *, grey: bool = False, model: Any = None
) -> tuple[Tensor, Tensor]:
    """Return inputs ``(N, ...)`` in [0, 1] and labels ``(N,)``.

    Args:
        source: a folder ``<class>/*.png`` (labels in alphabetical order), an ``.npz``
            with arrays ``x`` and ``y``, a ``.pt`` with a dictionary of them or a pair,
            or a DataLoader of pairs. Integer images of 8 bits are divided by 255.
        grey: read a folder's images in grey.
        model: whose device the inputs of a DataLoader are moved to.

    Raises:
        ValueError: none of these, without the two, or labels that are no whole
            numbers.
        DataError: a folder without two classes of images of one size and of 8 bits.
    """
    if isinstance(source, DataLoader):
        return _pair(*checks.joined(source, model))
    path = Path(source)
    if path.is_dir():
        return data.class_folders(path, mode="L" if grey else "RGB")
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    found: Any = None
    if path.suffix == ".npz":
        found = _arrays(path)
    elif path.suffix in (".pt", ".pth"):
        found = _read(path)
    if isinstance(found, list | tuple) and len(found) == 2:
        found = dict(zip("xy", found, strict=True))
    if not isinstance(found, dict) or not {"x", "y"} <= set(found):
        held = f" It holds {', '.join(map(str, found))}." if _named(found) else ""
        raise ValueError(
            f"{path}: give a folder <class>/*.png, an .npz with arrays x and y, or a"
            f" .pt with a dictionary of x and y.{held}"
        )
    return _pair(found["x"], found["y"])


def _pair(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Return inputs in [0, 1], and labels as integers."""
    checks.tensor(x, "x")
    checks.tensor(y, "y")
    whole = y.long()
    if (y.double() != whole).any():
        raise ValueError("y holds what is no whole number: give labels 0, 1, 2, ...")
    return _scaled(x), whole


def _named(found: Any) -> bool:
    return isinstance(found, dict) and bool(found)


def _arrays(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {k: torch.as_tensor(arrays[k]) for k in arrays.files}
    except CUT as error:
        raise ValueError(f"{path} is empty or cut off: save it anew.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} holds something else than arrays of numbers. Labels that are names"
            " become numbers by y = np.unique(names, return_inverse=True)[1]."
        ) from error


def _scaled(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _module(where: str) -> Any:
    if not where.endswith(".py"):
        # As Python does for a script: what lies in the folder at hand can be imported.
        if "" not in sys.path:
            sys.path.insert(0, "")
        return importlib.import_module(where)
    # A name of its own: a file torch.py must not stand in for torch.
    name = f"_crlib_{Path(where).stem}"
    spec = importlib.util.spec_from_file_location(name, where)
    if spec is None or spec.loader is None:
        raise ImportError(f"{where} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Who defines a data class asks for its module by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ImportError as error:
            raise ValueError(
                f"{path} needs the package safetensors: pip install safetensors."
            ) from error
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
    found = _read(path)
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, no state dictionary.")
    return found


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except CUT as error:
        raise ValueError(f"{path} is empty or cut off: save it anew.") from error
    # What is no such file at all can raise an error of any kind in its reader.
    except (pickle.UnpicklingError, OSError, RuntimeError, LookupError) as error:
        raise ValueError(
            f"{path} cannot be read as plain tensors. If you trust it, save it anew:\n"
            f"  net = torch.load({str(path)!r}, weights_only=False)\n"
            "  torch.save(net.state_dict(), 'weights.pt')"
        ) from error
