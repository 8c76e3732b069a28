"""Parameter groups of a model: which weights decay, how fast each layer learns, and what is said of single ones."""

from __future__ import annotations

import difflib
import fnmatch
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from onepass.optim.layers import layers_of
from onepass.optim.names import nearest
from onepass.optim.table import table

Pattern = str | re.Pattern[str]

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_NORM_CLASS = re.compile(r"norm(act)?\d*d?$", re.IGNORECASE)
_NORM_NAME = re.compile(r"(^|_)(layer_?norm|batch_?norm|rms_?norm|norm|ln|bn)(_|\d|$)", re.IGNORECASE)
_BIAS_NAME = re.compile(r"(^|_)bias$")
_EXAMPLES = 3


class ParamGroups(list[dict[str, Any]]):
    """Parameter groups, for any optimizer of torch's kind; printed, a table of what is where as it was made."""

    report: str = ""

    def __repr__(self) -> str:
        return self.report

    __str__ = __repr__


@dataclass
class _Weight:
    """A parameter with all the names it has; one that is tied has several."""

    tensor: nn.Parameter
    names: list[str] = field(default_factory=list)
    owners: list[nn.Module] = field(default_factory=list)


def param_groups(
    model: nn.Module,
    *,
    weight_decay: Any = None,
    lr: Any = None,
    layer_decay: float | None = None,
    layers: Sequence[Pattern] = (),
    no_decay: Pattern | type[nn.Module] | Sequence[Pattern | type[nn.Module]] = (),
    overrides: Mapping[Pattern, Mapping[str, Any]] | None = None,
    named: bool = False,
) -> ParamGroups:
    """The parameters of a model in groups, for any optimizer of onepass or torch.

    **What does not decay** (``weight_decay=0.0``): parameters of no or one dimension; those called ``bias`` or
    ``..._bias``; those of norms, which are torch's norm modules, modules whose class's name ends as in ``RMSNorm`` or
    ``LayerNorm2d``, and what is not torch's own module and is called ``norm1``, ``ln_f``, ``bn``, ...; the names that
    the model, or a module in it, returns from ``no_weight_decay()``, as timm's do; and what ``no_decay`` matches.
    Embeddings decay unless one of these says otherwise.

    **Tied weights** appear once, under their first name; they do not decay if that is so under any of their names.

    **Frozen parameters** (``requires_grad=False``) are kept, and counted in the table: optimizers pass over what has no
    gradient, and one that is unfrozen later is then trained, instead of silently left out.

    **Layers**, for ``layer_decay``, are numbered from input to output, and layer i of 0 to n learns at
    ``lr * layer_decay ** (n - i)``. With ``layers`` they are what its patterns match. Otherwise they are found: a
    *stack* is an ``nn.ModuleList`` or ``nn.Sequential`` of at least two children with parameters that are all of one
    class; the children of every outermost stack, in the order of ``model.modules()``, are layers 1, 2, ... What is
    registered before the first of them (embeddings, a stem, the model's own parameters) is layer 0; what comes after
    the last (a final norm, the head) is one layer more; what lies between two belongs to the one before. Tied weights
    belong to the first of their names.

    Args:
        model: a module; its parameters are taken in the order of ``named_parameters()``.
        weight_decay: what the others decay by: a number >= 0, or what the optimizer takes besides (a form of
            `onepass.decay`, a schedule). None leaves it to the optimizer.
        lr: the base learning rate, a number >= 0 or a schedule of `onepass.schedules`; None leaves it to the optimizer.
        layer_decay: in (0, 1]; needs ``lr``.
        layers: a pattern for each layer, from input to output, where they are not found; the first that matches counts.
        no_decay: names, as patterns, and classes of modules, such as ``nn.Embedding``, meaning their own parameters.
        overrides: for a pattern, hyperparameters of what it matches; they come before all else.
        named: hold ``(name, tensor)`` pairs, from which optimizers make ``param_names``.

    A pattern is a string, a glob over the whole name (``"*.attn.*"``), or a compiled regular expression, searched for
    in it. A pattern that matches nothing warns, and names what is nearest.

    Returns:
        A list of dicts, each with a ``name``; printed, it is a table.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: there are no parameters or some have no shape yet; ``layer_decay`` is out of range, lacks ``lr``, or
            no stack is found; two overrides, or one and ``no_decay``, contradict each other on a parameter.

    Example:
        >>> import torch, onepass
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2))
        >>> groups = onepass.param_groups(model, weight_decay=0.1, overrides={"2.*": {"lr": 1e-4}})
        >>> print(groups)
        group         tensors  parameters  hyperparameters              for example
        decay               1          32  weight_decay=0.1             0.weight
        no_decay            3          24  weight_decay=0.0             0.bias, 1.weight, 1.bias
        decay 2.*           1          16  weight_decay=0.1, lr=0.0001  2.weight
        no_decay 2.*        1           2  weight_decay=0.0, lr=0.0001  2.bias
        total               6          74
        >>> opt = onepass.AdamW(groups, lr=1e-3)

    References:
        Layer-wise decay: Clark et al., ELECTRA, arXiv:2003.10555; Bao et al., BEiT, arXiv:2106.08254.
    """
    weights = _weights(model)
    names = [name for weight in weights for name in weight.names]
    alone = isinstance(no_decay, (str, re.Pattern, type))
    patterns = [(f"no_decay={_text(p)}", p, {"weight_decay": 0.0}) for p in ((no_decay,) if alone else no_decay)]
    patterns += [(_text(pattern), pattern, dict(given)) for pattern, given in (overrides or {}).items()]
    for label, pattern, given in patterns:
        _check_pattern(label, pattern, given, weights, names)
    depths, last = _depths(model, weights, layers, layer_decay, lr)
    scales = {name: (layer_decay or 1) ** (last - depth) for name, depth in depths.items()}
    exempt = _declared(model)

    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    members: dict[tuple[Any, ...], list[_Weight]] = {}
    for weight in weights:
        decays = not (exempt.intersection(weight.names) or _is_exempt(weight))
        values: dict[str, Any] = {}
        if weight_decay is not None or not decays:
            values["weight_decay"] = weight_decay if decays else 0.0
        if lr is not None:
            values["lr"] = lr * scales[weight.names[0]] if scales else lr
        said, by = _said(weight, patterns)
        values.update(said)
        zero = isinstance(values.get("weight_decay"), (int, float)) and values["weight_decay"] == 0
        layer = (f"layer_{depths[weight.names[0]]}",) if depths else ()
        key = (*layer, "no_decay" if zero else "decay", *(label for label in by if not label.startswith("no_decay=")))
        groups.setdefault(key, {"params": [], "name": " ".join(key), **values})
        groups[key]["params"].append((weight.names[0], weight.tensor) if named else weight.tensor)
        members.setdefault(key, []).append(weight)
    result = ParamGroups(groups.values())
    result.report = _report(groups, members)
    return result


