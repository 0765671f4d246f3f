"""Asking a model: who is behind a function, in evaluation mode, given a copy, once.

What every room needs that asks somebody's own network: attacks, certificates, training.
"""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial, wraps
from inspect import signature
from types import CodeType, FunctionType, MethodType
from typing import Any, ParamSpec, TypeVar

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
FOREIGN = ("builtins", "crlib", "functools", "numpy", "torch", "typing")
LOW = (torch.float16, torch.bfloat16)


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
            todo += reversed(_parts(one))
    modules = [m for m in found.values() if isinstance(m, nn.Module)]
    return modules, [g for g in found.values() if isinstance(g, torch.Generator)]


def fingerprint(models: Iterable[Any], tensors: Iterable[Tensor], words: str) -> str:
    """Return what changes with any weight behind the models, any tensor or word."""
    digest, every = hashlib.sha256(), list(tensors)
    for module in (m for model in models for m in reached(model)[0]):
        every += [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    for v in every:
        digest.update(f"{v.dtype}{tuple(v.shape)}".encode())
        flat = v.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    digest.update(words.encode())
    return digest.hexdigest()[:16]


def _parts(one: Any) -> list[Any]:
    """Return what an object may ask a network through."""
    if isinstance(one, dict):
        return list(one.values())
    if isinstance(one, list | tuple | set):
        # A long list holds data.
        return list(one) if len(one) <= 1000 else []
    if isinstance(one, partial):
        return [one.func, *one.args, *one.keywords.values()]
    if isinstance(one, MethodType):
        return [one.__self__, one.__func__]
    if isinstance(one, FunctionType):
        cells = [cell.cell_contents for cell in one.__closure__ or () if _full(cell)]
        defaults = [one.__defaults__, one.__kwdefaults__]
        return [*cells, *defaults, *vars(one).values(), *_globals(one)]
    if isinstance(one, nn.Module) or _own(type(one)):
        kinds = [k for k in type(one).__mro__ if _own(k)]
        kept = list(getattr(one, "__dict__", {}).values())
        kept += [getattr(one, s, None) for k in kinds for s in _slots(k)]
        lines = [v for k in kinds for v in vars(k).values()]
        children = list(one.children()) if isinstance(one, nn.Module) else []
        return [*children, *kept, *lines]
    return []


def _own(kind: Any) -> bool:
    """Say whether a class or function is the user's."""
    return str(kind.__module__).split(".")[0] not in FOREIGN


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else list(slots)


def _full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


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
        if z.ndim == 1 or (z.ndim == 2 and z.shape[1] == 1):
            # Label 1 where the logit is positive, as the sigmoid has it.
            z = torch.stack([-z.flatten() / 2, z.flatten() / 2], 1)
        return z.flatten(1) if z.ndim > 2 and z[:1].numel() == z.shape[1] else z


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
    """Make a function leave ``torch.inference_mode()``, where nothing has a gradient.

    Tensors that were made inside are copied: autograd keeps no others.
    """

    def plain(v: Any) -> Any:
        return v.clone() if isinstance(v, Tensor) and v.is_inference() else v

    @wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled():
            own = [plain(v) for v in args], {k: plain(v) for k, v in options.items()}
            return function(*own[0], **own[1])
        with torch.inference_mode(False):
            return run(*args, **options)

    return run
