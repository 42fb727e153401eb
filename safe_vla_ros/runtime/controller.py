"""Turns chunks into limited commands tick by tick, and ends every motion the same way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from safe_vla_ros.runtime.geometry import Pose, rotation_matrix
from safe_vla_ros.runtime.gripper import GripperOutput
from safe_vla_ros.runtime.halt_reasons import HaltKind, HaltReason, stalled, starved
from safe_vla_ros.runtime.halting import HaltSequence, Phase
from safe_vla_ros.runtime.limits import LimitedTwist, TwistLimiter
from safe_vla_ros.runtime.playback import ChunkPlayer
from safe_vla_ros.runtime.pose_target import PoseTarget
from safe_vla_ros.runtime.settings import ControlSettings
from safe_vla_ros.runtime.states import RuntimeState, StateName
from safe_vla_ros.runtime.ticks import Tick
from safe_vla_ros.types import Float64Array


@dataclass(frozen=True)
class Command:
    """What is published at one control tick.

    Attributes:
        linear_m_s, angular_rad_s: Twist in the command frame, float64 [3] each.
        target: Pose target in the command frame when ``command_type`` is ``pose``, else None.
        gripper: Opening, 0 closed .. 1 open, or None when it is not due.
        stamp_s: The clock's time that it was computed for, seconds.
    """

    linear_m_s: Float64Array
    angular_rad_s: Float64Array
    target: Pose | None = None
    gripper: float | None = None
    stamp_s: float = 0.0


class Controller:
    """Plays, limits and halts; a halt drops the plan and whatever is being inferred for it.

    Not thread-safe.

    Attributes:
        player: What is being played.
        generation: Grows with every halt; a chunk asked for before it must not be played.
        fresh_after_s: The clock's time of the last halt; observations must be newer.
        state: What the last tick found.
        counts: Ticks by what happened in them.
        halts: Halts that ended a motion or a plan, by kind of reason.
    """

    def __init__(self) -> None:
        self.player = ChunkPlayer()
        self.generation = 0
        self.fresh_after_s = 0.0
        self.state = RuntimeState(StateName.WAITING, 'not active')
        self.counts: Counter[str] = Counter()
        self.halts: Counter[HaltKind] = Counter()
        self._limiter = TwistLimiter()
        self._sequence = HaltSequence()
        self._target = PoseTarget()
        self._gripper = GripperOutput()
        self._halt: HaltReason | None = None
        self._blocked_by: HaltKind | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing is published until a new chunk is played."""
        return self._sequence.silent

    def activate(self, now_s: float) -> None:
        """Begin anew; nothing is commanded before the first chunk."""
        self.player.forget()
        self._sequence.reopen()
        self._gripper = GripperOutput()
        self._halt = None
        self._blocked_by = None
        self.generation += 1
        self.fresh_after_s = now_s

    def halt(self, reason: HaltReason, now_s: float) -> None:
        """Drop the plan and begin to decelerate.

        Args:
            reason: Why; counted when there was something to halt.
            now_s: The clock's time.
        """
        if self.player.has_plan or self._sequence.phase is Phase.MOVING:
            self.halts[reason.kind] += 1
        self.player.clear()
        self._sequence.begin()
        self._halt = reason
        self.generation += 1
        self.fresh_after_s = now_s

    def close(self, reason: HaltReason, now_s: float) -> None:
        """Halt for good, within two seconds of the time that ticks say has passed."""
        self.halt(reason, now_s)
        self._sequence.begin_closing()

    def forget_time(self, reason: HaltReason, now_s: float) -> None:
        """Halt and drop everything that is tied to the clock, which has jumped."""
        self.halt(reason, now_s)
        self.player.forget()

    def stall(self, gap_s: float, hold_s: float, now_s: float) -> None:
        """Take it that the robot got no command for longer than it holds one.

        A robot that stops by itself has stopped, so zeros come first and motion begins from rest;
        one that does not is braked from the last twist. Nothing happens where nothing was
        commanded.

        Args:
            gap_s: Time since the last command, seconds.
            hold_s: How long the robot holds a command, seconds; 0 for ever.
            now_s: The clock's time.
        """
        if self.silent:
            return
        if self._sequence.phase is not Phase.MOVING:
            self.halts[HaltKind.STALLED] += 1
        self.halt(stalled(gap_s, hold_s), now_s)
        if hold_s:
            self._limiter.rest()

    def tick(
        self, tick: Tick, blocked: HaltReason | None, pose: Pose | None, settings: ControlSettings
    ) -> Command | None:
        """Say what to command now.

        Args:
            tick: The tick's times.
            blocked: Why nothing may move, or None.
            pose: The end effector's pose where it is in use, or None.
            settings: How to play, limit and halt.

        Returns:
            The command, or None for silence.
        """
        self.player.advance(tick.now_s)
        self._target.advance(tick.elapsed_s)
        self._sequence.step(tick.elapsed_s)
        if blocked is not None:
            self._block(blocked, tick.now_s)
            return self._stop(tick, pose, settings)
        self._blocked_by = None
        if self.player.has_plan:
            self._check_starvation(tick.now_s, settings)
        if self.player.has_plan:
            return self._play(tick, pose, settings)
        self.state = self._idle_state()
        return self._stop(tick, pose, settings)

    def _block(self, reason: HaltReason, now_s: float) -> None:
        cause = self._halt
        if self.player.has_plan or self._blocked_by is not reason.kind:
            self.halt(reason, now_s)
        self._halt, self._blocked_by = reason, reason.kind
        state = reason.kind.state
        if state is StateName.WAITING and not self.silent:
            state = StateName.HALTING
            if cause is not None and cause.kind.told_at_rest:
                # What set the halt off says more than what is waited for since.
                self._halt = reason = cause
        self.state = RuntimeState(state, reason.text)

    def _check_starvation(self, now_s: float, settings: ControlSettings) -> None:
        if not self.player.ended:
            self.state = RuntimeState(StateName.RUNNING, '')
            return
        self.counts['starved'] += 1
        grace_s = settings.starvation_grace_s
        if self.player.held_s <= grace_s - 1e-9:
            text = f'the chunk has ended; its last twist is held for at most {grace_s:g} s'
            self.state = RuntimeState(StateName.STARVED, text)
            return
        self.halt(starved(grace_s), now_s)

    def _idle_state(self) -> RuntimeState:
        halt = self._halt
        if halt is None or (self.silent and not halt.kind.told_at_rest):
            return RuntimeState(StateName.WAITING, 'waiting for the first chunk')
        if halt.kind.state is StateName.STARVED:
            return RuntimeState(StateName.STARVED, halt.text)
        return RuntimeState(StateName.WAITING if self.silent else StateName.HALTING, halt.text)

    def _play(self, tick: Tick, pose: Pose | None, settings: ControlSettings) -> Command:
        self._halt = None
        if self.silent:
            # Time in which nothing was commanded gives no room to speed up.
            tick = replace(tick, elapsed_s=min(tick.elapsed_s, 1.0 / settings.control_rate_hz))
        self._sequence.move()
        twist = self.player.next_twist(
            tick.expected_s, longest_s=tick.longest_s, hold_s=settings.starvation_grace_s
        )
        linear, angular = twist[:3], twist[3:]
        if settings.frame == 'ee' and pose is not None:
            turn = rotation_matrix(pose.quaternion_xyzw)
            linear, angular = turn @ linear, turn @ angular
        if settings.command_type == 'pose' and pose is not None:
            self._target.start(pose)
            motion = linear * tick.expected_s, angular * tick.expected_s
            if self._target.leads_too_far(pose, *motion):
                self.counts['lead_clipped'] += 1
                linear, angular = np.zeros(3), np.zeros(3)
        limited = self._limit(linear, angular, tick, pose, settings)
        self.counts['played'] += 1
        self.counts['speed_clipped'] += limited.speed_clipped
        self.counts['acceleration_clipped'] += limited.acceleration_clipped
        self.counts['workspace_clipped'] += limited.workspace_clipped
        opening = self._gripper.due(self.player.opening(), tick.elapsed_s)
        return self._command(limited, tick, settings, opening)

    def _stop(self, tick: Tick, pose: Pose | None, settings: ControlSettings) -> Command | None:
        self._gripper.due(None, tick.elapsed_s)
        if self._sequence.silent:
            return None
        if self._limiter.at_rest:
            if not self._sequence.may_publish_zero(settings.halt_zero_duration_s):
                self._target.clear()
                return None
            return self._command(LimitedTwist(), tick, settings, None)
        limited = self._limit(np.zeros(3), np.zeros(3), tick, pose, settings)
        if not (limited.linear_m_s.any() or limited.angular_rad_s.any()):
            self._sequence.may_publish_zero(settings.halt_zero_duration_s)
        return self._command(limited, tick, settings, None)

    def _limit(
        self,
        linear: Float64Array,
        angular: Float64Array,
        tick: Tick,
        pose: Pose | None,
        settings: ControlSettings,
    ) -> LimitedTwist:
        limits = self._sequence.braking_limits(settings.limits, self._limiter.speeds)
        stands = self._target.base if settings.command_type == 'pose' else pose
        return self._limiter.limit(
            linear,
            angular,
            elapsed_s=tick.elapsed_s,
            limits=limits,
            workspace=settings.workspace,
            position_m=None if stands is None else stands.position_m,
        )

    def _command(
        self, twist: LimitedTwist, tick: Tick, settings: ControlSettings, opening: float | None
    ) -> Command:
        target = None
        if settings.command_type == 'pose':
            target = self._target.command(twist.linear_m_s, twist.angular_rad_s, tick.expected_s)
        return Command(twist.linear_m_s, twist.angular_rad_s, target, opening, tick.now_s)