def _weights(model: nn.Module) -> list[_Weight]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"param_groups takes a model, a torch.nn.Module, not {type(model).__name__}")
    found: dict[nn.Parameter, _Weight] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for own, p in module.named_parameters(prefix=path, recurse=False, remove_duplicate=False):
            if isinstance(p, nn.parameter.UninitializedParameter):
                raise ValueError(f"param_groups: {own} has no shape yet: run a batch through the model first")
            weight = found.setdefault(p, _Weight(p))
            weight.names.append(own)
            weight.owners.append(module)
    if not found:
        raise ValueError(f"param_groups: {type(model).__name__} has no parameters")
    return list(found.values())


# What does not decay


def _is_exempt(weight: _Weight) -> bool:
    if weight.tensor.ndim <= 1:
        return True
    return any(map(_belongs_to_bias_or_norm, weight.names, weight.owners))


def _belongs_to_bias_or_norm(name: str, owner: nn.Module) -> bool:
    module, _, own = name.rpartition(".")
    if _BIAS_NAME.search(own) or isinstance(owner, _NORMS) or _NORM_CLASS.search(type(owner).__name__):
        return True
    called = (own, module.rpartition(".")[2])
    return not type(owner).__module__.startswith("torch.nn.") and any(map(_NORM_NAME.search, called))


def _declared(model: nn.Module) -> set[str]:
    """The names that ``no_weight_decay()`` of the model and of the modules in it return."""
    names: set[str] = set()
    for path, module in model.named_modules():
        declare: Any = getattr(module, "no_weight_decay", None)
        if callable(declare):
            declared: Any = declare()
            names.update(f"{path}.{name}" if path else name for name in declared)
    return names


# Patterns


def _text(pattern: Any) -> str:
    if isinstance(pattern, type):
        return pattern.__name__
    return f"/{pattern.pattern}/" if isinstance(pattern, re.Pattern) else str(pattern)


def _matches(pattern: Any, weight: _Weight) -> bool:
    if isinstance(pattern, type):
        return any(isinstance(owner, pattern) for owner in weight.owners)
    if isinstance(pattern, re.Pattern):
        return any(map(pattern.search, weight.names))
    return any(fnmatch.fnmatchcase(name, pattern) for name in weight.names)


