# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the lifecycle nodes of this package have in common."""

from __future__ import annotations

import gc
import time
import traceback
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile

from nightseg_ros.config import ConfigError
from nightseg_ros.node.diagnostics import Level, Problem
from nightseg_ros.node.main import give_back
from nightseg_ros.node.parameters import Declared, Parameter
from nightseg_ros.node.watchdog import Patience, Stall, Watch

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

#: Seconds between two messages on /diagnostics; with ``silent_after`` they stay below 2 s.
REPORT_PERIOD = 0.5
#: Seconds that deactivation waits for what is in hand.
PATIENCE = 10.0


class ManagedNode(LifecycleNode):
    """
    A lifecycle node with a table of parameters, diagnostics and ``autostart``.

    What a subclass makes in ``_prepare`` lives from configure to cleanup, what in ``_begin`` from
    activate to deactivate. ``_tick`` is for what is due twice a second, and starts with ``_busy``.
    """

    expected: ClassVar[tuple[type[Exception], ...]] = (ConfigError,)
    """Errors of a configure whose text says all."""

    def __init__(
        self,
        name: str,
        parameters: Sequence[Parameter],
        build: Callable[[dict[str, Any]], Any],
        **options: Any,
    ) -> None:
        """
        Declare ``parameters``, of whose values ``build`` makes the settings.

        With ``autostart`` the first spin configures and activates.
        """
        super().__init__(name, **options)
        self._refuse_impossible_transitions()
        self.declared = Declared(self, parameters, build)
        self._failure = ''
        self._watch = Watch(time.monotonic())
        self._alarm: Stall | None = None
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', QoSProfile(depth=10)
        )
        # simulated time may stand still, and a report about that must not
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._report_timer = self.create_timer(REPORT_PERIOD, self._tick, clock=self._steady)
        for sentence in self.declared.unknown:
            self.get_logger().warning(sentence)
        if self.declared.value('autostart'):
            self._start_timer = self.create_timer(0.0, self._autostart, clock=self._steady)

    def _refuse_impossible_transitions(self) -> None:
        """Answer a request that the state does not allow; rclpy would end the process over it."""
        service = self._service_change_state
        change = service.callback

        def answer(request: Any, response: Any) -> Any:
            try:
                return change(request, response)
            except rclpy_implementation.RCLError as error:
                self.get_logger().warning(f'transition refused: {error}')
                response.success = False
                return response

        service.callback = answer

    def _autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        if self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    # -- lifecycle ----------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, make what lives until cleanup; a refusal leaves nothing behind."""
        self._failure = ''
        try:
            self._prepare()
        except Exception as error:
            self._free()
            return self._refuse('configure', error)
        finally:
            self._busy()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let the publishers speak, start to work, subscribe."""
        super().on_activate(state)
        try:
            source = self._begin()
        except Exception as error:
            self._end(PATIENCE)
            super().on_deactivate(state)
            return self._refuse('activate', error)
        self.get_logger().info(f'active; waiting for {source}')
        return SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, stop to work, silence the publishers."""
        stopped = self._end(PATIENCE)
        super().on_deactivate(state)
        return SUCCESS if stopped else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what configure made."""
        self._free()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Do both, from whatever state."""
        self._end(PATIENCE)
        self._free()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that a configure can try again."""
        return self.on_shutdown(state)

    def stop(self, timeout: float) -> bool:
        """End all work, as on a signal; return whether it ended in ``timeout`` seconds."""
        return self._end(timeout)

    def destroy_node(self) -> None:
        """
        Leave the graph, and /dev/shm.

        The state machine keeps the DDS participant with its shared memory, and whatever still
        refers to the node, such as a worker that has not come back, keeps the state machine.
        """
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def _free(self) -> None:
        """Release, and search for cycles: networks, masks and tf buffers lie in them."""
        self._release()
        gc.unfreeze()
        gc.collect()
        give_back()

    def _refuse(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        text = str(error)
        if not isinstance(error, self.expected):
            self.get_logger().debug(traceback.format_exc())
            text = f'{type(error).__name__}: {error}'
        self._failure = f'{transition} failed: {text}'
        self.get_logger().error(self._failure)
        return FAILURE

    # -- the watchdog's questions ---------------------------------------------------------------

    @property
    def _patience(self) -> Patience:
        return Patience()

    def _busy(self, with_what: str = 'a callback', limit: float | None = None) -> None:
        """Let the watchdog know what the executor's thread begins."""
        self._watch.begin(
            f'{with_what} has not come back', limit or self._patience.batch, time.monotonic()
        )

    def patience(self) -> float:
        """Return the seconds that what is under way may take."""
        return max(self._watch.limit, self._patience.batch)

    def look(self, now: float) -> Stall | None:
        """Return what stalls at ``now``; the watchdog's thread asks."""
        self._alarm = self._watch.look(now)
        return self._alarm

    def tell(self, stall: Stall) -> None:
        """Report a stall from the watchdog's thread: the executor's may be the one that stalls."""
        if stall.hopeless:
            self.get_logger().fatal(f'{stall}; giving up, so that I am started anew')
        self._report()

    # -- diagnostics --------------------------------------------------------------------------

    def _publish_diagnostics(self, statuses: Sequence[DiagnosticStatus]) -> None:
        message = DiagnosticArray(status=list(statuses))
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _common_problems(self) -> list[Problem]:
        """Return what can be wrong with any node: its parameters, a transition, its clock."""
        found = [Problem(level='WARN', text=sentence) for sentence in self.declared.unknown]
        if self._failure:
            found.insert(0, Problem(level='ERROR', text=self._failure))
        if self._alarm is not None:
            # loading takes its time
            patient = self._alarm.limit > self._patience.batch and not self._alarm.hopeless
            level: Level = 'WARN' if patient else 'ERROR'
            found.insert(0, Problem(level=level, text=str(self._alarm)))
        names = self.get_node_names_and_namespaces()
        if names.count((self.get_name(), self.get_namespace())) > 1:
            text = 'another node has this name as well, or had it a moment ago: services and '
            text += 'parameters reach either; give each a namespace of its own'
            found.append(Problem(level='WARN', text=text))
        clock = self.get_clock()
        if clock.ros_time_is_active and clock.now().nanoseconds == 0:
            text = 'use_sim_time is set, but nothing came on /clock yet'
            found.append(Problem(level='WARN', text=text))
        return found

    @abstractmethod
    def _prepare(self) -> None:
        """Make what a configure makes; an error refuses it."""

    @abstractmethod
    def _begin(self) -> str:
        """Begin to work, and return what is waited for; an error refuses the activation."""

    @abstractmethod
    def _end(self, timeout: float) -> bool:
        """End what ``_begin`` began; return whether it ended in ``timeout`` seconds."""

    @abstractmethod
    def _tick(self) -> None:
        """Do what is due twice a second, after ``_busy``."""

    @abstractmethod
    def _report(self) -> None:
        """Publish the diagnostics."""

    @abstractmethod
    def _release(self) -> None:
        """Free what ``_prepare`` made, or left when it failed."""
