"""Every reason for a halt: its state, who raises it, and its sentence.

To add a reason, add its kind with a comment on who raises it, and a function or a constant that
makes it; counters, states and messages follow from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from safe_vla_ros.runtime.states import StateName


class HaltKind(str, Enum):
    """What halts are counted by; the value is what messages and files say.

    Attributes:
        state: The runtime's state while the reason lasts.
        told_at_rest: Whether its sentence is still told when the arm has come to rest and nothing
            stands against moving, until a chunk is played.
    """

    state: StateName
    told_at_rest: bool

    def __new__(cls, kind: str, state: StateName, told_at_rest: bool = False) -> HaltKind:
        """Make a kind from its value, its state and whether it is told at rest."""
        member = str.__new__(cls, kind)
        member._value_ = kind
        member.state = state
        member.told_at_rest = told_at_rest
        return member

    # Motion permission finds these at every tick, as long as they last; the first one counts.
    DEACTIVATE = 'deactivate', StateName.HALTING  # the policy runtime, at once
    FAILURES = 'failures', StateName.FAILED  # the inference scheduler, until a reset
    WORKSPACE = 'workspace', StateName.FAILED  # motion permission itself, until a reset
    PAUSED = 'paused', StateName.PAUSED  # the policy runtime, at once
    OTHER_COMMANDER = 'other_commander', StateName.FAILED  # motion permission, as it is told
    CLOCK_STOPPED = 'clock_stopped', StateName.STALE  # the policy runtime, simulated time only
    NO_INSTRUCTION = 'no_instruction', StateName.WAITING  # the policy runtime, at once
    MISSING = 'missing', StateName.WAITING  # the input store
    STALE = 'stale', StateName.STALE  # the input store
    INVALID = 'invalid', StateName.STALE  # the input store

    # The policy runtime raises these once, when it is told to, or at a tick that comes at
    # the wrong time.
    INSTRUCTION = 'instruction', StateName.HALTING
    RESET = 'reset', StateName.HALTING
    CLOCK_JUMP = 'clock_jump', StateName.HALTING, True
    STALLED = 'stalled', StateName.HALTING, True

    # The inference scheduler raises this once, for a chunk.
    NON_FINITE = 'non_finite', StateName.HALTING, True

    # The controller raises this once, when the plan has run out.
    STARVED = 'starved', StateName.STARVED, True

    def __str__(self) -> str:
        """Return the value."""
        return str.__str__(self)


@dataclass(frozen=True)
class HaltReason:
    """Why nothing may move.

    Attributes:
        kind: What it is counted by.
        text: The sentence that users see.
    """

    kind: HaltKind
    text: str


DEACTIVATING = HaltReason(HaltKind.DEACTIVATE, 'deactivating')
PAUSED = HaltReason(HaltKind.PAUSED, 'paused')
NO_INSTRUCTION = HaltReason(HaltKind.NO_INSTRUCTION, 'no instruction')
NEW_INSTRUCTION = HaltReason(HaltKind.INSTRUCTION, 'a new instruction began an episode')
RESET = HaltReason(HaltKind.RESET, 'the episode was reset')


def missing(what: str) -> HaltReason:
    """Return the reason that an input in use has never come.

    Args:
        what: The message, for example ``image of camera 'front'``.
    """
    return HaltReason(HaltKind.MISSING, f'no {what} yet')


def stale(what: str, problem: str) -> HaltReason:
    """Return the reason that an input's times forbid its use.

    Args:
        what: The input, for example ``camera 'front'``.
        problem: The rest of the sentence.
    """
    return HaltReason(HaltKind.STALE, f'{what} {problem}')


def invalid(text: str) -> HaltReason:
    """Return the reason that what an input says cannot be used."""
    return HaltReason(HaltKind.INVALID, text)


def failures(number: int, last: str) -> HaltReason:
    """Return the reason that too many inferences failed in a row.

    Args:
        number: How many.
        last: The last one's error.
    """
    return HaltReason(HaltKind.FAILURES, f'{number} inferences failed in a row; the last: {last}')


def non_finite(error: str) -> HaltReason:
    """Return the reason that a chunk, or what it was made from, is not finite."""
    return HaltReason(HaltKind.NON_FINITE, f'a chunk was refused: {error}')


def starved(grace_s: float) -> HaltReason:
    """Return the reason that the plan ended and no new one came within the grace time, seconds."""
    text = f'no new chunk came within {grace_s:g} s after the end of the last one'
    return HaltReason(HaltKind.STARVED, text)


def workspace(outside_m: float, margin_m: float) -> HaltReason:
    """Return the reason that the end effector is too far outside the workspace, metres."""
    text = (
        f'the end effector is {outside_m:.3g} m outside the workspace; '
        f'workspace_margin_m is {margin_m:g}'
    )
    return HaltReason(HaltKind.WORKSPACE, text)


def clock_jump(jump_s: float) -> HaltReason:
    """Return the reason that the clock of stamps jumped, by seconds; negative is backwards."""
    where = 'back' if jump_s < 0.0 else 'ahead'
    return HaltReason(HaltKind.CLOCK_JUMP, f'the clock jumped {where} by {abs(jump_s):.3g} s')


def clock_stopped(began: bool) -> HaltReason:
    """Return the reason that simulated time does not move.

    Args:
        began: Whether there has been any simulated time.
    """
    text = 'no new /clock comes' if began else 'there is no /clock'
    return HaltReason(HaltKind.CLOCK_STOPPED, f'simulated time stands still: {text}')


def stalled(gap_s: float, hold_s: float) -> HaltReason:
    """Return the reason that no command went out for too long.

    Args:
        gap_s: Time since the last command, seconds.
        hold_s: How long the robot holds a command, seconds; 0 for ever.
    """
    hold = f'for {hold_s:g} s' if hold_s else 'for ever'
    text = f'the node stalled: no command for {gap_s:.3g} s, the robot holds one {hold}'
    return HaltReason(HaltKind.STALLED, text)


def other_commander(topic: str) -> HaltReason:
    """Return the reason that somebody else commands the robot, too."""
    return HaltReason(
        HaltKind.OTHER_COMMANDER,
        f'another publisher commands the robot on {topic}; stop it, then reset the episode',
    )
