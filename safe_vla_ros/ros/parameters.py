"""The node's parameters: declared from the table, checked whole, never applied by halves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import ParameterUninitializedException
from rclpy.parameter import Parameter as RosParameter

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.parameter_types import LARGEST_INT
from safe_vla_ros.runtime.parameter_combinations import without_effect
from safe_vla_ros.runtime.parameters import (
    PARAMETERS,
    Change,
    Parameter,
    Resolved,
    check_values,
    find_parameter,
    is_ros_own,
    resolve,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterator

    from rclpy.node import Node

    from safe_vla_ros.types import PolicySpec

_ROS_TYPES = {
    'string': RosParameter.Type.STRING,
    'bool': RosParameter.Type.BOOL,
    'int': RosParameter.Type.INTEGER,
    'double': RosParameter.Type.DOUBLE,
    'string[]': RosParameter.Type.STRING_ARRAY,
    'double[]': RosParameter.Type.DOUBLE_ARRAY,
    'int[]': RosParameter.Type.INTEGER_ARRAY,
}


class NodeParameters:
    """Declares the table on a node and guards every change.

    A parameter whose value comes from the policy shows it from configure on, but stays the
    policy's own until somebody sets it.

    Attributes:
        refusals: Why values given at the start cannot be used, by parameter name.
        strangers: A sentence for every value given at the start that no parameter takes.
    """

    def __init__(
        self, node: Node, on_change: Callable[[Resolved], None], lock: threading.RLock
    ) -> None:
        """Declare every parameter.

        Args:
            node: Whose parameters these are.
            on_change: Called after dynamic parameters have changed while the node is configured.
            lock: Held by the node while it sets parameters; here, while the policy changes.
        """
        self._node = node
        self._on_change = on_change
        self._lock = lock
        self._explicit: dict[str, Any] = {}
        self._spec: PolicySpec | None = None
        self._in_force: Resolved | None = None
        self._pruner_names: Collection[str] = ()
        self._pending: tuple[dict[str, Any], Resolved | None] | None = None
        self._filling = False
        self._loading = False
        self.refusals: dict[str, str] = {}
        for parameter in PARAMETERS.values():
            self._declare(parameter)
        self.strangers = self._find_strangers()
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._accept)

    @property
    def policy(self) -> str:
        """The reference of the policy to load.

        Raises:
            ParameterError: What was given for it cannot be used.
        """
        if 'policy' in self.refusals:
            raise ParameterError(self.refusals['policy'])
        return str(self._explicit.get('policy', PARAMETERS['policy'].default))

    def problems(self) -> list[str]:
        """Return a sentence for all that was given at the start and keeps configure from working.

        Unknown parameters are none when ``allow_unknown_parameters`` is true.
        """
        strangers = [] if self._explicit.get('allow_unknown_parameters') else self.strangers
        return [*self.refusals.values(), *strangers]

    def tell(self) -> None:
        """Log what is wrong with the values given at the start."""
        problems = self.problems()
        for sentence in problems:
            self._node.get_logger().error(f'configure will fail: {sentence}')
        for sentence in self.strangers:
            if sentence not in problems:
                self._node.get_logger().warning(f'ignored: {sentence}')

    def is_set(self, name: str) -> bool:
        """Tell whether a declared parameter has a value; an empty array is none."""
        try:
            value = self._node.get_parameter(name).value
        except ParameterUninitializedException:
            return False
        return name not in PARAMETERS or not PARAMETERS[name].is_array or len(value) > 0

    def configure(self, spec: PolicySpec, pruner_names: Collection[str]) -> Resolved:
        """Resolve what was given with the policy, and show what is in force.

        From now on changes are checked with this policy, until ``release``.

        Raises:
            ParameterError: A value or a combination is not allowed, or something is missing.
        """
        problems = self.problems()
        if problems:
            raise ParameterError('; '.join(problems))
        with self._lock:
            resolved = resolve(self._explicit, spec, pruner_names=pruner_names)
            self._fill_in(resolved)
            self._spec, self._pruner_names, self._in_force = spec, pruner_names, resolved
        self._tell_without_effect(resolved)
        return resolved

    def release(self) -> None:
        """Forget the policy: every parameter that is not read-only may change again."""
        with self._lock:
            self._spec = self._in_force = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Refuse every change meanwhile, so that a policy is loaded with what is shown."""
        with self._lock:
            self._loading = True
        try:
            yield
        finally:
            with self._lock:
                self._loading = False

    def explain(self, changes: list[RosParameter]) -> str:
        """Say in our own words why changes are refused; empty when the table does not object."""
        result = self._check(changes)
        self._pending = None
        return str(result.reason)

    def _find_strangers(self) -> list[str]:
        sentences = []
        for name in names_given_at_the_start(self._node):
            if not self._node.has_parameter(name) and not is_ros_own(name):
                try:
                    find_parameter(name)
                except ParameterError as error:
                    sentences.append(str(error))
        return sentences

    def _declare(self, parameter: Parameter) -> None:
        """Declare one parameter; a value of the wrong type must not end the process."""
        name, value = parameter.name, parameter.default
        anything = ParameterDescriptor(dynamic_typing=True)
        given = self._node.declare_parameter(name, None, anything).value
        self._node.undeclare_parameter(name)
        try:
            checked = parameter.check(given)
        except ParameterError as error:
            self.refusals[name] = str(error)
        else:
            if checked is not None:
                self._explicit[name] = value = checked
        shown = descriptor(parameter)
        if value is not None:
            value = list(value) if parameter.is_array else value
            self._node.declare_parameter(name, value, shown, ignore_override=True)
            return
        ros_type = _ROS_TYPES[parameter.type]
        self._node.declare_parameter(name, ros_type, shown, ignore_override=True)
        if parameter.is_array:
            self._node.set_parameters([RosParameter(name, ros_type, [])])

    def _check(self, changes: list[RosParameter]) -> SetParametersResult:
        self._pending = None
        if self._filling:
            return SetParametersResult(successful=True)
        try:
            given = {
                change.name: PARAMETERS[change.name].check(change.value)
                for change in changes
                if change.name in PARAMETERS
            }
            if given and self._loading:
                name, value = next(iter(given.items()))
                what = 'cannot change while the policy loads; set it again when that has ended'
                raise PARAMETERS[name].error(value, what)
            if given:
                self._pending = self._candidate(given)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _candidate(self, given: dict[str, Any]) -> tuple[dict[str, Any], Resolved | None]:
        for name, value in given.items():
            if PARAMETERS[name].change is Change.READ_ONLY and value != self._explicit.get(name):
                raise PARAMETERS[name].error(value, 'is read-only, give it when the node starts')
        explicit = {**self._explicit, **given}
        explicit = {name: value for name, value in explicit.items() if value is not None}
        if self._spec is None or self._in_force is None:
            check_values(explicit)
            return explicit, None
        resolved = resolve(explicit, self._spec, pruner_names=self._pruner_names)
        for name, value in given.items():
            fixed = PARAMETERS[name].change is not Change.DYNAMIC
            if fixed and resolved.values[name] != self._in_force.values[name]:
                what = 'can change only while the node is unconfigured (cleanup it first)'
                raise PARAMETERS[name].error(value, what)
        return explicit, resolved

    def _accept(self, changes: list[RosParameter]) -> None:
        if self._pending is None:
            return
        self._explicit, resolved = self._pending
        self._pending = None
        for change in changes:
            self.refusals.pop(change.name, None)
        if resolved is not None:
            self._fill_in(resolved, self._in_force)
            self._in_force = resolved
            self._tell_without_effect(resolved)
            self._on_change(resolved)

    def _tell_without_effect(self, resolved: Resolved) -> None:
        for sentence in without_effect(self._explicit, resolved.pruning.method):
            self._node.get_logger().warning(sentence)

    def _fill_in(self, resolved: Resolved, before: Resolved | None = None) -> None:
        """Show the policy's own values; with ``before`` those that have changed since."""
        shown = [
            RosParameter(
                name, _ROS_TYPES[parameter.type], list(value) if parameter.is_array else value
            )
            for name, parameter in PARAMETERS.items()
            if (value := resolved.values[name]) is not None
            and name not in self._explicit
            and parameter.change is not Change.READ_ONLY
            and (before is None or value != before.values[name])
        ]
        if not shown:
            return
        self._filling = True
        try:
            self._node.set_parameters_atomically(shown)
        finally:
            self._filling = False


