"""Who made what is seen in the simulation's pictures, to be shown beside each of them."""

from __future__ import annotations

FREE = (
    'Scenes: LIBERO (Liu et al. 2023, CC BY 4.0); bowls, plate and ramekin: Google Scanned Objects '
    '(CC BY 4.0); robot: robosuite (MIT)'
)
RESTRICTED = 'box of cookies: HOPE (NVIDIA, CC BY-NC-SA 4.0); cabinet: TurboSquid, terms unknown'
PLAIN = 'plain boxes stand for cookies and cabinet'


def attribution(*, plain_objects: bool) -> str:
    """Return the line that belongs beside every picture, video and recording.

    Args:
        plain_objects: Whether things of restricted licences were drawn as plain boxes.
    """
    return f'{FREE}; {PLAIN if plain_objects else RESTRICTED}'
