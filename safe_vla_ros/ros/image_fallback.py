"""cv_bridge for image encodings that this package does not decode itself, where it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import Image as ImageMessage

if TYPE_CHECKING:
    from safe_vla_ros.runtime.image_decoding import Fallback, RawImage
    from safe_vla_ros.types import UInt8Array


def cv_bridge_decoder() -> Fallback | None:
    """Return a decoder that asks cv_bridge, or None where it cannot be imported.

    cv_bridge built for another NumPy raises whatever it likes when it is imported.
    """
    try:
        from cv_bridge import CvBridge  # noqa: PLC0415

        bridge = CvBridge()
    except Exception:
        return None

    def decode(image: RawImage) -> UInt8Array:
        message: Any = ImageMessage(
            encoding=image.encoding,
            height=image.height,
            width=image.width,
            step=image.step,
            is_bigendian=int(image.is_bigendian),
            data=image.data,
        )
        return np.asarray(bridge.imgmsg_to_cv2(message, 'rgb8'))

    return decode
