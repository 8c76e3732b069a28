"""What is to be run: a rule with its transforms and hyperparameters, by name or by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from onepass.compiler import Program, Stage
from onepass.groups import Group, check_group, check_transforms, compile_group, host_values, settle_decay, stages_of
from onepass.lang import Applied, Rule
from onepass.rules import RULES, adam, radam
from onepass.transforms import centralize, lookahead


@dataclass(frozen=True)
class Preset:
    """What a name stands for.

    Attributes:
        rule: the rule.
        decay_form: what a plain number for the weight decay means.
        built_in: transforms that belong to it; their hyperparameters bear no prefix.
        defaults: where they differ from the rule's own.
    """

    rule: Rule
    decay_form: str = "l2"
    built_in: tuple[Applied, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])


PRESETS = {
    **{name: Preset(rule) for name, rule in RULES.items()},
    "adamw": Preset(adam, "decoupled", defaults={"weight_decay": 1e-2}),
    "yogi": Preset(RULES["yogi"], "decoupled"),
    "ranger": Preset(
        radam, "decoupled", (centralize(), lookahead(k=6, alpha=0.5)), {"betas": (0.95, 0.999), "eps": 1e-5}
    ),
}


def list_rules() -> list[str]:
    """The names that `init` takes."""
    return sorted(PRESETS)


@dataclass(frozen=True)
class Recipe:
    """A rule, its transforms, its form of decay and its hyperparameters: all that does not change from step to step.

    Attributes:
        name: to begin messages with.
        rule: the rule.
        built_in: its own transforms.
        transforms: those that the user gave.
        decay_form: the form of weight decay.
        items: the hyperparameters, as a parameter group holds them.
    """

    name: str
    rule: Rule
    built_in: tuple[Applied, ...]
    transforms: tuple[Applied, ...]
    decay_form: str
    items: tuple[tuple[str, Any], ...]

    def __getstate__(self) -> dict[str, Any]:
        # The compiled rule stays behind: what unpickles compiles it again.
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def program(self) -> Program:
        """The compiled rule."""
        own = tuple(Stage(given.transform) for given in self.built_in)
        return compile_group(self.rule, own + stages_of(self.transforms), self.decay_form, dict(self.items))

    @cached_property
    def host_values(self) -> dict[str, float]:
        """The values of the program's hyperparameters."""
        return host_values(self.program, dict(self.items))

    def changed(self, changes: Mapping[str, Any], is_traced: Callable[[Any], bool]) -> dict[str, Any]:
        """The values of the program's hyperparameters, some of them as given for one step.

        Raises:
            TypeError, ValueError: there is no such hyperparameter, or its value cannot be used.
        """
        if not changes:
            return dict(self.host_values)
        group = dict(self.items)
        for name in changes:
            if name not in group or name == "maximize":
                known = ", ".join(key for key in group if key not in ("maximize", "decay"))
                raise TypeError(f"{self.name} has no hyperparameter {name!r} to change; it has: {known}")
        if "weight_decay" in changes and not group["weight_decay"] and "weight_decay" not in self.rule.hyperparameters:
            raise ValueError(f"{self.name} was made without weight decay: give weight_decay to init to change it later")
        changes = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
        group.update(changes)
        parts = {name: value if isinstance(value, tuple) else (value,) for name, value in changes.items()}
        known = {name: value for name, value in changes.items() if not any(map(is_traced, parts[name]))}
        _check(self, {**dict(self.items), **known})
        return host_values(self.program, group, lambda value: value if is_traced(value) else float(value))


def _check(recipe: Recipe, group: Group) -> None:
    prefixed = [("", given) for given in recipe.built_in]
    prefixed += [(f"{given.transform.name}_", given) for given in recipe.transforms]
    check_group(recipe.name, (recipe.rule,), prefixed, group)


def recipe(
    rule: str | Rule | Preset,
    *,
    lr: float | None = None,
    weight_decay: Any = None,
    transforms: Sequence[Applied] = (),
    maximize: bool = False,
    **hyperparameters: Any,
) -> Recipe:
    """The recipe of a rule; see `init` for the arguments.

    Raises:
        TypeError: ``rule`` is neither a name nor a rule, a hyperparameter is unknown or no number.
        ValueError: there is no rule of that name, or a hyperparameter is out of range.
    """
    if isinstance(rule, Rule):
        name, preset = rule.name, Preset(rule, "decoupled")
    elif isinstance(rule, Preset):
        name, preset = rule.rule.name, rule
    elif isinstance(rule, str):
        name = rule.lower()
        if name not in PRESETS:
            raise ValueError(f"unknown rule {rule!r}: choose one of {', '.join(list_rules())}")
        preset = PRESETS[name]
    else:
        raise TypeError(f"a rule is a name such as 'adamw' or what @onepass.rule makes, not {rule!r}")
    group: Group = {"lr": preset.rule.lr, **preset.rule.hyperparameters}
    group.setdefault("weight_decay", 0.0)
    for given in preset.built_in:
        group.update(given.values)
    group.update(preset.defaults)
    for key in hyperparameters:
        if key not in group:
            known = ", ".join(["lr", *(key for key in group if key != "lr"), "transforms", "maximize"])
            raise TypeError(f"{name} takes no {key!r}; it takes {known}")
    group.update(hyperparameters)
    group.update((key, value) for key, value in (("lr", lr), ("weight_decay", weight_decay)) if value is not None)
    group["maximize"] = bool(maximize)
    if isinstance(group["weight_decay"], Applied) and "weight_decay" in preset.rule.hyperparameters:
        raise ValueError(f"{name} decays by itself: weight_decay takes a number, not {group['weight_decay']!r}")
    settle_decay(name, group)
    form = group.pop("decay", preset.decay_form)
    group.update(check_transforms(name, transforms, group))
    group = {key: tuple(value) if isinstance(value, list) else value for key, value in group.items()}
    whole = Recipe(name, preset.rule, preset.built_in, tuple(transforms), form, ())
    _check(whole, group)
    for key, value in group.items():
        if hasattr(value, "landmarks"):
            raise TypeError(f"{name}: {key} takes a number, not {value!r}: give update {key}=schedule(step) instead")
    if form == "independent" and group.get("lr_max") is None:
        # The rate that counts as the schedule's height must not follow a rate that is given for one step.
        group["lr_max"] = group["lr"]
    settled = tuple(Applied(given.transform, _plain_items(given.items)) for given in transforms)
    made = Recipe(name, preset.rule, preset.built_in, settled, form, _plain_items(group.items()))
    _ = made.program
    return made


def _plain_items(items: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, _plain(value)) for key, value in items)


def _plain(value: Any) -> Any:
    """A hyperparameter as a number that hashes, whatever it came as."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return value if value is None or isinstance(value, (bool, int)) else float(value)
