"""Run the scripted expert on LIBERO-Spatial and count successes per scene and bowl."""

from __future__ import annotations

import argparse
from collections import deque

from safe_vla_ros.sim.arm import STEP_S, SimulatedPanda
from safe_vla_ros.sim.expert import act, look
from safe_vla_ros.sim.scene import CONTROL_PERIOD_S
from safe_vla_ros.sim.tasks import SPATIAL, task_names

STEPS_PER_ACTION = round(CONTROL_PERIOD_S / STEP_S)


def run_expert(arm: SimulatedPanda, *, delay: int = 0) -> float | None:
    """Let the expert drive an arm that is just reset, at the benchmark's 20 Hz.

    Args:
        arm: The robot.
        delay: How many actions (50 ms each) late everything arrives.

    Returns:
        Simulated seconds until success, or None if the benchmark's time limit came first.
    """
    on_their_way = deque([act(look(arm))] * delay)
    for step in range(round(arm.task.max_duration_s / STEP_S)):
        now_s = step * STEP_S
        if step % STEPS_PER_ACTION == 0:
            on_their_way.append(act(look(arm)))
            velocity, opening = on_their_way.popleft()
            arm.command_twist(velocity, now_s)
            arm.command_gripper(opening)
        arm.step(now_s)
        if arm.success:
            return (step + 1) * STEP_S
    return None


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.sim.expert_success', description=__doc__
    )
    names = task_names(SPATIAL)
    parser.add_argument('--tasks', nargs='+', default=names, choices=names, metavar='TASK')
    parser.add_argument('--episodes', type=int, default=10, help='episodes per task')
    parser.add_argument(
        '--fresh', action='store_true', help='place objects by seed, not as the benchmark does'
    )
    parser.add_argument('--delay', type=int, default=0, help='actions (50 ms) that commands take')
    options = parser.parse_args(arguments)
    total = 0
    print('| task | success | mean seconds | sentence |\n|---|---|---|---|')
    for name in options.tasks:
        arm = SimulatedPanda(name, light_meshes=False)
        times = []
        for number in range(options.episodes):
            if options.fresh:
                arm.reset(1000 + number)
            else:
                arm.reset(0, init_state=number)
            times.append(run_expert(arm, delay=options.delay))
        arm.close()
        solved = [time_s for time_s in times if time_s is not None]
        total += len(solved)
        mean = f'{sum(solved) / len(solved):.2f}' if solved else ''
        count = f'{len(solved)}/{len(times)}'
        print(f'| {name} | {count} | {mean} | {arm.instruction} |', flush=True)
    print(f'\n{total} of {len(options.tasks) * options.episodes}')


if __name__ == '__main__':
    main()
