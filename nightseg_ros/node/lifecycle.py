# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the lifecycle nodes have in common: parameters, transitions, watchdog, diagnostics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
import gc
import time
import traceback
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from nightseg_ros.config import ConfigError
from nightseg_ros.node.diagnostics import (
    Health,
    HealthProblem,
    Level,
    LONGEST,
    node_status,
    source_status,
)
from nightseg_ros.node.parameters import settings_of, table, unknown
from nightseg_ros.node.subscription import Subscription
from nightseg_ros.node.watchdog import Activity, Hang, Task
from nightseg_ros.runtime.backend import release_memory
from nightseg_ros.weights import WeightsError
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.time_source import CLOCK_TOPIC

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

#: Seconds between two messages on /diagnostics; with ``silent_after`` they stay below 2 s.
REPORT_PERIOD = 0.5
#: Reports between two full collections, of 0.5 ms. CPython keeps up to 2,000 freed tuples of each
#: length until one comes, by itself after minutes: the process grew by 1.5 MB over an hour.
COLLECT_EVERY = 20
#: Seconds that deactivation waits for the batch that is being computed.
STOP_TIMEOUT = 10.0
#: Seconds after which a callback counts as hung where no parameter says otherwise.
CALLBACK_LIMIT = 30.0


class ManagedNode(LifecycleNode):
    """
    A lifecycle node with a table of parameters, diagnostics and ``autostart``.

    What a subclass makes in ``_prepare`` lives from configure to cleanup, what in ``_begin`` from
    activate to deactivate.
    """

    expected: ClassVar[tuple[type[Exception], ...]] = (ConfigError,)
    """Errors of a configure whose text says all."""
    _clock_problem = ''
    _ticks = 0

    def __init__(self, name: str, settings: type[Any], **options: Any) -> None:
        """
        Declare the parameters that are the fields of ``settings``.

        With ``autostart`` the first spin configures and activates.
        """
        super().__init__(name, **options)
        services = {service.srv_name.rpartition('/')[2]: service for service in self.services}
        self._get_state = services['get_state'].callback
        for name, service in services.items():
            service.callback = partial(self._answer, name, service.callback)
        self._outputs: list[Any] = []
        self.subscribed: set[Subscription] = set()
        """Those that follow what their publishers offer."""
        self.sources: list[tuple[str, Health, Subscription]] = []
        """Name, health and subscription of each camera or sensor that is subscribed to."""
        self.settings: Any = None
        """From configure to cleanup those in force, None before and after; no copies are kept."""
        self._kind = settings
        self._rows = {parameter.name: parameter for parameter in table(settings)}
        self._wrong: dict[str, str] = {}
        """What is wrong with the value of a parameter."""
        self._declare()
        self._failure = ''
        self.activity = Activity(time.monotonic())
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', QoSProfile(depth=10)
        )
        # simulated time may stand still, and a report about that must not
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._report_timer = self.create_timer(REPORT_PERIOD, self._tick, clock=self._steady)
        for sentence in self._unknown:
            self.get_logger().warning(sentence)
        if self.get_parameter('autostart').value:
            self._start_timer = self.create_timer(0.0, self._autostart, clock=self._steady)

    def create_subscription(
        self, msg_type: Any, topic: str, callback: Any, *given: Any, **more: Any
    ) -> Any:
        """
        Subscribe, in a callback group of its own.

        A group never forgets what it held, and the node's lives as long as the node. A time that
        cannot be must not end it: rclpy raises then.
        """
        more.setdefault('callback_group', MutuallyExclusiveCallbackGroup())
        if topic == CLOCK_TOPIC:
            callback = partial(self._take_clock, callback)
        return super().create_subscription(msg_type, topic, callback, *given, **more)

    def unsubscribe(self) -> None:
        """Close all subscriptions, also those of a camera or sensor that is half made."""
        self.sources.clear()
        for subscription in tuple(self.subscribed):
            subscription.close()

    def create_lifecycle_publisher(self, *given: Any, **more: Any) -> Any:
        """Create an output topic, which lives until cleanup, or until configure has failed."""
        self._outputs.append(super().create_lifecycle_publisher(*given, **more))
        return self._outputs[-1]

    def _take_clock(self, take: Callable[[Any], None], message: Any) -> None:
        self._clock_problem = ''
        try:
            take(message)
        except ValueError as error:
            self._clock_problem = f'/clock cannot be used, time stands still: {error}'

    # -- parameters ---------------------------------------------------------------------------

    def _declare(self) -> None:
        """
        Declare every row of the table.

        A value from a file or the command line that cannot be used does not end the process: the
        node stays unconfigured and says so until the parameter is set to one that can.
        """
        # rclpy tells nobody which overrides no parameter took, nor the value that it refuses;
        # test_node_lifecycle.py has wrong and misspelt ones
        overrides = self._parameter_overrides
        overrides.update({one.name: one for one in self._take_numbers([*overrides.values()])})
        self._unknown = unknown(overrides, self._rows)
        for name, row in self._rows.items():
            default = row.plain_default
            given = overrides[name].value if name in overrides else default
            # an array that was given empty has no type to ROS
            empty = given is None and row.kind == 'string array'
            problem = None if empty else row.problem(given)
            if problem:
                self._wrong[name] = problem
            self.declare_parameter(
                name, [''] if empty else default, row.descriptor(),
                ignore_override=empty or bool(problem),
            )  # fmt: skip
        self.add_pre_set_parameters_callback(self._take_numbers)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)

    def _take_numbers(self, changes: Sequence[Parameter]) -> list[Parameter]:
        """Take 1 for 1.0 where a double is wanted."""
        doubles = {name for name, row in self._rows.items() if row.kind == 'double'}
        return [
            Parameter(one.name, value=float(one.value))
            if one.name in doubles and type(one.value) is int else one
            for one in changes
        ]  # fmt: skip

    def _settings_with(self, changes: Mapping[str, Any]) -> Any:
        """Return the values as settings; ``ConfigError`` names what cannot be used."""
        if self._wrong:
            raise ConfigError('; '.join(self._wrong.values()))
        values = {name: self.get_parameter(name).value for name in self._rows}
        return settings_of(self._kind, {**values, **changes})

    def _check_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        """Refuse what cannot be used, with the reason; several are taken together or not."""
        ours = {change.name: change.value for change in changes if change.name in self._rows}
        configured = self.settings is not None
        try:
            for name, value in ours.items():
                row = self._rows[name]
                problem = row.problem(value)
                if problem:
                    raise ConfigError(problem)
                # a file of all parameters may be loaded again
                if configured and not row.dynamic and value != self.get_parameter(name).value:
                    raise ConfigError(
                        f"parameter '{name}' takes effect by configure: clean the node up, "
                        'set it, and configure'
                    )
            if ours and configured:
                self.check_settings(self._settings_with(ours))
        except (ConfigError, WeightsError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changes: Sequence[Parameter]) -> None:
        ours = [change.name for change in changes if change.name in self._rows]
        for name in ours:
            self._wrong.pop(name, None)
        if ours and self.settings is not None:
            self.settings = self._settings_with({})
            self.apply_settings()

    def refuse_same_topics(self, parameter: str, names: Iterable[str]) -> None:
        """Raise ``ConfigError`` where two names are one topic, such as a and /a."""
        by_topic: dict[str, str] = {}
        for name in names:
            topic = self.resolve_topic_name(name)
            if topic in by_topic:
                text = f"'{parameter}' names {topic} twice, as {by_topic[topic]} and {name}"
                raise ConfigError(text)
            by_topic[topic] = name

    # -- lifecycle ----------------------------------------------------------------------------

    def _answer(self, name: str, answer: Callable[..., Any], request: Any, response: Any) -> Any:
        """Answer a request that is refused by an error: rclpy lets the error pass instead."""
        try:
            return answer(request, response)
        except Exception as error:
            self.get_logger().warning(f'{name} refused: {error}'[:LONGEST])
            return response

    def _autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        if self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, make what lives until cleanup; a failure frees it again."""
        self._failure = ''
        try:
            self.settings = self._settings_with({})
            self._prepare()
            # what is loaded stays: a search of 200,000 objects for cycles would hold up a frame
            gc.collect()
            gc.freeze()
            release_memory()
        except Exception as error:
            self._free()
            return self._fail('configure', error)
        finally:
            self._busy('a callback')
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate the publishers, start to work, subscribe."""
        super().on_activate(state)
        self._failure = ''
        try:
            source = self._begin()
        except Exception as error:
            self.stop(STOP_TIMEOUT)
            super().on_deactivate(state)
            return self._fail('activate', error)
        self.get_logger().info(f'active; waiting for {source}')
        return SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, stop to work, deactivate the publishers."""
        stopped = self.stop(STOP_TIMEOUT)
        super().on_deactivate(state)
        return SUCCESS if stopped else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what configure made."""
        self._free()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything, from whatever state, so that a configure can try again."""
        self.stop(STOP_TIMEOUT)
        return self.on_cleanup(state)

    on_error = on_shutdown

    def destroy_node(self) -> None:
        """
        Leave the graph, and /dev/shm.

        The state machine keeps the DDS participant with its shared memory, and whatever still
        refers to the node, such as a worker that hangs, keeps the state machine. Nothing public
        destroys it; test_node_lifecycle.py notices where this does not any more.
        """
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def _free(self) -> None:
        """Release, and search for cycles: networks, masks and tf buffers lie in them."""
        self._release()
        while self._outputs:
            self.destroy_lifecycle_publisher(self._outputs.pop())
        self.settings = None
        gc.unfreeze()
        gc.collect()
        release_memory()

    def _fail(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        text = str(error)
        if not isinstance(error, self.expected):
            self.get_logger().debug(traceback.format_exc())
            text = f'{type(error).__name__}: {error}'
        self._failure = f'{transition} failed: {text}'
        self.get_logger().error(self._failure)
        return FAILURE

    # -- the watchdog's questions ---------------------------------------------------------------

    def _busy(self, text: str, limit: float = 0.0) -> None:
        """Let the watchdog know what the executor's thread begins."""
        limit = limit or self._batch_limit()
        self.activity.tasks['executor'] = Task(f'{text} has not ended', limit, time.monotonic())

    def _batch_limit(self) -> float:
        return getattr(self.settings, 'watchdog_s', CALLBACK_LIMIT)

    def longest(self) -> float:
        """Return the seconds that what is under way may take."""
        tasks = self.activity.tasks.copy().values()
        return max([self._batch_limit(), *(task.limit for task in tasks)])

    def report_hang(self, hang: Hang) -> None:
        """Report from the watchdog's thread: the executor's may be the one that hangs."""
        if hang.fatal:
            text = 'exiting with code 1; the launch file restarts the node'
            self.get_logger().fatal(f'{hang}; {text}')
        self._report()

    # -- diagnostics --------------------------------------------------------------------------

    def _tick(self) -> None:
        self._busy('a callback')
        self._report()
        for subscription in tuple(self.subscribed):
            subscription.match()
        self._ticks += 1
        if self.settings is not None and not self._ticks % COLLECT_EVERY:
            gc.collect()

    def _report(self) -> None:
        """Publish the state of the node and of its cameras or sensors; any thread may ask."""
        now, settings = time.monotonic(), self.settings
        name = self.get_fully_qualified_name().strip('/')
        state = self._get_state(GetState.Request(), GetState.Response()).current_state.label
        statuses = [node_status(name, state, self._problems(now), *self._description())]
        for source, health, subscription in self.sources.copy() if settings is not None else ():
            topic = subscription.source()
            statuses.append(source_status(name, source, health, topic, now, settings.silent_after))
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _problems(self, now: float) -> list[HealthProblem]:
        """Return what is wrong with the node: its parameters, a transition, a hang, its clock."""
        found = [HealthProblem('WARN', sentence) for sentence in self._unknown]
        if self._failure:
            found.insert(0, HealthProblem('ERROR', self._failure))
        hang = self.activity.hang
        if hang is not None:
            # loading takes its time
            loading = hang.task.limit > self._batch_limit() and not hang.fatal
            level: Level = 'WARN' if loading else 'ERROR'
            found.insert(0, HealthProblem(level, str(hang)))
        names = self.get_node_names_and_namespaces()
        if names.count((self.get_name(), self.get_namespace())) > 1:
            text = 'another node has this name as well, or had it a moment ago: services and '
            text += 'parameters reach either; give each a namespace of its own'
            found.append(HealthProblem('WARN', text))
        if self._outputs:
            # the publishers have declared theirs
            found += [
                HealthProblem('WARN', f"'{name}' has no effect: no output has such a setting")
                for name in self._parameter_overrides
                if name.startswith('qos_overrides.') and not self.has_parameter(name)
            ]
        clock = self.get_clock()
        if self._clock_problem and clock.ros_time_is_active:
            found.append(HealthProblem('ERROR', self._clock_problem))
        if clock.ros_time_is_active and clock.now().nanoseconds == 0:
            found.append(
                HealthProblem('WARN', 'use_sim_time is set, but nothing came on /clock yet')
            )
        return found

    # -- what a subclass adds -----------------------------------------------------------------

    def check_settings(self, settings: Any) -> None:
        """Raise where settings that are valid cannot be met with what is configured."""

    def apply_settings(self) -> None:
        """Take over ``self.settings``, of which a dynamic parameter has changed."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make what lives until cleanup; an error refuses the configure."""

    @abstractmethod
    def _begin(self) -> str:
        """Begin to work, and return what is waited for; an error refuses the activation."""

    @abstractmethod
    def stop(self, timeout: float) -> bool:
        """End what ``_begin`` began; return whether it ended in ``timeout`` seconds."""

    @abstractmethod
    def _release(self) -> None:
        """Free what ``_prepare`` made, or left when it failed."""

    @abstractmethod
    def _description(self) -> tuple[Mapping[str, Any], Mapping[str, object]]:
        """Return what ``Pipeline.describe`` returns, or {}, and further values of the node."""
