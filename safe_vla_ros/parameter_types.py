"""A parameter, and settings whose fields are parameters: one definition, on the field itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeGuard, TypeVar, get_args, get_origin, get_type_hints

from safe_vla_ros.errors import ParameterError

Settings = TypeVar('Settings')

METADATA_KEY = 'parameter'
ELEMENT_TYPES: dict[str, type] = {'string': str, 'bool': bool, 'int': int, 'double': float}
LARGEST_INT = 2**31 - 1
LONGEST_SHOWN = 80
LONGEST_STRING = 4096


class Change(Enum):
    """When a parameter may change."""

    READ_ONLY = 'read-only'
    """Only before the node starts."""

    CONFIGURE = 'before configure'
    """While the node is unconfigured."""

    DYNAMIC = 'dynamic'
    """At any time; takes effect between two inferences or at a tick."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of the node.

    Attributes:
        name: ROS name, with dots.
        type: ``string``, ``bool``, ``int``, ``double``, ``string[]``, ``double[]`` or ``int[]``.
        description: What it does, in one sentence.
        default: Value when neither the user nor the policy gives one; None when there is none.
        own: Where the policy's own value stands in ``PolicySpec`` (``limits.max_linear_speed``);
            empty when the policy has no say.
        unit: Unit of the number, empty without one.
        minimum, maximum: Allowed range, both ends included; None when open.
        above: Number that the value must exceed, instead of ``minimum``.
        choices: Allowed strings; empty when any.
        length: Length of the array when it is set.
        change: When it may change.
        range_note: What the range is when it depends on the policy or on other parameters.
        optional: Whether it may stay unset when neither the user nor the policy gives it.
        after: Name of the parameter that it follows in the table; empty for the order of fields.
        own_over: Name of an earlier parameter, a number, that the policy's own value may depend on:
            it is then a mapping from values of that one to values of this one.
    """

    name: str
    type: str
    description: str
    default: Any = None
    own: str = ''
    unit: str = ''
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    length: int | None = None
    change: Change = Change.CONFIGURE
    range_note: str = ''
    optional: bool = False
    after: str = ''
    own_over: str = ''

    @property
    def is_array(self) -> bool:
        """Whether the value is an array; an empty array means that the parameter is unset."""
        return self.type.endswith('[]')

    @property
    def element_type(self) -> str:
        """Type of the value, or of one element of an array."""
        return self.type.removesuffix('[]')

    @property
    def allowed(self) -> str:
        """The allowed values in words, for errors and the README."""
        if self.choices:
            return ', '.join(self.choices)
        if self.range_note:
            return self.range_note
        unit = f' {self.unit}' if self.unit else ''
        if self.above is not None:
            upper = (
                f' and at most {format_number(self.maximum)}' if self.maximum is not None else ''
            )
            return f'above {format_number(self.above)}{upper}{unit}'
        if self.minimum is not None and self.maximum is not None:
            return f'{format_number(self.minimum)} to {format_number(self.maximum)}{unit}'
        if self.minimum is not None:
            return f'at least {format_number(self.minimum)}{unit}'
        return {'string': 'text', 'bool': 'true or false', 'int': 'an integer'}.get(
            self.element_type, f'a finite number{unit}'
        )

    def check(self, value: Any) -> Any:
        """Check one value without looking at the others.

        Args:
            value: What the user or the policy gives; arrays as any sequence. None means unset.

        Returns:
            The value as str, bool, int, float or a tuple of these; None for None and for an
            empty array.

        Raises:
            ParameterError: Wrong type, out of range, not a choice, wrong length.
        """
        if value is None:
            return None
        if not self.is_array:
            return self._check_element(value)
        if isinstance(value, (str, bytes)) or not hasattr(value, '__iter__'):
            raise self.error(value, f'must be an array of {self.element_type}s')
        elements = tuple(self._check_element(element) for element in value)
        if not elements:
            return None
        if self.length is not None and len(elements) != self.length:
            msg = f'has {len(elements)} elements, exactly {self.length} are needed'
            raise self.error(elements, msg)
        return elements

    def error(self, value: Any, what: str) -> ParameterError:
        """Build the error that says which parameter, which value and what is allowed."""
        return parameter_error(self.name, value, what)

    def _check_element(self, value: Any) -> Any:
        expected = ELEMENT_TYPES[self.element_type]
        if expected is float and isinstance(value, int) and not isinstance(value, bool):
            small = abs(value) <= LARGEST_INT
            hint = f'is an integer, write {value}.0' if small else f'must be {self._must_be()}'
            raise self.error(value, hint)
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            got = type(value).__name__
            raise self.error(value, f'is a {got}, must be a {self.element_type} ({self.allowed})')
        if isinstance(value, str) and len(value) > LONGEST_STRING:
            msg = f'has {len(value)} characters, at most {LONGEST_STRING} are allowed'
            raise self.error(value, msg)
        if expected is bool or self._in_range(value):
            return value
        raise self.error(value, f'must be {self._must_be()}')

    def _must_be(self) -> str:
        return f'one of {self.allowed}' if self.choices else self.allowed

    def _in_range(self, value: Any) -> bool:
        if isinstance(value, str):
            return not self.choices or value in self.choices
        if isinstance(value, int) and abs(value) > LARGEST_INT:
            return False
        if not math.isfinite(value):
            return False
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
        )


def parameter(name: str, description: str, **facts: Any) -> dict[str, Parameter]:
    """Make the metadata of a settings field that is a parameter of the node.

    Type, length and default come from the field: ``parameters_of`` fills them in. A field whose
    default is None or empty is a parameter that may stay unset.

    Args:
        name: ROS name, with dots.
        description: What it does, in one sentence.
        facts: Other attributes of ``Parameter``.
    """
    return {METADATA_KEY: Parameter(name, '', description, **facts)}


def parameters_of(settings: type, *, optional: bool = False) -> Iterator[Parameter]:
    """Yield the parameters of a settings class in the order of its fields.

    Args:
        settings: A dataclass; a field that holds another settings class gives its parameters.
        optional: Whether the whole class may be left out.
    """
    for item, kind in _typed_fields(settings):
        if METADATA_KEY in item.metadata:
            name, length = _ros_type(kind)
            unset = item.default in (None, ())
            yield replace(
                item.metadata[METADATA_KEY],
                type=name,
                length=length,
                default=None if unset or item.default is MISSING else item.default,
                optional=optional or unset,
            )
        elif _is_settings(kind):
            yield from parameters_of(kind, optional=item.default is None)


def build_settings(settings: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Make settings of the values of their parameters.

    Args:
        settings: A dataclass whose fields are parameters or hold such a class.
        values: Checked values by parameter name; None is unset and leaves the field's default.

    Returns:
        The settings; an optional part is None unless all that it needs is set.
    """
    arguments: dict[str, Any] = {}
    for item, kind in _typed_fields(settings):
        if METADATA_KEY in item.metadata:
            value = values[item.metadata[METADATA_KEY].name]
            if value is not None:
                arguments[item.name] = value
        elif _is_settings(kind) and (item.default is not None or _can_build(kind, values)):
            arguments[item.name] = build_settings(kind, values)
    return settings(**arguments)


