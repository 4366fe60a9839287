"""Loaded by every Python process of the tests' Ray cluster: slows its work down or kills it, as a file says.

The file named by POSEMILL_TEST_HOOK holds JSON: `sleep`, seconds per image; `leak`, bytes that decoding an image never
frees; `kill`, `crash`, `hang`, `devour` (memory), SHA-256 digests of images, or of the first packets of groups of
pictures, whose decoding does that; `broken`, files
that each let one worker fail to start and are deleted then; and `pause`, a stage of STAGES in which the first process
that reaches it writes its number into the file `paused` and waits to be killed.
"""

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder

STAGES = {
    "pipeline.fleet.worker": ("loading", "_take_gpus"),
    "pipeline.images": ("reading", "decode_image"),
    "pipeline.sources.video.group": ("group", "GroupOfPictures._check"),
    "pipeline.pose.estimator": ("networks", "PoseEstimator.estimate"),
    "pipeline.run.tables": ("writing", "encode_part"),
    "pipeline.tracking.association": ("tracking", "track_people"),
    "pipeline.storage.objects": ("committing", "_rename_into_place"),
}
_LEAKED = []


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _crash():
    ctypes.string_at(0)


def _hang():
    ctypes.PyDLL(None).sleep(3600)  # and keeps the interpreter, as a bad extension would


def _devour():
    while True:
        _LEAKED.append(b"x" * (16 << 20))


_ACTS = {"kill": _kill, "crash": _crash, "hang": _hang, "devour": _devour}
_HOOK = os.environ.get("POSEMILL_TEST_HOOK")


def _decoding(behaviour, data):
    time.sleep(behaviour.get("sleep", 0))
    _LEAKED.append(b"x" * behaviour.get("leak", 0))
    digest = hashlib.sha256(data).hexdigest()
    for name, act in _ACTS.items():
        if digest in behaviour.get(name, ()):
            act()


def _loading(behaviour):
    for path in behaviour.get("broken", ()):
        try:
            os.remove(path)
        except FileNotFoundError:
            continue
        raise OSError("this GPU is broken")


def _pause(behaviour):
    try:
        with open(behaviour["paused"], "x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return
    time.sleep(120)


class _Patch(Loader):
    def __init__(self, loader, stage, name):
        self._loader, self._stage, self._name = loader, stage, name

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        *owner, name = self._name.split(".")
        holder = getattr(module, owner[0]) if owner else module
        real, stage = getattr(holder, name), self._stage

        def patched(*arguments):
            with open(_HOOK) as file:
                behaviour = json.load(file)
            if behaviour.get("pause") == stage:
                _pause(behaviour)
            if stage == "loading":
                _loading(behaviour)
            if stage == "reading":
                _decoding(behaviour, arguments[0])
            if stage == "group":
                _decoding(behaviour, bytes(arguments[0].packets[0]))
            return real(*arguments)

        setattr(holder, name, patched)


class _Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in STAGES:
            return None
        spec = PathFinder.find_spec(name, path)
        spec.loader = _Patch(spec.loader, *STAGES[name])
        return spec


if _HOOK:
    sys.meta_path.insert(0, _Finder())
