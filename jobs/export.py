"""Export a pose network or a Darknet detector to a file for other runtimes, with everything that its use depends on.

examples:
  uv run jobs/export.py --pose.weights weights/fastpose_lite0_coco17.safetensors
  uv run jobs/export.py --detector.weights nanodet_g_person --input my/photos --precision int8 --output out/export

The exported file is compared with the network on real images, and not written if it differs, or if fewer bits cost more
accuracy than allowed. annotate runs ONNX files: --pose.weights FILE.onnx, or --detector.weights FILE.onnx.
exit code: 0 exported, 1 the exported file differs from the network, 2 wrong settings
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline import storage
from pipeline.errors import UserError
from pipeline.export.settings import ExportSettings
from pipeline.settings.flags import parse_settings

DEMO = Path(__file__).resolve().parents[1] / "configs" / "demo" / "photos"


def main(argv: Sequence[str]) -> int:
    settings = parse_settings(argv, __doc__ or "", kind=ExportSettings).with_absolute_paths()
    # Imported here: a wrong flag is reported before torch, which takes seconds, is loaded.
    from pipeline.export.detector import detector_to_export, people_in
    from pipeline.export.exported import export_network
    from pipeline.export.images import read_images
    from pipeline.export.parity import ExportDiffers
    from pipeline.export.pose import pose_to_export

    try:
        images = read_images(settings.input or str(DEMO), settings.images)
        networks = {}
        if settings.pose.weights is not None:
            networks["pose"] = pose_to_export(settings, images, people_in(images))
        if settings.detector.weights is not None:
            networks["detector"] = detector_to_export(settings, images)
        if len({network.name for network in networks.values()}) < len(networks):
            raise UserError("the files of --pose.weights and --detector.weights have the same name; export them apart")
        exported = {k: export_network(network, settings.format, settings.precision) for k, network in networks.items()}
        for name, data in [file for network in exported.values() for file in network.files.items()]:
            storage.write_bytes(storage.join(settings.output, name), data)
        report = {network.name: network.to_json() for network in exported.values()}
        storage.write_bytes(storage.join(settings.output, "export.json"), json.dumps(report, indent=2).encode())
    except ExportDiffers as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    except (UserError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    for kind, network in exported.items():
        flag = f"--{kind}.weights " if settings.format != "openvino" else ""  # annotate does not run OpenVINO's files
        print(f"{network.metadata['network']}: {flag}{storage.join(settings.output, network.name)}")
        for line in (network.accuracy or network.differences, network.speed):
            print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
