"""Check where the bundled policy looks before it grasps, in figures and in pictures.

The unpruned policy drives. In every few frames before the grasp, the attention of its action rows
is compared with a segmentation of the images: how much of it lies on the asked bowl, on the other
bowl, on the plate and on the gripper, divided by their share of the image. 1 is what looking
nowhere in particular gives. Every frame is also shown with the sentence for the other bowl, with
which the two bowls change places.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies import find_policy
from safe_vla_ros.policies.mini import MiniPolicy
from safe_vla_ros.runtime.overlay import render_overlay, score_range
from safe_vla_ros.runtime.overlay_strip import StripFacts
from safe_vla_ros.sim.arm import SimulatedPanda
from safe_vla_ros.sim.closed_loop import load_bundled, resolve_episode
from safe_vla_ros.sim.expert import OPEN_GAP_M
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX, Renderer
from safe_vla_ros.sim.rollout import Frame, Latency, run_episode
from safe_vla_ros.sim.tasks import BOWLS, PLATE, SPATIAL, TASKS, get_task, split_name, task_name
from safe_vla_ros.types import Observation
from safe_vla_ros.whole_files import write_json

if TYPE_CHECKING:
    from safe_vla_ros.types import BoolArray, Float32Array, Float64Array, UInt8Array

ASKED, OTHER, PLATE_NAME, GRIPPER = 'asked bowl', 'other bowl', 'plate', 'gripper'
THINGS = (ASKED, OTHER, PLATE_NAME, GRIPPER)
OWN_SENTENCE, OTHER_SENTENCE = 'own sentence', 'sentence for the other bowl'
_GRIPPER_BODIES = 'gripper0_'
_RISEN_M = 0.01
_PICTURE_SCALE = 2
_CAPTION_PX = 28


@dataclass(frozen=True)
class Look:
    """One frame, and what the policy looks at in it.

    Attributes:
        task: Name of the task.
        sentence: ``OWN_SENTENCE`` or ``OTHER_SENTENCE``.
        told: The sentence itself.
        saliency: By camera, float32 [layers, rows, columns].
        cover: By camera and thing, the share of each token's patch that shows it, [rows, columns].
        images: By camera, uint8 [H, W, 3].
        asked: By camera, which pixels show the asked bowl, bool [H, W].
    """

    task: str
    sentence: str
    told: str
    saliency: dict[str, Float32Array]
    cover: dict[str, dict[str, Float32Array]]
    images: dict[str, UInt8Array]
    asked: dict[str, BoolArray]


def geoms_by_thing(model: Any, *, other_asked: bool) -> dict[str, list[int]]:
    """Return the numbers of the geoms that ``THINGS`` are made of.

    Args:
        model: The scene's ``mujoco.MjModel``.
        other_asked: Whether it is asked for the second bowl.
    """
    asked, other = BOWLS[::-1] if other_asked else BOWLS
    roots = {ASKED: asked, OTHER: other, PLATE_NAME: PLATE}
    bodies = {thing: model.body(f'{name}_main').id for thing, name in roots.items()}
    found: dict[str, list[int]] = {thing: [] for thing in THINGS}
    for geom, body in enumerate(model.geom_bodyid):
        for thing, root in bodies.items():
            if model.body_rootid[body] == root:
                found[thing].append(geom)
        if model.body(body).name.startswith(_GRIPPER_BODIES):
            found[GRIPPER].append(geom)
    return found


def patch_cover(mask: BoolArray, grid: tuple[int, int]) -> Float32Array:
    """Return the share of each token's patch that a mask covers.

    Args:
        mask: bool [H, W], of the whole image.
        grid: Rows and columns of tokens.

    Returns:
        float32 [rows, columns], 0..1.
    """
    rows, columns = grid
    shrunk = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.float32)


class LookRecorder:
    """Listens to the frames of an episode and keeps a look at every few before the grasp."""

    def __init__(self, policy: MiniPolicy, renderer: Renderer, stride: int) -> None:
        self._policy, self._renderer, self._stride = policy, renderer, stride
        self._count = 0
        self._over = False
        self._stood_m: tuple[float, float] | None = None
        self.looks: list[Look] = []

    def __call__(self, arm: SimulatedPanda, frame: Frame, proprio: Float64Array) -> None:
        """Take a frame; see ``rollout.FrameListener``."""
        table = frame.state
        if table is None or self._over:
            return
        heights = (float(table.bowl[2]), float(table.other_bowl[2]))
        self._stood_m = self._stood_m or heights
        risen = max(now - stood for now, stood in zip(heights, self._stood_m, strict=True))
        # Once the hand has closed the grasp has begun, whatever comes of it.
        self._over = table.gap_m < OPEN_GAP_M or risen > _RISEN_M
        self._count += 1
        if not self._over and self._count % self._stride == 0:
            self._look(arm, frame, proprio)

    def _look(self, arm: SimulatedPanda, frame: Frame, proprio: Float64Array) -> None:
        suite, scene, other = split_name(arm.task.name)
        images = {camera: arm.render(camera, frame.view) for camera in CAMERA_SIZES_PX}
        shown = {camera: self._renderer.segment(frame.view, camera) for camera in images}
        headers = dict.fromkeys(images, frame.header)
        for sentence, bowl in ((OWN_SENTENCE, other), (OTHER_SENTENCE, not other)):
            told = get_task(task_name(suite, scene, other_bowl=bowl)).sentence
            saliency = self._policy.saliency_by_layer(Observation(images, told, proprio, headers))
            geoms = geoms_by_thing(arm.model, other_asked=bowl)
            masks = {
                camera: {thing: np.isin(pixels, geoms[thing]) for thing in THINGS}
                for camera, pixels in shown.items()
            }
            cover = {
                camera: {t: patch_cover(m, saliency[camera].shape[1:]) for t, m in things.items()}
                for camera, things in masks.items()
            }
            asked = {camera: things[ASKED] for camera, things in masks.items()}
            look = Look(arm.task.name, sentence, told, saliency, cover, images, asked)
            self.looks.append(look)


def gains(looks: list[Look], camera: str, thing: str, first_deep: int) -> dict[str, Any]:
    """Compare the share of attention on a thing with its share of the image.

    Args:
        looks: Of frames before the grasp.
        camera: The camera; shares are of its own tokens.
        thing: One of ``THINGS``.
        first_deep: The first layer that counts as deep.

    Returns:
        ``frames`` in which it is seen, its mean ``area_share`` there, and the mean share of the
        saliency on it divided by that: ``by_layer`` and, for the sum of the deep layers, ``deep``.
        None where it is never seen.
    """
    areas, shares, deep = [], [], []
    for look in looks:
        cover, saliency = look.cover[camera][thing], look.saliency[camera]
        if cover.sum() > 0.0:
            areas.append(cover.mean())
            on_it = (saliency * cover).sum((1, 2))
            total = saliency.sum((1, 2))
            shares.append(on_it / total)
            deep.append(on_it[first_deep:].sum() / total[first_deep:].sum())
    if not areas:
        return {'frames': 0, 'area_share': 0.0, 'by_layer': None, 'deep': None}
    area = float(np.mean(areas))
    return {
        'frames': len(areas),
        'area_share': area,
        'by_layer': [float(value) for value in np.mean(shares, axis=0) / area],
        'deep': float(np.mean(deep) / area),
    }


def effective_tokens(looks: list[Look]) -> list[float]:
    """Return, by layer, how many visual tokens share the attention: exp of its mean entropy."""
    entropies = []
    for look in looks:
        flat = np.concatenate([s.reshape(len(s), -1) for s in look.saliency.values()], axis=1)
        shares = flat / flat.sum(1, keepdims=True)
        entropies.append(-(shares * np.log(np.maximum(shares, 1e-12))).sum(1))
    return [float(value) for value in np.exp(np.mean(entropies, axis=0))]


def describe(looks: list[Look], first_deep: int) -> dict[str, Any]:
    """Return all figures of some looks."""
    cameras = list(looks[0].saliency)
    masses = {
        camera: np.mean([look.saliency[camera].sum((1, 2)) for look in looks], axis=0)
        for camera in cameras
    }
    return {
        'frames': len(looks),
        'cameras': {
            camera: {thing: gains(looks, camera, thing, first_deep) for thing in THINGS}
            for camera in cameras
        },
        'effective_tokens_by_layer': effective_tokens(looks),
        'attention_share_by_layer': {
            camera: [float(value) for value in mass] for camera, mass in masses.items()
        },
    }


def draw(look: Look, first_deep: int) -> UInt8Array:
    """Draw the mean saliency of the deep layers over the images, the asked bowl outlined.

    Returns:
        uint8 RGB: the cameras side by side, with the sentence below.
    """
    scores = {name: layers[first_deep:].mean(0) for name, layers in look.saliency.items()}
    shown_range = score_range(scores)
    facts = StripFacts('none', 1, 1, 1, 1, None, 0.0, False, None, 0, 0)
    pictures = []
    for name, image in look.images.items():
        size = (image.shape[1] * _PICTURE_SCALE, image.shape[0] * _PICTURE_SCALE)
        large = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
        overlay = render_overlay(
            large,
            kept_mask=np.ones(scores[name].shape, dtype=bool),
            scores=scores[name],
            facts=facts,
            shown_range=shown_range,
        )
        picture = overlay[: size[1]].copy()  # without the strip below it
        mask = cv2.resize(look.asked[name].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, (0, 0, 0), 4)
        cv2.drawContours(picture, outlines, -1, (255, 80, 80), 2)
        pictures.append(picture)
    joined = np.concatenate(pictures, axis=1)
    caption = np.zeros((_CAPTION_PX, joined.shape[1], 3), np.uint8)
    white = (255, 255, 255)
    cv2.putText(caption, look.told, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, white, 1, cv2.LINE_AA)
    return np.concatenate([joined, caption])


def watch(options: argparse.Namespace, policy: MiniPolicy) -> tuple[list[Look], int]:
    """Run the episodes; return the looks and how many episodes were solved."""
    settings = resolve_episode(policy.spec, {'policy': options.policy, 'pruning.method': 'none'})
    looks, solved = [], 0
    arm, renderer = None, None
    for task in options.tasks:
        if arm is None or renderer is None or not arm.has_task(task):
            if arm is not None and renderer is not None:
                renderer.close()
                arm.close()
            arm = SimulatedPanda(task, plain_objects=options.plain)
            renderer = Renderer(arm.model)
        arm.ask(task)
        for number in range(options.episodes):
            arm.reset(0, init_state=number)
            recorder = LookRecorder(policy, renderer, options.stride)
            result = run_episode(
                arm, policy, settings=settings, latency=Latency(), seed=number, on_frame=recorder
            )
            looks += recorder.looks
            solved += result.success
    if arm is not None and renderer is not None:
        renderer.close()
        arm.close()
    return looks, solved


def check(options: argparse.Namespace) -> dict[str, Any]:
    """Run the episodes, write the pictures and return the report.

    Raises:
        SafeVlaError: The policy does not tell what it attends to, or nothing was seen.
    """
    policy = load_bundled(options.policy)
    if not isinstance(policy, MiniPolicy):
        msg = f'{options.policy} is of the kind {policy.spec.kind}; allowed: mini'
        raise SafeVlaError(msg)
    looks, solved = watch(options, policy)
    if not looks:
        msg = 'no frame before a grasp was seen: use more episodes or a smaller stride'
        raise SafeVlaError(msg)
    first_deep = resolve_episode(policy.spec).pruning.layer
    own = [look for look in looks if look.sentence == OWN_SENTENCE]
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for task in options.tasks:
            of_task = [look for look in own if look.task == task]
            picture = draw(of_task[len(of_task) // (2 * options.episodes)], first_deep)
            path = options.pictures / f'{task.replace("/", "-")}.png'
            cv2.imwrite(str(path), picture[:, :, ::-1])
    return {
        'policy': find_policy(options.policy).name,
        'episodes': options.episodes * len(options.tasks),
        'solved': solved,
        'plain_objects': options.plain,
        'frame_stride': options.stride,
        'first_deep_layer': first_deep,
        'sentences': {
            sentence: describe([look for look in looks if look.sentence == sentence], first_deep)
            for sentence in (OWN_SENTENCE, OTHER_SENTENCE)
        },
        'tasks': {
            task: describe([look for look in own if look.task == task], first_deep)
            for task in options.tasks
            if any(look.task == task for look in own)
        },
    }


def make_markdown(report: dict[str, Any]) -> str:
    """Lay the report out as Markdown tables."""
    lines = ['', f'{report["solved"]} of {report["episodes"]} episodes solved']
    for sentence, figures in report['sentences'].items():
        layers = range(len(figures['effective_tokens_by_layer']))
        titles = [f'{sentence}: camera, thing', 'area %', *map(str, layers), 'deep']
        lines += ['', *_rows([titles, ['---'] * len(titles)])]
        for camera, things in figures['cameras'].items():
            for thing, one in things.items():
                if one['frames']:
                    numbers = [*one['by_layer'], one['deep']]
                    cells = [f'{100 * one["area_share"]:.2f}', *(f'{v:.1f}' for v in numbers)]
                    lines += _rows([[f'{camera}, {thing}', *cells]])
        for camera, shares in figures['attention_share_by_layer'].items():
            mass = (f'{100 * value:.0f} %' for value in shares)
            lines += _rows([[f'{camera}, share of all attention', '', *mass, '']])
        tokens = (f'{value:.0f}' for value in figures['effective_tokens_by_layer'])
        lines += _rows([['effective tokens', '', *tokens, '']])
    places = [(camera, thing) for camera in CAMERA_SIZES_PX for thing in THINGS]
    titles = ['deep', *(f'{camera}, {thing}' for camera, thing in places)]
    lines += ['', *_rows([titles, ['---'] * len(titles)])]
    for task, figures in report['tasks'].items():
        deep = [figures['cameras'][camera][thing]['deep'] for camera, thing in places]
        lines += _rows([[task, *('-' if value is None else f'{value:.1f}' for value in deep)]])
    return '\n'.join(lines[1:])


def _rows(rows: list[list[str]]) -> list[str]:
    return [f'| {" | ".join(row)} |' for row in rows]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.sim.attention_check',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = [name for name in TASKS if split_name(name)[0] == SPATIAL]
    parser.add_argument('--policy', default='mini_libero', help='policy: directory or bundled name')
    parser.add_argument('--tasks', nargs='+', default=tasks, metavar='TASK')
    parser.add_argument(
        '--episodes', type=int, default=5, help="episodes per task, the benchmark's first states"
    )
    parser.add_argument('--stride', type=int, default=5, help='look at every n-th frame of 20 Hz')
    parser.add_argument('--pictures', type=Path, help='folder for one picture per task')
    parser.add_argument(
        '--plain',
        action='store_true',
        help='draw things of restricted licences in one colour: for pictures that are passed on',
    )
    parser.add_argument('--out', type=Path, help='write the report to this JSON file')
    options = parser.parse_args(arguments)
    try:
        report = check(options)
    except SafeVlaError as error:
        parser.error(str(error))
    print(make_markdown(report))
    if options.out:
        write_json(options.out, report)
        print(f'\nwrote {options.out}')


if __name__ == '__main__':
    main()
