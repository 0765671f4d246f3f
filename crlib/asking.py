"""Asking a model: who is behind a function, in evaluation mode, given a copy, once.

What every room needs that asks somebody's own network: attacks, certificates, training.
"""

import copy
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cached_property, partial, wraps
from inspect import signature
from pathlib import PurePath
from types import CodeType, EllipsisType, FunctionType, MethodType, NoneType
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "Doubt",
    "ask",
    "copied",
    "evaluating",
    "fingerprint",
    "logits",
    "reached",
    "with_gradients",
]

P = ParamSpec("P")
R = TypeVar("R")
# Nobody's own network is in the globals of these.
FOREIGN = ("builtins", "crlib", "functools", "logging", "numpy", "torch", "typing")
LOW = (torch.float16, torch.bfloat16)
# What has nothing inside, and is written alike in every process.
PLAIN = (
    *(str, bytes, int, float, complex, slice, range, NoneType, EllipsisType, PurePath),
    *(np.generic, np.dtype, torch.dtype, torch.device),
)
# What torch.compile was given, a function or a network; beside it stand addresses.
COMPILED = ("_torchdynamo_orig_callable", "_orig_mod")


class Doubt(UserWarning):
    """A number of crlib may say less than it seems."""


def reached(model: Any) -> tuple[list[nn.Module], list[torch.Generator]]:
    """Return the modules and the generators behind a model, which may be a function.

    Looks into a bound method, a partial, a closure, the globals that a function names,
    the attributes of an object, and the lists that a module keeps.
    """
    found: dict[int, Any] = {}  # in the order in which they are met, each once
    todo = [model]
    while todo:
        one = todo.pop()
        if id(one) not in found and not isinstance(one, Tensor | str | type | None):
            found[id(one)] = one
            # A long list holds data.
            if not (isinstance(one, list | tuple | set) and len(one) > 1000):
                todo += reversed(_parts(one))
    modules = [m for m in found.values() if isinstance(m, nn.Module)]
    return modules, [g for g in found.values() if isinstance(g, torch.Generator)]


def fingerprint(models: Iterable[Any], tensors: Iterable[Tensor], words: str) -> str:
    """Return what changes with any number or line of code behind the models.

    And with any tensor or word. Layers have their settings, and functions their code
    and what they enclose, by name and value. Equal networks that were built twice, here
    or in another process, have the same; one that counts its calls has another after
    each. Classes and Python modules that are only named go by their names.
    """
    digest = hashlib.sha256()
    todo = [words, *reversed([*models, *tensors])]
    seen: dict[int, tuple[int, Any]] = {}  # kept, so that no number is given again
    while todo:
        one = todo.pop()
        if id(one) in seen:
            digest.update(f"again {seen[id(one)][0]} ".encode())
            continue
        said, parts = _said(one), _parts(one)
        # Whether equal tuples are one or two is the interpreter's affair.
        if parts and not isinstance(one, tuple | frozenset):
            seen[id(one)] = len(seen), one
        digest.update(f"{len(said)} {len(parts)} ".encode() + said)
        todo += reversed(parts)
    return digest.hexdigest()[:16]


def _said(one: Any) -> bytes:
    """Return what an object is, but for its parts: no address and no order of a set."""
    if isinstance(one, PLAIN):
        return repr(one).encode()
    if isinstance(one, torch.Generator):
        one = one.get_state()
    if isinstance(one, Tensor):
        one = one.detach().cpu()
        one = one if one.layout is torch.strided else one.to_dense()
        flat = one.contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{one.dtype}{tuple(one.shape)}".encode() + flat.tobytes()
    if isinstance(one, np.ndarray) and not one.dtype.hasobject:
        return f"{one.dtype}{one.shape}".encode() + one.tobytes()
    words = [type(one).__module__, type(one).__qualname__]
    if isinstance(one, CodeType):
        words += [one.co_code.hex(), *one.co_names]
    elif isinstance(one, nn.Module | type) or not _own(type(one)):
        # What was scripted, traced or exported shows its code.
        coded = isinstance(one, nn.Module | torch.jit.ScriptFunction)
        names = ("code",) if coded else ("__qualname__", "__name__")
        told = [getattr(one, name, "") for name in names]
        words += [text for text in told if isinstance(text, str)]
    return re.sub(r"___torch_mangle_\d+", "", "\0".join(words)).encode()


def _rank(one: Any) -> bytes:
    """Return by what a member of a set is sorted."""
    inside = one.state_dict().values() if isinstance(one, nn.Module) else ()
    return b"".join(map(_said, (one, *inside)))


