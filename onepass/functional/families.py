"""Classes of optimizers as frameworks have them: one name, with flags that choose among rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onepass.functional.recipe import PRESETS, Preset
from onepass.lang import Rule
from onepass.rules import RULES
from onepass.transforms import heavy_ball

Options = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A class of optimizers.

    Attributes:
        title: the class's name.
        preset: what it is when no flag is set.
        flags: the options that choose the rule, with their defaults.
        choose: takes all options that a user gave, and returns the preset that they call for with those that are
            left, its hyperparameters.
        says: one line on what it does.
    """

    title: str
    preset: Preset
    flags: Mapping[str, Any] = field(default_factory=dict[str, Any])
    choose: Callable[[Family, Options], tuple[Preset, Options]] = lambda family, options: (family.preset, options)
    says: str = ""

    @property
    def lr(self) -> float:
        """The default learning rate."""
        return self.preset.rule.lr

    @property
    def weight_decay(self) -> float:
        """The default weight decay."""
        return self.preset.defaults.get("weight_decay", 0.0)

    @property
    def options(self) -> dict[str, Any]:
        """Every option besides the learning rate and weight decay, with its default."""
        found = dict(self.preset.rule.hyperparameters)
        for given in self.preset.built_in:
            found.update(given.values)
        found.update(self.preset.defaults)
        found.update(self.flags)
        found.pop("weight_decay", None)
        return found

    def recipe_of(self, options: Mapping[str, Any]) -> tuple[Preset, Options]:
        """The preset that options call for, and its hyperparameters.

        Raises:
            ValueError: the options contradict one another.
        """
        return self.choose(self, {**self.flags, **options})


def family_of(rule: Rule, title: str, decay_form: str = "decoupled") -> Family:
    """The class of a rule of one's own."""
    return Family(title, Preset(rule, decay_form), says=_first_line(rule))


def _first_line(rule: Rule) -> str:
    return (rule.function.__doc__ or rule.name).strip().partition("\n")[0]


def _sgd(family: Family, options: Options) -> tuple[Preset, Options]:
    nesterov = options.pop("nesterov")
    if nesterov and (options["momentum"] == 0 or options["dampening"] != 0):
        raise ValueError(
            f"{family.title}: nesterov=True needs momentum > 0 and dampening = 0, "
            f"not momentum={options['momentum']} and dampening={options['dampening']}"
        )
    if options["momentum"] == 0:
        if options["dampening"] != 0:
            raise ValueError(f"{family.title}: dampening={options['dampening']} needs momentum > 0")
        return PRESETS["sgd"], {}
    if nesterov:
        return PRESETS["nesterov"], {"momentum": options["momentum"]}
    return PRESETS["momentum"], options


def _rmsprop(family: Family, options: Options) -> tuple[Preset, Options]:
    preset = PRESETS["centered_rmsprop" if options.pop("centered") else "rmsprop"]
    if options["momentum"] == 0:
        return preset, {name: value for name, value in options.items() if name != "momentum"}
    return replace(preset, built_in=(heavy_ball(momentum=options["momentum"]),)), options


def _adam(family: Family, options: Options) -> tuple[Preset, Options]:
    amsgrad = options.pop("amsgrad")
    return (replace(family.preset, rule=RULES["amsgrad"]) if amsgrad else family.preset), options


def _named(title: str, flags: Mapping[str, Any] | None = None, choose: Any = None, says: str = "") -> Family:
    preset = PRESETS[title.lower()]
    given = {"choose": choose} if choose else {}
    return Family(title, preset, flags or {}, says=says or _first_line(preset.rule), **given)


FAMILIES = {
    family.title: family
    for family in (
        _named("Adadelta"),
        _named("Adagrad"),
        _named("Adam", {"amsgrad": False}, _adam),
        _named("AdamW", {"amsgrad": False}, _adam, "Adam with decoupled weight decay."),
        _named("Adamax"),
        _named("NAdam"),
        _named("RAdam"),
        _named("RMSprop", {"momentum": 0.0, "centered": False}, _rmsprop),
        _named("Ranger", says="RAdam on centralised gradients, looking ahead."),
        _named("SGD", {"momentum": 0.0, "dampening": 0.0, "nesterov": False}, _sgd),
        _named("Yogi"),
    )
}
