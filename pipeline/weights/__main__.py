"""The catalogue of checkpoints on the command line.

uv run -m pipeline.weights list          every entry of weights/catalogue.yaml
uv run -m pipeline.weights show NAME     the fields of one entry
uv run -m pipeline.weights check FILE    the network of a file, its SHA-256, and its entry in the catalogue
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import yaml

from pipeline import storage
from pipeline.errors import UserError
from pipeline.weights.catalogue import catalogue, catalogued, confirm, local_file
from pipeline.weights.metadata import training_images


def _list() -> int:
    width = max(map(len, catalogue()))
    for entry in catalogue().values():
        where = "shipped" if entry.shipped else "download" if entry.url else "by hand"
        joints = f"{entry.joints} joints" if entry.joints else "detector"
        print(f"{entry.name:{width}}  {entry.network:21}  {joints:10} {where:9} {entry.licence}")
    return 0


def _show(name: str) -> int:
    entry = catalogued(name)
    if entry is None:
        print(f"{name} is not in the catalogue; `list` shows the names", file=sys.stderr)
        return 2
    print(yaml.safe_dump(entry.model_dump(mode="json", exclude_none=True), sort_keys=False, width=110), end="")
    return 0


def _check(file: str) -> int:
    # Imported here: torch takes seconds to import, and `list` does not need it.
    from pipeline.pose.networks.recognition import load_pose_network
    from pipeline.runtime.network import EXPORTED_SUFFIXES
    from pipeline.weights.checkpoints import read_state_dict

    try:
        path = local_file(file)
        known = catalogued(file)
        suffix = path.suffix.lower()
        if suffix == ".weights" or (known is not None and known.joints is None):
            network = known.network if known else "darknet"
            entry = confirm(file, path, network)
            print(f"{file}: {network}; checked when it is used as --detector.weights")
        elif suffix in EXPORTED_SUFFIXES:
            entry = None
            print(f"{file}: exported network; checked when it is used as --pose.weights or --detector.weights")
        else:
            _, architecture = load_pose_network(read_state_dict(path), file)
            entry = confirm(file, path, architecture.name, architecture.num_joints)
            print(f"{file}: {architecture}")
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"sha256 {storage.file_sha256(path)}")
    print(f"catalogue: {entry.name}, {entry.licence}" if entry else "not in the catalogue")
    seen = len(training_images([file]).digests)
    print(f"trained on {seen} images, whose names evaluation compares" if seen else "training images: not stated")
    return 0


def main(argv: Sequence[str]) -> int:
    if list(argv) == ["list"]:
        return _list()
    if len(argv) == 2 and argv[0] == "show":
        return _show(argv[1])
    if len(argv) == 2 and argv[0] == "check":
        return _check(argv[1])
    print((__doc__ or "").split("\n\n", 1)[1].strip(), file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
