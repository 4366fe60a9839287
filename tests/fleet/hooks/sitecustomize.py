"""Loaded by every Python process of the tests' Ray cluster: makes decoding slow or deadly, as a file tells.

The file that POSEMILL_TEST_HOOK names holds JSON: `sleep` seconds per image; `leak` bytes that decoding an image never
gives back; and what the decoder does to images with certain SHA-256: `kill`, `crash`, `hang`, `devour` (memory).
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


class _Patch(Loader):
    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        real = module.decode_image

        def decode_image(data, *arguments):
            with open(_HOOK) as file:
                told = json.load(file)
            time.sleep(told.get("sleep", 0))
            _LEAKED.append(b"x" * told.get("leak", 0))
            digest = hashlib.sha256(data).hexdigest()
            for name, act in _ACTS.items():
                if digest in told.get(name, ()):
                    act()
            return real(data, *arguments)

        module.decode_image = decode_image


class _Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "pipeline.images":
            return None
        spec = PathFinder.find_spec(name, path)
        spec.loader = _Patch(spec.loader)
        return spec


if _HOOK:
    sys.meta_path.insert(0, _Finder())
