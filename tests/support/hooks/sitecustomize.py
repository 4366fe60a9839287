"""Loaded by every Python process of the tests' Ray cluster: makes its work slow or deadly, as a file tells.

The file that POSEMILL_TEST_HOOK names holds JSON: `sleep` seconds per image; `leak` bytes that decoding an image never
gives back; what the decoder does to images with certain SHA-256: `kill`, `crash`, `hang`, `devour` (memory); `broken`,
files that each let one worker's start fail and are gone then; and `pause`, a stage of STAGES in which the first process
that comes there writes its number into the file `paused`, and waits to be killed.
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
    "pipeline.pose.estimator": ("networks", "PoseEstimator.estimate"),
    "pipeline.run.tables": ("writing", "encode_part"),
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


def _decoding(told, data):
    time.sleep(told.get("sleep", 0))
    _LEAKED.append(b"x" * told.get("leak", 0))
    digest = hashlib.sha256(data).hexdigest()
    for name, act in _ACTS.items():
        if digest in told.get(name, ()):
            act()


def _loading(told):
    for path in told.get("broken", ()):
        try:
            os.remove(path)
        except FileNotFoundError:
            continue
        raise OSError("this GPU is broken")


def _pause(told):
    try:
        with open(told["paused"], "x") as file:
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
                told = json.load(file)
            if told.get("pause") == stage:
                _pause(told)
            if stage == "loading":
                _loading(told)
            if stage == "reading":
                _decoding(told, arguments[0])
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
