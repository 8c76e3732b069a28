"""Every rule as a Keras 3 optimizer, under the TensorFlow, JAX and torch backends."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from onepass.functional.families import FAMILIES, Family, family_of
from onepass.functional.keras_steps import (
    PureStep,
    TorchStep,
    Variables,
    array,
    from_parameter,
    on_all_replicas,
    start_of,
)
from onepass.functional.library import library_of
from onepass.functional.recipe import Recipe, recipe
from onepass.functional.serialised import applied, as_config
from onepass.lang import COMMON, Applied, Rule, check
from onepass.transforms import decay

# What Keras itself does for any optimizer.
KERAS_OWN = (
    "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "ema_momentum", "ema_overwrite_frequency",
    "loss_scale_factor", "gradient_accumulation_steps",
)  # fmt: skip


@dataclass(frozen=True)
class _Settings:
    """What an optimizer was made with; a dict would be searched for variables by Keras."""

    recipe: Recipe
    options: Mapping[str, Any]


class Optimizer(keras.optimizers.Optimizer):
    """Base of all optimizers.

    Args:
        learning_rate: a number >= 0, a ``LearningRateSchedule`` or a callable; None leaves the class's default.
        weight_decay: a number >= 0, in the form that the class names, or one of `onepass.decay`; None is 0. It is part
            of the rule: ``exclude_from_weight_decay`` works, and Keras's own decay beside the step does not act.
        transforms: such as ``[onepass.clip_norm(1.0)]``.
        maximize: climb instead of descending.
        name: of the optimizer.
        **options: the rule's hyperparameters, under torch's names; and what Keras offers for every optimizer:
            ``clipnorm``, ``clipvalue``, ``global_clipnorm``, ``use_ema``, ``ema_momentum``,
            ``ema_overwrite_frequency``, ``loss_scale_factor``, ``gradient_accumulation_steps``.

    The learning rate can be assigned between steps, the rest is fixed. As in Keras, steps are counted by the optimizer
    (``iterations``) and not for each variable. With ``transforms=[clip_norm(...)]``, ``last_grad_norm`` is the norm of
    all gradients in the last step before clipping, or 0 before the first.

    Raises:
        TypeError: there is no such option, or a value is no number.
        ValueError: a value is out of range, or options contradict one another.
    """

    family: ClassVar[Family]
    _averages_are_in = False

    def __init__(
        self,
        learning_rate: Any = None,
        *,
        weight_decay: Any = ...,
        transforms: Sequence[Applied] = (),
        maximize: bool = False,
        name: str | None = None,
        **options: Any,
    ):
        family, title = self.family, type(self).__name__
        own = {key: options.pop(key) for key in KERAS_OWN if key in options}
        for key in options:
            if key not in family.options:
                rest = ("weight_decay", "transforms", "maximize", "name", *KERAS_OWN)
                known = ", ".join(("learning_rate", *family.options, *rest))
                raise TypeError(f"{title} takes no {key!r}; it takes {known}")
        rate = family.lr if learning_rate is None else learning_rate
        if not callable(rate):
            check(title, "learning_rate", rate, 0.0, COMMON["lr"])
            rate = float(rate)
        elif _needs_height(weight_decay, family):
            raise ValueError(
                f"{title}: independent decay follows the learning rate down from its height, which a schedule does not "
                f"tell: give it as onepass.decay.independent(x, lr_max=...), not {weight_decay!r}"
            )
        preset, hyperparameters = family.recipe_of(options)
        made = recipe(
            preset,
            lr=None if callable(rate) else rate,
            weight_decay=family.weight_decay if weight_decay is ... else weight_decay or 0.0,
            transforms=transforms,
            maximize=maximize,
            **hyperparameters,
        )
        super().__init__(learning_rate=rate, weight_decay=dict(made.items)["weight_decay"], name=name, **own)
        # For saving: patterns, and places among the variables.
        self._excluded_names: tuple[str, ...] = ()
        self._excluded_places: tuple[int, ...] = ()
        self._has_excluded_variables = False
        self._settings = _Settings(made, {**family.options, **options})

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__.get("_settings")
        if settings is not None and name in settings.options:
            return settings.options[name]
        if name == "last_grad_norm":
            if name in self.__dict__.get("_own_numbers", ()):
                return float(keras.ops.convert_to_numpy(self._own_numbers[name]))
            raise AttributeError(
                f"{type(self).__name__} has measured no norm: give it transforms=[clip_norm(max_norm)]"
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        settings = self.__dict__.get("_settings")
        if settings is not None and (name in settings.options or name in ("weight_decay", "transforms", "maximize")):
            raise AttributeError(
                f"{type(self).__name__}.{name} is fixed, for the compiled step holds it; make another optimizer with "
                f"{name}={value!r}. Only learning_rate can be assigned"
            )
        if settings is not None and name == "learning_rate" and isinstance(value, (int, float, str)):
            check(type(self).__name__, "learning_rate", value, 0.0, COMMON["lr"])
        super().__setattr__(name, value)

    @property
    def transforms(self) -> tuple[Applied, ...]:
        """The transforms."""
        return self._settings.recipe.transforms

    @property
    def maximize(self) -> bool:
        """Whether it climbs."""
        return bool(dict(self._settings.recipe.items)["maximize"])

    # States

    def build(self, variables: Sequence[Any]) -> None:
        """Make the states of these variables; ``fit`` and the first ``apply`` do it by themselves.

        Raises:
            TypeError: a variable is not of a floating-point type.
        """
        if self.built:
            return
        variables = list(variables)
        for v in variables:
            if "float" not in keras.backend.standardize_dtype(v.dtype):
                raise TypeError(f"{type(self).__name__}: {_path(v)} is of type {v.dtype}; only floats can be trained")
        super().build(variables)
        made, stepped = self._settings.recipe, self._stepped()
        program, values = made.program, made.host_values
        library = library_of([(_path(v), array(v)) for v in stepped])

        def start(key: str, v: Any) -> Callable[..., Any]:
            # What starts as the parameter is set by the first step, which may come after weights have been loaded.
            value = 0.0 if key in from_parameter(program) else start_of(program, key, values, array(v), library)
            return lambda shape, dtype=None: keras.ops.full(shape, value, dtype=dtype)

        states = {
            key: [self._state_like(v, key, start(key, v), key in program.precise) for v in stepped]
            for key in program.states
        }
        widest = "float64" if any(library.dtype(array(v)) == "float64" for v in stepped) else "float32"
        scalars = {key: self._number(key, start(key, stepped[0]), widest) for key in program.scalars}
        reports = {key: self._number(key, "zeros", "float32") for key in program.reports}
        self._own_states, self._own_numbers = states, {**scalars, **reports}
        excluded = [i in self._excluded_places or not self._use_weight_decay(v) for i, v in enumerate(stepped)]
        self._all = _Held(Variables(stepped, states, scalars, reports, excluded))
        step = TorchStep if library.name == "torch" else PureStep
        self._step = step(program, values, library)

    def _stepped(self) -> list[Any]:
        """The variables that are trained; the others are what Keras overwrites with their gradients."""
        return [v for v in self._trainable_variables if not self._overwrite_variable_with_gradient(v)]

    def _state_like(self, v: Any, key: str, start: Callable[..., Any], precise: bool) -> Any:
        if not precise or v.dtype not in ("float16", "bfloat16"):
            return self.add_variable_from_reference(v, key, start)
        name = f"{_path(v).replace('/', '_')}_{key}"
        return self.add_variable(v.shape, start, "float32", layout=getattr(v, "_layout", None), name=name)

    def _number(self, key: str, start: Any, dtype: str) -> Any:
        return self.add_variable((), start, dtype, "only_first_replica", name=key)

    # The step

    def _apply_weight_decay(self, variables: Any) -> None:
        """Decay is part of the rule."""

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        """Keras's hook for a step of all variables at once, after it has clipped gradients."""
        if self._averages_are_in:
            raise RuntimeError(f"{type(self).__name__}: step inside `with opt.averaged()`; leave it first")
        places = {self._var_key(v): i for i, v in enumerate(self._all.variables.params)}
        places = [places[self._var_key(v)] for v in trainable_variables]
        iterations, assign = self.iterations, self.assign
        if isinstance(self._step, TorchStep):
            given = dict(zip(places, grads, strict=True))
            everyone = self._all.variables
            grads = [given.get(i) for i in range(len(everyone.params))]
            self._step(everyone, grads, iterations, learning_rate, assign)
        elif keras.backend.backend() == "tensorflow":
            variables = self._all.variables.some(places)
            on_all_replicas(self, self._step, variables, grads, iterations, learning_rate)
        else:
            self._step(self._all.variables.some(places), grads, iterations, learning_rate, assign)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averages that ``transforms=[average(decay)]`` keeps in the variables' place, and back at the end.

        Raises:
            RuntimeError: no average is kept, the averages are in place already, or a step was taken inside.
        """
        title = type(self).__name__
        if not self.built or "average" not in self._own_states:
            raise RuntimeError(f"{title} keeps no averages: give it transforms=[average(0.999)], and build it")
        if self._averages_are_in:
            raise RuntimeError(f"{title}: the averages are in place already")
        params, before = self._all.variables.params, int(self._iterations)
        kept = [keras.ops.convert_to_numpy(v).copy() for v in params]
        self._averages_are_in = True
        try:
            for v, average in zip(params, self._own_states["average"], strict=True):
                # Before the first step a variable is its own average. A copy, for JAX gives the buffers of both away.
                if before:
                    v.assign(keras.ops.copy(keras.ops.convert_to_tensor(average)))
            yield
        finally:
            self._averages_are_in = False
            for v, value in zip(params, kept, strict=True):
                v.assign(value)
        if int(self._iterations) != before:
            raise RuntimeError(f"{title}: step inside `with opt.averaged()`; its effect on the variables is lost")

    # Weight decay's exceptions

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Leave variables out of weight decay: those of a list, and those in whose name a pattern of a list is found.

        Unlike those of Keras's own optimizers, the exceptions are saved and reloaded with the model.

        Raises:
            ValueError: the optimizer is built already.
        """
        if self.built:
            raise ValueError(f"{type(self).__name__}: exclude_from_weight_decay comes before build and the first step")
        super().exclude_from_weight_decay(var_list, var_names)
        self._excluded_names, self._has_excluded_variables = tuple(var_names or ()), bool(var_list)

    # Saving

    def get_config(self) -> dict[str, Any]:
        """All that `from_config` needs to make an optimizer like this one, without its states.

        Raises:
            ValueError: variables are excluded from weight decay that it has not been built with.
        """
        made = self._settings.recipe
        if self._has_excluded_variables and not self.built:
            raise ValueError(
                f"{type(self).__name__}: variables excluded from weight decay are saved by their place among those it "
                "was built with: call build first, or exclude them with var_names="
            )
        places = [i for i, out in enumerate(self._all.variables.excluded) if out] if self.built else ()
        items = dict(made.items)
        weight_decay = items["weight_decay"]
        if weight_decay and made.decay_form != self.family.preset.decay_form:
            form = decay.FORMS[made.decay_form]
            weight_decay = as_config(form(**{key: items[key] for key in form.hyperparameters}))
        options = {key: list(x) if isinstance(x, tuple) else x for key, x in self._settings.options.items()}
        return {
            **super().get_config(),
            **options,
            "weight_decay": weight_decay,
            "transforms": [as_config(given) for given in made.transforms],
            "maximize": self.maximize,
            "excluded_from_weight_decay": {
                "names": list(self._excluded_names),
                "places": list(places or self._excluded_places),
            },
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Optimizer:
        """An optimizer like the one whose `get_config` this is.

        Transforms of one's own are looked for by their names among ``custom_objects``, which ``load_model`` takes too.

        Raises:
            ValueError: a transform is not found.
        """

        def find(name: str) -> Any:
            return keras.saving.get_registered_object(name, custom_objects)

        config = dict(config)
        excluded = config.pop("excluded_from_weight_decay", {"names": [], "places": []})
        config["transforms"] = [applied(given, find) for given in config.get("transforms", ())]
        if isinstance(config.get("weight_decay"), Mapping):
            config["weight_decay"] = applied(config["weight_decay"], find)
        made = super().from_config(config, custom_objects)
        made.exclude_from_weight_decay(var_names=excluded["names"])
        made._excluded_places = tuple(excluded["places"])
        return made


@dataclass(frozen=True)
class _Held:
    """Keeps the variables from being tracked twice."""

    variables: Variables


def _needs_height(weight_decay: Any, family: Family) -> bool:
    """Whether this is decay relative to the learning rate's height, which is not given."""
    if isinstance(weight_decay, Applied):
        return weight_decay.values.get("lr_max", ...) is None
    decays = family.weight_decay if weight_decay is ... else weight_decay
    return bool(decays) and "lr_max" in decay.FORMS[family.preset.decay_form].hyperparameters


def _path(v: Any) -> str:
    return getattr(v, "path", None) or v.name


def _class_of(family: Family, module: str = "onepass.keras") -> type[Optimizer]:
    form = "decoupled" if family.preset.decay_form == "decoupled" else "L2"
    defaults = {"learning_rate": family.lr, **family.options, "weight_decay": family.weight_decay}
    rest = {"transforms": (), "maximize": False, "name": None, **dict.fromkeys(KERAS_OWN)}
    kind = inspect.Parameter
    first, *others = [(key, value) for key, value in {**defaults, **rest}.items()]
    signature = inspect.Signature(
        [kind(first[0], kind.POSITIONAL_OR_KEYWORD, default=first[1])]
        + [kind(key, kind.KEYWORD_ONLY, default=value) for key, value in others]
    )
    told = f"{family.says}\n\nA plain ``weight_decay`` is {form}. For the arguments see `onepass.keras.Optimizer`.\n"
    body = {"family": family, "__doc__": told, "__module__": module, "__signature__": signature}
    made = type(family.title, (Optimizer,), body)
    return keras.saving.register_keras_serializable(package="onepass")(made)


def optimizer(rule: Rule, *, weight_decay: str = "decoupled", name: str | None = None) -> type[Optimizer]:
    """The Keras optimizer class of a rule of one's own; a saved model finds it again by its name.

    Args:
        rule: what `onepass.rule` made.
        weight_decay: the form that a plain number means: a name in ``onepass.decay.FORMS``.
        name: of the class; by default the rule's, in capitals: ``my_rule`` becomes ``MyRule``.

    Raises:
        TypeError: ``rule`` is no rule.
        ValueError: there is no such form of weight decay.

    Example:
        >>> import onepass, onepass.keras
        >>> @onepass.rule
        ... def signum(g, m, *, momentum=0.9):
        ...     m = onepass.ema(m, g, momentum)
        ...     return onepass.sign(m), m
        >>> Signum = onepass.keras.optimizer(signum)
        >>> opt = Signum(1e-4, momentum=0.95)
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"optimizer takes a rule, made by @onepass.rule, not {rule!r}")
    if weight_decay not in decay.FORMS:
        raise ValueError(f"weight_decay is the name of a form, one of {', '.join(decay.FORMS)}, not {weight_decay!r}")
    title = name or "".join(part.capitalize() for part in rule.name.split("_"))
    return _class_of(family_of(rule, title, weight_decay), rule.function.__module__)


Adadelta, Adagrad, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, Ranger, SGD, Yogi = map(_class_of, FAMILIES.values())