def _check_pattern(label: str, pattern: Any, given: dict[str, Any], weights: list[_Weight], names: list[str]) -> None:
    if not isinstance(pattern, (str, re.Pattern, type)):
        raise TypeError(f"param_groups: a pattern is a string or a compiled regular expression, not {pattern!r}")
    for key in ("params", "name", "param_names"):
        if key in given:
            raise ValueError(f"param_groups: {label!r} overrides {key!r}, which is no hyperparameter")
    if not any(_matches(pattern, weight) for weight in weights):
        if isinstance(pattern, type):
            hint = nearest(pattern.__name__, {type(owner).__name__ for weight in weights for owner in weight.owners})
        else:
            text = re.sub(r"[*?\\^$]", "", _text(pattern))
            hint = f"the nearest names are {', '.join(difflib.get_close_matches(text, names, _EXAMPLES, cutoff=0.0))}"
        warnings.warn(f"param_groups: {label!r} matches no parameter; {hint}", stacklevel=3)


def _said(weight: _Weight, patterns: list[tuple[str, Any, dict[str, Any]]]) -> tuple[dict[str, Any], list[str]]:
    """What the patterns say of a parameter, and which they are."""
    said: dict[str, Any] = {}
    source: dict[str, str] = {}
    by: list[str] = []
    for label, pattern, given in patterns:
        if _matches(pattern, weight):
            by.append(label)
            for key, value in given.items():
                if key in said and said[key] != value:
                    raise ValueError(
                        f"param_groups: {source[key]!r} and {label!r} contradict each other on {weight.names[0]}: "
                        f"{key} is {said[key]!r} by one and {value!r} by the other; narrow one of the patterns"
                    )
                said[key], source[key] = value, label
    return said, by


# Layers


def _depths(
    model: nn.Module, weights: list[_Weight], layers: Sequence[Pattern], layer_decay: float | None, lr: Any
) -> tuple[dict[str, int], int]:
    """The layer of each parameter, by its first name, and the number of the last layer; nothing without decay."""
    if layer_decay is None:
        if layers:
            raise ValueError(f"param_groups: layers={list(map(_text, layers))} says nothing without layer_decay=")
        return {}, 0
    if not (isinstance(layer_decay, (int, float)) and 0 < layer_decay <= 1):
        raise ValueError(f"param_groups: layer_decay must lie in (0, 1], and {layer_decay!r} does not")
    if lr is None:
        raise ValueError(f"param_groups: layer_decay={layer_decay!r} scales a learning rate: give lr= as well")
    if not layers:
        return layers_of(model, [weight.names[0] for weight in weights])
    for pattern in layers:
        _check_pattern(f"layers={_text(pattern)}", pattern, {}, weights, [name for w in weights for name in w.names])
    depths: dict[str, int] = {}
    for weight in weights:
        found = [i for i, pattern in enumerate(layers) if _matches(pattern, weight)]
        if not found:
            raise ValueError(f"param_groups: {weight.names[0]} is in none of layers={list(map(_text, layers))}")
        depths[weight.names[0]] = found[0]
    return depths, len(layers) - 1


# The table


def _report(groups: Mapping[Any, dict[str, Any]], members: Mapping[Any, list[_Weight]]) -> str:
    any_frozen = any(not weight.tensor.requires_grad for part in members.values() for weight in part)
    rows: list[list[Any]] = []
    for key, group in groups.items():
        weights = members[key]
        values = ", ".join(f"{name}={_short(value)}" for name, value in group.items() if name not in ("params", "name"))
        examples = ", ".join(weight.names[0] for weight in weights[:_EXAMPLES])
        rows.append([group["name"], *_sizes(weights), values, examples + ", ..." * (len(weights) > _EXAMPLES)])
    rows.append(["total", *_sizes([weight for part in members.values() for weight in part]), "", ""])
    titles = ["group", "tensors", "parameters", "frozen", "hyperparameters", "for example"]
    if not any_frozen:
        titles.pop(3)
        for row in rows:
            row.pop(3)
    return table(titles, rows)


def _sizes(weights: list[_Weight]) -> tuple[int, int, int]:
    """How many tensors, how many numbers, and how many of the tensors are frozen."""
    tensors = [weight.tensor for weight in weights]
    return len(tensors), sum(p.numel() for p in tensors), sum(not p.requires_grad for p in tensors)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and value else repr(value)