def _parts(one: Any) -> list[Any]:
    """Return what an object may ask a network through, and what its answer hangs on."""
    if isinstance(one, dict):
        # Torch keeps hooks under numbers that count up.
        hooks = isinstance(one, OrderedDict)
        keys = [None if hooks and isinstance(k, int) else k for k in one]
        return [*keys, *one.values()]
    if isinstance(one, set | frozenset):
        return sorted(one, key=_rank)
    if isinstance(one, list | tuple):
        return list(one)
    if isinstance(one, partial):
        return [one.func, one.args, one.keywords]
    if isinstance(one, MethodType | staticmethod | classmethod):
        return [getattr(one, "__self__", None), one.__func__]
    if isinstance(one, property | cached_property):
        return [one.fget if isinstance(one, property) else one.func]
    if isinstance(one, CodeType):
        return list(one.co_consts)
    if isinstance(one, FunctionType):
        if COMPILED[0] in vars(one):
            return [vars(one)[COMPILED[0]]]
        cells = [cell.cell_contents for cell in one.__closure__ or () if _full(cell)]
        defaults = [one.__defaults__, one.__kwdefaults__, vars(one)]
        return [*cells, *defaults, *_globals(one), one.__code__]
    if isinstance(one, nn.Module) or (_own(type(one)) and not isinstance(one, type)):
        return _attributes(one)
    return []


def _attributes(one: Any) -> list[Any]:
    """Return what an object and its own classes keep, with the names."""
    kinds = [k for k in type(one).__mro__ if _own(k)]
    kept = dict(getattr(one, "__dict__", {}))
    kept |= {s: getattr(one, s, None) for k in kinds for s in _slots(k)}
    if isinstance(one, nn.Module):
        inside = dict(one.named_children())
        if COMPILED[1] in inside:
            return [inside]
        if isinstance(one, torch.jit.ScriptModule):
            # It keeps its tensors and numbers elsewhere, and methods in no order.
            names = sorted(one._concrete_type.get_attributes())
            kept = {k: v for k, v in kept.items() if not callable(v)} | inside
            kept |= {k: getattr(one, k) for k in names}
        kept.pop("training", None)  # the mode is not the model's
    # Of the names with two underscores only functions say what a class does.
    lines = [
        {k: v for k, v in vars(kind).items() if callable(v) or k[:2] != "__"}
        for kind in kinds
    ]
    return [kept, *lines]


def _own(kind: Any) -> bool:
    """Say whether a class or function is the user's."""
    return str(kind.__module__).split(".")[0] not in FOREIGN


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else list(slots)


