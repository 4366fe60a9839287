"""Descriptions of well-known Darknet networks, from their published structure."""

from __future__ import annotations

ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
TINY_ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"


class Description:
    def __init__(self, activation: str = "leaky") -> None:
        self.activation = activation
        self.lines = ["[net]", "width=416", "height=416", "channels=3"]

    def section(self, name: str, **values: object) -> Description:
        self.lines += [f"[{name}]", *(f"{key.rstrip('_')}={value}" for key, value in values.items())]
        return self

    def conv(self, filters: int, size: int, stride: int = 1) -> Description:
        options = {"batch_normalize": 1, "filters": filters, "size": size, "stride": stride, "pad": 1}
        return self.section("convolutional", **options, activation=self.activation)

    def convs(self, *filters_and_sizes: tuple[int, int]) -> Description:
        for filters, size in filters_and_sizes:
            self.conv(filters, size)
        return self

    def route(self, *layers: int, **options: int) -> Description:
        return self.section("route", layers=",".join(map(str, layers)), **options)

    def residual(self, inner: int, outer: int, count: int) -> Description:
        for _ in range(count):
            self.convs((inner, 1), (outer, 3)).section("shortcut", from_=-3, activation="linear")
        return self

    def yolo(self, mask: str, anchors: str = ANCHORS, scale: float = 1.0) -> Description:
        self.section("convolutional", size=1, stride=1, pad=1, filters=255, activation="linear")
        return self.section("yolo", mask=mask, anchors=anchors, classes=80, num=9, scale_x_y=scale)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def yolov3() -> str:
    d = Description().conv(32, 3)
    for filters, count in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        d.conv(filters, 3, 2).residual(filters // 2, filters, count)
    for filters, mask, skip in ((512, "6,7,8", None), (256, "3,4,5", 61), (128, "0,1,2", 36)):
        if skip:
            d.route(-4).conv(filters, 1).section("upsample", stride=2).route(-1, skip)
        d.convs(*[(filters, 1), (2 * filters, 3)] * 3).yolo(mask)
    return str(d)


def yolov3_tiny() -> str:
    d = Description()
    for filters in (16, 32, 64, 128, 256):
        d.conv(filters, 3).section("maxpool", size=2, stride=2)
    d.conv(512, 3).section("maxpool", size=2, stride=1)
    d.convs((1024, 3), (256, 1), (512, 3)).yolo("3,4,5", TINY_ANCHORS)
    d.route(-4).conv(128, 1).section("upsample", stride=2).route(-1, 8)
    return str(d.conv(256, 3).yolo("0,1,2", TINY_ANCHORS))


def yolov4() -> str:
    d = Description("mish").conv(32, 3)
    d.conv(64, 3, 2).conv(64, 1).route(-2).conv(64, 1).residual(32, 64, 1).conv(64, 1).route(-1, -7).conv(64, 1)
    for filters, count in ((128, 2), (256, 8), (512, 8), (1024, 4)):
        half = filters // 2
        d.conv(filters, 3, 2).conv(half, 1).route(-2).conv(half, 1).residual(half, half, count)
        d.conv(half, 1).route(-1, -(3 * count + 4)).conv(filters, 1)
    d.activation = "leaky"
    d.convs((512, 1), (1024, 3), (512, 1)).section("maxpool", stride=1, size=5).route(-2)
    d.section("maxpool", stride=1, size=9).route(-4).section("maxpool", stride=1, size=13).route(-1, -3, -5, -6)
    d.convs((512, 1), (1024, 3), (512, 1))
    for filters, skip in ((256, 85), (128, 54)):
        d.conv(filters, 1).section("upsample", stride=2).route(skip).conv(filters, 1).route(-1, -3)
        d.convs(*[(filters, 1), (2 * filters, 3)] * 2, (filters, 1))
    d.conv(256, 3).yolo("0,1,2", scale=1.2)
    for filters, back, mask, scale in ((256, -16, "3,4,5", 1.1), (512, -37, "6,7,8", 1.05)):
        d.route(-4).conv(filters, 3, 2).route(-1, back)
        d.convs(*[(filters, 1), (2 * filters, 3)] * 3).yolo(mask, scale=scale)
    return str(d)


def yolov4_tiny() -> str:
    d = Description().conv(32, 3, 2).conv(64, 3, 2)
    for filters in (64, 128, 256):
        d.conv(filters, 3).route(-1, groups=2, group_id=1).convs((filters // 2, 3), (filters // 2, 3)).route(-1, -2)
        d.conv(filters, 1).route(-6, -1).section("maxpool", size=2, stride=2)
    d.convs((512, 3), (256, 1), (512, 3)).yolo("3,4,5", TINY_ANCHORS, 1.05)
    d.route(-4).conv(128, 1).section("upsample", stride=2).route(-1, 23)
    return str(d.conv(256, 3).yolo("1,2,3", TINY_ANCHORS, 1.05))


# Three convolutions, and one box per cell of 16 pixels.
TINY_DETECTOR = """[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=16
size=3
stride=4
pad=1
activation=leaky
[convolutional]
filters=6
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0
anchors=32,32
classes=1
num=1
scale_x_y=2
"""
