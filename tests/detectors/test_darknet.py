import math
import re

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import descriptions
from support.paths import SHARED, needs_models
from torch import Tensor

from pipeline.detectors import build_detector, yolov3_spp
from pipeline.detectors.darknet import Darknet, DarknetError, parse_cfg
from pipeline.detectors.darknet_detector import DarknetDetector, load_darknet
from pipeline.runtime.device import Compute
from pipeline.settings.tree import DetectorSettings

TINY = """
[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation={activation}
[convolutional]
batch_normalize=1
filters=8
groups=4
size=3
stride=1
pad=1
activation=leaky
[shortcut]
from=-2
activation=linear
[maxpool]
size=2
stride=2
[convolutional]
filters=16
size=1
stride=8
activation=mish
[route]
layers=-1
groups=2
group_id=1
[upsample]
stride=2
[route]
layers=-1
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=1,2
anchors=1,2, 3,4, 5,6
classes=2
scale_x_y=1.1
"""


def weights_for(network: Darknet, seed: int = 0) -> tuple[bytes, dict[str, np.ndarray]]:
    """A .weights file, and the same values by name."""
    r = np.random.default_rng(seed)
    header = np.array([0, 2, 0, 0, 0], "<i4").tobytes()
    body, values = [], {}
    for index, layer in enumerate(network.layers):
        state = layer.state_dict()
        order = ["bn.bias", "bn.weight", "bn.running_mean", "bn.running_var", "conv.bias", "conv.weight"]
        for name in order:
            if name in state:
                value = r.uniform(0.2, 1, state[name].shape).astype("<f4")
                if name == "conv.weight":
                    value = value - 0.6
                values[f"{index}.{name}"] = value
                body.append(value.tobytes())
    return header + b"".join(body), values


def test_yolov3_spp_has_the_published_size() -> None:
    network = Darknet(yolov3_spp.describe())
    assert sum(p.numel() for p in network.parameters()) == 62_998_749  # 63.0 million, as published
    assert len(network.sections) == 114
    with torch.inference_mode():
        out = network.eval()(torch.zeros(1, 3, 64, 96))
    assert out.shape == (1, 3 * (2 * 3 + 4 * 6 + 8 * 12), 85)
    cells = 19 * 19 + 38 * 38 + 76 * 76
    assert 3 * cells == 22_743


def test_weights_are_read_in_the_order_of_the_format() -> None:
    network = Darknet(TINY.format(activation="swish"))
    data, values = weights_for(network)
    network.load_darknet_weights(data)
    for index, layer in enumerate(network.layers):
        for name, tensor in layer.state_dict().items():
            if f"{index}.{name}" in values:
                np.testing.assert_array_equal(tensor.numpy(), values[f"{index}.{name}"])


