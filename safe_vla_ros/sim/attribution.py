"""Who made what is seen in the simulation's pictures, to be shown beside each of them."""

from __future__ import annotations

FREE = (
    'Scenes: LIBERO (Liu et al. 2023, CC BY 4.0); bowls, plate and ramekin: Google Scanned Objects '
    '(CC BY 4.0); robot: robosuite (MIT)'
)
RESTRICTED = 'box of cookies: HOPE (NVIDIA 2020, CC BY-NC-SA 4.0)'
PLAIN = 'the box is drawn without its label'


def attribution(*, plain_objects: bool) -> str:
    """Return the line that belongs beside every picture, video and recording.

    Args:
        plain_objects: Whether things of restricted licences were drawn in one colour.
    """
    return f'{FREE}; {PLAIN if plain_objects else RESTRICTED}'