def _full(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _globals(function: FunctionType) -> list[Any]:
    """Return the globals that a function names, in functions inside it too."""
    names: list[str] = []
    codes = [function.__code__] if _own(function) else []
    while codes:
        code = codes.pop()
        names += code.co_names
        codes += [part for part in code.co_consts if isinstance(part, CodeType)]
    return [function.__globals__[k] for k in names if k in function.__globals__]


def _switches_itself(module: nn.Module) -> bool:
    """Say whether a module has its own ``train(mode=True)`` or ``eval()``."""
    kind = type(module)
    if kind.train is nn.Module.train and kind.eval is nn.Module.eval:
        return False
    # A train(loader) is a loop of somebody's own.
    return [p.default for p in signature(kind.train).parameters.values()][1:] == [True]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put ``model`` into evaluation mode, its parameters fixed, for a while.

    Every module and parameter gets its own flag back, also after an error: a layer
    frozen inside a model in training stays frozen. A module with its own ``train()`` or
    ``eval()`` is told through it. The modules of a function are those that
    :func:`reached` finds behind it.

    Raises:
        ValueError: what cannot be called, or weights that were made inside
            ``torch.inference_mode()``.
    """
    if not callable(model):
        kind = type(model).__name__
        raise ValueError(f"model is a {kind}: give what maps x to logits (N, K).")
    modules, _ = reached(model)
    # Input gradients need no trace of the weights, and keeping it takes time.
    every = {id(p): p for m in modules for p in m.parameters(recurse=False)}.values()
    if any(p.is_inference() for p in every):
        raise ValueError(
            "The model was made inside torch.inference_mode(), where nothing has a"
            " gradient: make or load it outside."
        )
    weights = [p for p in every if p.requires_grad]
    flags = [module.training for module in modules]
    try:
        for module in modules:
            if module.training and _switches_itself(module):
                module.eval()
            module.training = False
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            if module.training != flag and _switches_itself(module):
                module.train(flag)
        # A module that switches itself switches what is inside it too.
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
        for weight in weights:
            weight.requires_grad_(True)


def copied(model: nn.Module) -> Any:
    """Return a deep copy of a network; activations that it keeps are copied as values.

    Raises:
        ValueError: it keeps what has no copy, such as an open file.
    """
    kept = [v for m in model.modules() for v in vars(m).values()]
    # Torch copies no tensor in the middle of a graph.
    inner = [v for v in kept if isinstance(v, Tensor) and not v.is_leaf]
    try:
        return copy.deepcopy(model, {id(v): v.detach().clone() for v in inner})
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            "The model cannot be copied, as it keeps what has no copy, such as an open"
            " file or a list of activations: remove it, or keep"
            f" v.detach(). It said: {str(error).splitlines()[0]}"
        ) from error


def ask(model: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """Return the answer of ``model`` to a copy of ``x``, in float32 at least.

    The copy is the model's: it may write into it.

    Raises:
        ValueError: the answer is no tensor, or model and ``x`` differ in precision.
    """
    try:
        answer = model(x.clone())
    except RuntimeError as error:
        signs = "dtype", "scalar type", "should be the same"
        if any(sign in str(error) for sign in signs):
            raise ValueError(
                f"The model does not take {x.dtype}: model.to(x.dtype) changes its"
                " precision, crlib.models.logits(model) the precision of what it is"
                f" given. It said: {error}"
            ) from error
        raise
    if not isinstance(answer, Tensor):
        raise ValueError(
            f"The model returned a {type(answer).__name__}, not a tensor of logits"
            " (N, K): crlib.models.logits(model) takes the logits out of a tuple, a"
            " dictionary or an object."
        )
    if answer.is_complex() or answer.dtype == torch.bool:
        raise ValueError(f"The model returned {answer.dtype}: logits are real numbers.")
    answer = answer.clone() if answer.is_inference() else answer
    return answer.to(torch.promote_types(answer.dtype, torch.float32))


class _Logits(nn.Module):
    """What :func:`logits` returns."""

    def __init__(self, model: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model, self.behind = model, reached(model)[0]

    def forward(self, x: Tensor) -> Tensor:
        weights = (p for m in self.behind for p in m.parameters(recurse=False))
        kind = next((p.dtype for p in weights if p.is_floating_point()), x.dtype)
        z = _taken_out(self.model(x.to(kind)))
        z = z.flatten(1) if z.ndim > 2 and z[:1].numel() == z.shape[1] else z
        if z.ndim == 1 or (z.ndim == 2 and z.shape[1] == 1):
            # Label 1 where the logit is positive, as the sigmoid has it.
            z = torch.stack([-z.flatten() / 2, z.flatten() / 2], 1)
        return z


def _taken_out(answer: Any) -> Tensor:
    if isinstance(answer, dict):
        answer = answer.get("logits", answer)
    elif hasattr(answer, "logits"):
        answer = answer.logits
    elif isinstance(answer, tuple | list) and len(answer):
        answer = answer[0]
    elif is_dataclass(answer) and fields(answer):
        answer = getattr(answer, fields(answer)[0].name)
    if not isinstance(answer, Tensor):
        raise ValueError(
            f"There are no logits in a {type(answer).__name__}: write a function that"
            " returns them, such as lambda x: model(x).scores."
        )
    return answer


def logits(model: Callable[[Tensor], Any]) -> nn.Module:
    r"""Wrap a model that does not return logits ``(N, K)`` into one that does.

    Takes ``.logits``, ``["logits"]``, or the first of a tuple, list or dataclass. One
    logit z a sample, ``(N,)`` or ``(N, 1)``, becomes the two :math:`(-z/2, z/2)`, whose
    cross-entropy is that of the sigmoid: label 1 where z is positive. Trailing sizes of
    one are dropped. The model is given its own precision, such as bfloat16.

    Args:
        model: any; it is not copied.

    Raises:
        ValueError: on a call, if no tensor is found.

    Example:
        >>> import torch
        >>> from crlib import models
        >>> sigmoid = torch.nn.Linear(2, 1)
        >>> models.logits(sigmoid)(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
        >>> both = models.logits(lambda x: (x, x.square()))
        >>> both(torch.tensor([[0.5, 0.25]]))
        tensor([[0.5000, 0.2500]])
    """
    return _Logits(model)


def with_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function leave ``no_grad`` and ``inference_mode``, which have no gradient.

    Tensors that were made inside the latter are copied: autograd keeps no others.
    """

    def plain(v: Any) -> Any:
        return v.clone() if isinstance(v, Tensor) and v.is_inference() else v

    @wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled():
            own = [plain(v) for v in args], {k: plain(v) for k, v in options.items()}
            with torch.enable_grad():
                return function(*own[0], **own[1])
        with torch.inference_mode(False):
            return run(*args, **options)

    return run