@pytest.mark.parametrize("activation", ["linear", "leaky", "relu", "mish", "swish", "logistic"])
def test_a_small_network_equals_numpy(activation: str) -> None:
    """All kinds of sections, against a second implementation with loops and arrays."""
    network = Darknet(TINY.format(activation=activation)).eval()
    data, v = weights_for(network)
    network.load_darknet_weights(data)
    x = np.random.default_rng(1).random((3, 64, 64))

    def convolve(x: np.ndarray, w: np.ndarray, stride: int, pad: int, groups: int = 1) -> np.ndarray:
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        out_channels, per_group, k, _ = w.shape
        height = (x.shape[1] - k) // stride + 1
        out = np.zeros((out_channels, height, height))
        for o in range(out_channels):
            first = o // (out_channels // groups) * per_group
            for dy in range(k):
                for dx in range(k):
                    window = x[first : first + per_group, dy:, dx:][:, ::stride, ::stride][:, :height, :height]
                    out[o] += np.tensordot(w[o, :, dy, dx], window, 1)
        return out

    def normalise(x: np.ndarray, i: int) -> np.ndarray:
        beta, gamma, mean, var = (
            v[f"{i}.bn.{n}"][:, None, None] for n in ("bias", "weight", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(var + 1e-6) * gamma + beta

    def softplus(x: np.ndarray) -> np.ndarray:
        return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    activations = {
        "linear": lambda x: x,
        "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
        "relu": lambda x: np.maximum(x, 0),
        "mish": lambda x: x * np.tanh(softplus(x)),
        "swish": lambda x: x * sigmoid(x),
        "logistic": sigmoid,
    }
    a = activations[activation](normalise(convolve(x, v["0.conv.weight"], 2, 1), 0))
    b = activations["leaky"](normalise(convolve(a, v["1.conv.weight"], 1, 1, 4), 1)) + a
    padded = np.pad(b, ((0, 0), (0, 1), (0, 1)), constant_values=-np.inf)
    c = np.max([padded[:, dy : 32 + dy : 2, dx : 32 + dx : 2] for dy in (0, 1) for dx in (0, 1)], axis=0)
    d = activations["mish"](convolve(c, v["4.conv.weight"], 8, 0) + v["4.conv.bias"][:, None, None])[8:]
    e = d.repeat(2, axis=1).repeat(2, axis=2)
    raw = convolve(e, v["8.conv.weight"], 1, 0) + v["8.conv.bias"][:, None, None]
    expected = []
    for row in range(4):
        for column in range(4):
            for anchor, (aw, ah) in enumerate([(3, 4), (5, 6)]):
                t = raw[7 * anchor : 7 * anchor + 7, row, column]
                cx = (sigmoid(t[0]) * 1.1 - 0.05 + column) * 16
                cy = (sigmoid(t[1]) * 1.1 - 0.05 + row) * 16
                expected.append([cx, cy, math.exp(t[2]) * aw, math.exp(t[3]) * ah, *sigmoid(t[4:])])
    with torch.inference_mode():
        got = network(torch.from_numpy(x[None]).float())[0].numpy()
    np.testing.assert_allclose(got, np.array(expected), rtol=2e-3, atol=2e-4)


def test_max_pooling_with_stride_1_keeps_the_size() -> None:
    cfg = TINY.format(activation="leaky").replace("size=2\nstride=2", "size=5\nstride=1")
    network = Darknet(cfg)
    x = torch.rand(1, 8, 9, 9)
    assert network.layers[3](x).shape == x.shape
    assert network.layers[3](x)[0, 0, 4, 4] == x[0, 0, 2:7, 2:7].max()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (TINY.format(activation="gelu"), "activation is 'gelu'; known: linear"),
        (TINY.format(activation="leaky").replace("[maxpool]", "[reorg3d]"), r"section 3 is \[reorg3d\]"),
        (TINY.format(activation="leaky").replace("from=-2", "from=-9"), "from -9 is not an earlier section"),
        (
            TINY.format(activation="leaky").replace("filters=14", "filters=15"),
            "its input has 15 channels; 2 anchors of 2",
        ),
        (TINY.format(activation="leaky").replace("filters=8\n", "", 1), "section 0 .*filters"),
        ("[convolutional]\nfilters=1", r"does not start with a \[net\] section"),
        (
            "[net]\nwidth=1\n[convolutional]\nfilters=1\nsize=1\nactivation=linear",
            r"has no \[yolo\] or \[distances\] section",
        ),
        ("[net]\nnonsense", "line 2"),
    ],
)
def test_a_wrong_description_is_refused(broken: str, message: str) -> None:
    with pytest.raises(DarknetError, match=message):
        Darknet(broken)


def test_weights_of_another_network_are_refused(tmp_path) -> None:
    network = Darknet(TINY.format(activation="leaky"))
    data, _ = weights_for(network)
    (tmp_path / "x.cfg").write_text(TINY.format(activation="leaky"))
    (tmp_path / "x.weights").write_bytes(data + b"\0" * 40)
    with pytest.raises(
        DarknetError, match=r"x\.cfg with .*x\.weights: .*has \d+ values, but the description needs \d+"
    ):
        load_darknet(str(tmp_path / "x.cfg"), tmp_path / "x.weights")
    with pytest.raises(DarknetError, match="has 3 bytes; its header alone needs 20"):
        network.load_darknet_weights(b"123")


def test_comments_and_spaces_are_skipped() -> None:
    assert parse_cfg("# c\n[net]\n width = 32 # w\n; c\n\n[yolo]\nmask = 0, 1") == [
        {"type": "net", "width": "32"},
        {"type": "yolo", "mask": "0, 1"},
    ]


@pytest.fixture(scope="module")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory) -> DetectorSettings:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "x.cfg").write_text(
        TINY.format(activation="leaky").replace("classes=2", "classes=1").replace("filters=14", "filters=12")
    )
    network = Darknet((folder / "x.cfg").read_text())
    (folder / "x.weights").write_bytes(weights_for(network)[0])
    return DetectorSettings(
        name="darknet",
        cfg=str(folder / "x.cfg"),
        weights=str(folder / "x.weights"),
        input_size=64,
        batch=4,
        confidence=0.01,
    )


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_results_do_not_depend_on_the_batch(tiny_settings: DetectorSettings, precision: str) -> None:
    detector = build_detector(tiny_settings, Compute.resolve("cpu", precision))  # type: ignore[arg-type]
    assert detector is not None
    r = np.random.default_rng(0)
    images = [r.integers(0, 256, (50 + 7 * i, 80 - 5 * i, 3), dtype=np.uint8) for i in range(4)]
    together = detector.detect(images)
    alone = [detector.detect([image])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a.xyxy, b.xyxy)
        np.testing.assert_array_equal(a.scores, b.scores)


