"""The Darknet description of YOLOv3-SPP: 80 classes, three scales, 22,743 predictions at 608 x 608.

Darknet-53 (Redmon and Farhadi, YOLOv3, 2018) with spatial pyramid pooling (He et al., TPAMI 2015) before its first
head. The 114 sections follow a pattern, so they are generated here instead of read from a file.
"""

from __future__ import annotations

_ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
_CLASSES = 80


def _section(name: str, **values: object) -> str:
    return "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in values.items()), ""])


def _conv(filters: int, size: int, stride: int = 1) -> str:
    return _section(
        "convolutional", batch_normalize=1, filters=filters, size=size, stride=stride, pad=1, activation="leaky"
    )


def _head(mask: str) -> list[str]:
    output = _section("convolutional", size=1, stride=1, pad=1, filters=3 * (5 + _CLASSES), activation="linear")
    return [output, _section("yolo", mask=mask, anchors=_ANCHORS, classes=_CLASSES, num=9)]


def describe(size: int = 608) -> str:
    """The text of the description, for square inputs of `size` pixels."""
    sections = [_section("net", width=size, height=size, channels=3), _conv(32, 3)]
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        sections.append(_conv(filters, 3, stride=2))
        for _ in range(blocks):
            sections += [_conv(filters // 2, 1), _conv(filters, 3)]
            sections.append(_section("shortcut", **{"from": -3, "activation": "linear"}))

    sections += [_conv(512, 1), _conv(1024, 3), _conv(512, 1)]
    sections += [_section("maxpool", stride=1, size=5), _section("route", layers=-2)]
    sections += [_section("maxpool", stride=1, size=9), _section("route", layers=-4)]
    sections += [_section("maxpool", stride=1, size=13), _section("route", layers="-1,-3,-5,-6")]
    sections += [_conv(512, 1), _conv(1024, 3), _conv(512, 1), _conv(1024, 3), *_head("6,7,8")]

    for filters, skip, mask in ((256, 61, "3,4,5"), (128, 36, "0,1,2")):
        sections += [_section("route", layers=-4), _conv(filters, 1), _section("upsample", stride=2)]
        sections.append(_section("route", layers=f"-1,{skip}"))
        for _ in range(3):
            sections += [_conv(filters, 1), _conv(2 * filters, 3)]
        sections += _head(mask)
    return "\n".join(sections)