def _is_settings(kind: Any) -> TypeGuard[type]:
    return isinstance(kind, type) and is_dataclass(kind)


def _can_build(settings: type, values: Mapping[str, Any]) -> bool:
    return all(
        values[item.name] is not None for item in parameters_of(settings) if item.default is None
    )


def _typed_fields(settings: type) -> Iterator[tuple[Field[Any], Any]]:
    """Yield the fields with their types; of ``X | None`` the type is X."""
    hints = get_type_hints(settings)
    for item in fields(settings):
        kind = hints[item.name]
        choices = [choice for choice in get_args(kind) if choice is not type(None)]
        optional = type(None) in get_args(kind)
        yield item, choices[0] if optional else kind


def _ros_type(kind: Any) -> tuple[str, int | None]:
    """Return the parameter's type and, for a tuple of fixed length, the length."""
    names = {python: name for name, python in ELEMENT_TYPES.items()}
    if get_origin(kind) is not tuple:
        return names[kind], None
    elements = get_args(kind)
    return f'{names[elements[0]]}[]', None if elements[-1] is Ellipsis else len(elements)


def parameter_error(name: str, value: Any, what: str) -> ParameterError:
    """Build the error that says which parameter, which value and what is wrong with it."""
    return ParameterError(f'{name} = {_shown(value)}: {what}')


def _shown(value: Any) -> str:
    """Write a value for an error, shortened where it is long."""
    try:
        text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    except ValueError:  # more digits than Python writes
        return 'a number of thousands of digits'
    return text if len(text) <= LONGEST_SHOWN else f'{text[:LONGEST_SHOWN]}...'


def format_number(number: float | None) -> str:
    """Write a number without a needless fraction."""
    return '' if number is None else f'{number:g}'