def test_a_darknet_without_weights_is_refused() -> None:
    with pytest.raises(DarknetError, match=r"--detector\.name darknet needs --detector\.weights"):
        build_detector(DetectorSettings(cfg="yolov4.cfg"), Compute.resolve("cpu"))


# Sizes of the published weights files: a header of 20 bytes, and the values that the description needs.
@pytest.mark.parametrize(
    ("describe", "file_bytes", "strides", "anchors"),
    [
        (descriptions.yolov3, 248_007_048, (32, 16, 8), 3),
        (yolov3_spp.describe, 252_209_544, (32, 16, 8), 3),
        (descriptions.yolov3_tiny, 35_434_956, (32, 16), 3),
        (descriptions.yolov4, 257_717_640, (8, 16, 32), 3),
        (descriptions.yolov4_tiny, 24_251_276, (32, 16), 3),
    ],
    ids=["yolov3", "yolov3-spp", "yolov3-tiny", "yolov4", "yolov4-tiny"],
)
def test_well_known_networks_parse_and_run(describe, file_bytes: int, strides: tuple[int, ...], anchors: int) -> None:
    torch.manual_seed(0)
    network = Darknet(describe()).eval()
    statistics = sum(b.numel() for name, b in network.named_buffers() if "num_batches" not in name)
    assert 20 + 4 * (sum(p.numel() for p in network.parameters()) + statistics) == file_bytes
    x = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        plain = network(x)
        folded = Compute.resolve("cpu", "float32").prepare(network)(x)
    assert plain.shape == (2, sum(anchors * (64 // s) * (96 // s) for s in strides), 85)
    assert torch.isfinite(plain).all()
    torch.testing.assert_close(folded, plain, rtol=1e-3, atol=1e-3)


@needs_models
def test_folding_does_not_change_the_output_with_published_weights() -> None:
    models = SHARED / "models"
    network = load_darknet(str(models / "yolo-fastest-1.1-xl.cfg"), models / "yolo-fastest-1.1-xl.weights").eval()
    assert network.size == (320, 320)
    x = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = network(x)
        folded = Compute.resolve("cpu", "float32").prepare(network)(x)
    assert plain.shape == (1, 3 * (10 * 10 + 20 * 20), 85)
    torch.testing.assert_close(folded, plain, atol=2e-3, rtol=1e-3)


def run(cfg: str, x: Tensor, **values: Tensor) -> Tensor:
    """The map before the yolo layer, of a description with one convolution at the start."""
    network = Darknet(cfg).eval()
    with torch.no_grad():
        for name, value in values.items():
            network.get_parameter(name.replace("_", ".")).copy_(value)
        outputs: dict[int, Tensor] = {}
        for index in range(len(network.sections) - 1):
            x = network._run(index, x, outputs, [], x.shape[2])
    return x


NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
CONVOLUTION = "[convolutional]\nfilters={filters}\nsize={size}\npad=1\nactivation=linear\n"
END = "[yolo]\nanchors=1,2\nclasses=1\n"


def test_a_dilated_convolution_reaches_farther() -> None:
    cfg = NET + CONVOLUTION.format(filters=6, size=3) + "dilation=2\n" + END
    x = torch.rand(1, 3, 32, 32)
    weight = torch.zeros(6, 3, 3, 3)
    weight[:, 1, 0, 2] = 1  # one row up, one column right
    out = run(cfg, x, layers_0_conv_weight=weight, layers_0_conv_bias=torch.zeros(6))
    assert out.shape == (1, 6, 32, 32)
    torch.testing.assert_close(out[0, 0, 2:, :-2], x[0, 1, :-2, 2:])
    assert (out[0, 0, :2] == 0).all()


def test_strides_of_rows_and_columns_may_differ() -> None:
    x = torch.rand(1, 3, 32, 32)
    convolution = CONVOLUTION.format(filters=6, size=1) + "stride=4\nstride_x=2\n" + END
    weight = torch.zeros(6, 3, 1, 1)
    weight[:, 2] = 1
    out = run(NET + convolution, x, layers_0_conv_weight=weight, layers_0_conv_bias=torch.zeros(6))
    torch.testing.assert_close(out[0, 0], x[0, 2, ::4, ::2])
    pool = "[maxpool]\nsize=1\nstride_y=2\nstride_x=4\n" + CONVOLUTION.format(filters=6, size=1) + END
    out = run(NET + pool, x, layers_1_conv_weight=weight, layers_1_conv_bias=torch.zeros(6))
    torch.testing.assert_close(out[0, 0], x[0, 2, ::2, ::4])


def test_upsampled_maps_are_multiplied_by_their_scale() -> None:
    cfg = NET + CONVOLUTION.format(filters=6, size=1) + "[upsample]\nstride=2\nscale=0.5\n" + END
    x = torch.rand(1, 3, 32, 32)
    weight = torch.ones(6, 3, 1, 1)
    out = run(cfg, x, layers_0_conv_weight=weight, layers_0_conv_bias=torch.zeros(6))
    torch.testing.assert_close(out[0, 0, ::2, 1::2], x[0].sum(0) / 2)


@pytest.mark.parametrize(("first", "second"), [(4, 6), (8, 6)])
def test_a_shortcut_adds_the_channels_that_both_maps_have(first: int, second: int) -> None:
    one, two = (CONVOLUTION.format(filters=count, size=1) for count in (first, second))
    cfg = NET + one + two + "[shortcut]\nfrom=-2\nactivation=linear\n" + END
    out = run(
        cfg,
        torch.rand(1, 3, 32, 32),
        layers_0_conv_weight=torch.zeros(first, 3, 1, 1),
        layers_0_conv_bias=torch.arange(1.0, first + 1),
        layers_1_conv_weight=torch.zeros(second, first, 1, 1),
        layers_1_conv_bias=torch.full((second,), 100.0),
    )
    assert out[0, :, 0, 0].tolist() == [100.0 + (c + 1 if c < first else 0) for c in range(second)]


@pytest.mark.parametrize(
    ("section", "option"),
    [
        ("convolutional", "antialiasing=1"),
        ("convolutional", "share_index=0"),
        ("convolutional", "xnor=1"),
        ("convolutional", "binary=1"),
        ("convolutional", "flipped=1"),
        ("maxpool", "maxpool_depth=1"),
        ("maxpool", "out_channels=4"),
        ("shortcut", "weights_type=per_channel"),
        ("upsample", "mode=bilinear"),
        ("route", "some_new_option=3"),
    ],
)
def test_options_that_change_the_computation_are_refused(section: str, option: str) -> None:
    cfg = TINY.format(activation="leaky")
    at = cfg.index(f"[{section}]") + len(section) + 3
    name = option.split("=")[0]
    with pytest.raises(DarknetError, match=rf"section \d+ \[{section}\]: {option} is not supported"):
        Darknet(cfg[:at] + option + "\n" + cfg[at:])
    if name != "share_index":
        Darknet(cfg[:at] + f"{name}=0\n" + cfg[at:])


def test_maps_of_different_sizes_are_refused_by_their_section() -> None:
    one, two = (CONVOLUTION.format(filters=6, size=1) + f"stride={stride}\n" for stride in (1, 2))
    for section, end in (("shortcut", "[shortcut]\nfrom=-2\n"), ("route", "[route]\nlayers=-1,-2\n")):
        fit = CONVOLUTION.format(filters=6, size=1)
        with pytest.raises(DarknetError, match=rf"^section 2 \[{section}\]: maps of 16x16x6, .*32x32x6.* do not fit"):
            Darknet(NET + one + two + end + fit + END)
    with pytest.raises(DarknetError, match="channels is 1; only networks for RGB images"):
        Darknet(TINY.format(activation="leaky").replace("channels=3", "channels=1"))


@pytest.mark.parametrize(
    ("in_cfg", "setting", "stretched"),
    [(None, None, False), (0, None, True), (1, None, False), (None, False, True), (0, True, False), (1, False, True)],
)
def test_images_are_stretched_if_the_description_or_the_setting_says_so(
    in_cfg: int | None, setting: bool | None, stretched: bool
) -> None:
    line = "" if in_cfg is None else f"letter_box={in_cfg}\n"
    cfg = NET + line + CONVOLUTION.format(filters=6, size=1) + END
    settings = DetectorSettings(letterbox=setting, batch=1)
    detector = DarknetDetector.of(Darknet(cfg), settings, Compute.resolve("cpu", "float32"))
    detector.detect([np.full((32, 64, 3), 255, np.uint8)])
    _, pixels = detector._inputs.fill([])  # as they were
    grey_rows = (pixels[0] == 128).all(dim=0).all(dim=1)
    assert int(grey_rows.sum()) == (0 if stretched else 16)


@pytest.mark.parametrize(("classes", "setting", "person"), [(1, None, 0), (80, None, 0), (20, 14, 14), (80, 5, 5)])
def test_the_person_class_of_a_network(classes: int, setting: int | None, person: int) -> None:
    cfg = NET + CONVOLUTION.format(filters=5 + classes, size=1) + END.replace("classes=1", f"classes={classes}")
    settings = DetectorSettings(person_class=setting, batch=1)
    detector = DarknetDetector.of(Darknet(cfg), settings, Compute.resolve("cpu", "float32"))
    assert detector._person == person


@pytest.mark.parametrize(
    ("classes", "setting", "message"),
    [
        (20, None, "has 20 classes, .* set --detector.person_class"),
        (20, 20, "person_class is 20, but the network has 20"),
    ],
)
def test_an_unknown_person_class_is_refused(classes: int, setting: int | None, message: str) -> None:
    cfg = NET + CONVOLUTION.format(filters=5 + classes, size=1) + END.replace("classes=1", f"classes={classes}")
    with pytest.raises(DarknetError, match=message):
        DarknetDetector.of(Darknet(cfg), DetectorSettings(person_class=setting), Compute.resolve("cpu", "float32"))


def test_groups_are_taken_from_each_map_of_a_route() -> None:
    one, two, three = (CONVOLUTION.format(filters=count, size=1) for count in (4, 8, 6))
    cfg = NET + one + two + "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=1\n" + three + END
    network = Darknet(cfg)
    x, outputs = torch.rand(1, 3, 32, 32), {}
    a = network._run(0, x, outputs, [], 32)
    b = network._run(1, a, outputs, [], 32)
    route = network._run(2, b, outputs, [], 32)
    assert torch.equal(route, torch.cat([b[:, 4:], a[:, 2:]], dim=1))


def test_the_padding_of_a_pool_is_the_usual_one_or_refused() -> None:
    pool, fit = "[maxpool]\nsize=3\nstride=1\npadding={}\n", CONVOLUTION.format(filters=6, size=1)
    Darknet(NET + pool.format(2) + fit + END)
    with pytest.raises(DarknetError, match=r"section 0 \[maxpool\]: padding=0 is not supported"):
        Darknet(NET + pool.format(0) + fit + END)


def test_an_input_size_that_does_not_fit_is_refused_at_load() -> None:
    halves = "".join(CONVOLUTION.format(filters=6, size=3) + "stride=2\n" for _ in range(6))
    cfg = (
        NET.replace("32", "64")
        + halves
        + "[upsample]\nstride=64\n[shortcut]\nfrom=-8\n"
        + CONVOLUTION.format(filters=6, size=1)
        + END
    )
    cfg = cfg.replace("from=-8", "from=-7").replace("stride=64", "stride=32")
    compute = Compute.resolve("cpu", "float32")
    DarknetDetector.of(Darknet(cfg), DetectorSettings(batch=1, input_size=64), compute)
    with pytest.raises(DarknetError, match=r"section 7 \[shortcut\]: maps of .* do not fit"):
        DarknetDetector.of(Darknet(cfg), DetectorSettings(batch=1, input_size=96), compute)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(
                "[convolutional]\nfilters=2\nsize={}\nstride_y={}\nstride_x={}\npad={}\nactivation=linear\n".format,
                st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1),
            ),
            st.builds("[maxpool]\nsize={}\nstride={}\n".format, st.integers(1, 5), st.integers(1, 3)),
            st.just("[upsample]\nstride=2\n"),
            st.builds("[local_avgpool]\nsize={}\nstride={}\n".format, st.integers(1, 3), st.integers(1, 3)),
            st.builds("[shortcut]\nfrom=-{}\n".format, st.integers(2, 3)),
            st.builds("[route]\nlayers=-1,-{}\n".format, st.integers(2, 3)),
        ),
        max_size=6,
    ),
    st.integers(1, 40),
    st.integers(1, 40),
)  # fmt: skip
def test_sizes_are_those_of_a_run(sections: list[str], height: int, width: int) -> None:
    """A network accepts a size if torch runs it on an image of this size, and otherwise refuses it."""
    fit = CONVOLUTION.format(filters=6, size=1)
    try:
        network = Darknet(NET + fit + fit + fit + "".join(sections) + fit + END).eval()
    except DarknetError:
        assume(False)
    try:
        network.check_size(height, width)
    except DarknetError as error:
        assume(not re.search(r"\b1x|x1x", str(error)))  # torch repeats maps of one row or column, Darknet does not
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 3, height, width))
    else:
        assert torch.isfinite(network(torch.zeros(1, 3, height, width))).all()