def names_given_at_the_start(node: object) -> list[str]:
    """Return the names of all values given to a node at its start, whoever they are meant for.

    rclpy ignores a value that no parameter takes in silence, and has no public list of them. To
    declare them all with ``automatically_declare_parameters_from_overrides`` is no way out: an
    empty array among them ends the process. Empty where rclpy does not tell.
    """
    given = getattr(node, '_parameter_overrides', None)
    return list(given) if isinstance(given, Mapping) else []


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Describe a parameter to ROS tools: description with unit, range, read-only."""
    unit = f' [{parameter.unit}]' if parameter.unit else ''
    shown = ParameterDescriptor(
        description=parameter.description + unit,
        additional_constraints=f'{parameter.allowed}; changes: {parameter.change.value}',
        read_only=parameter.change is Change.READ_ONLY,
    )
    lowest = parameter.minimum if parameter.above is None else parameter.above
    if lowest is None or parameter.is_array:
        return shown
    highest = parameter.maximum
    if parameter.type == 'int':
        highest = LARGEST_INT if highest is None else int(highest)
        shown.integer_range = [IntegerRange(from_value=int(lowest), to_value=highest)]
    else:
        highest = sys.float_info.max if highest is None else float(highest)
        shown.floating_point_range = [
            FloatingPointRange(from_value=float(lowest), to_value=highest)
        ]
    return shown
