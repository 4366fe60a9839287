"""Posemill: image collections in, human keypoint tables out."""

import os

# Read when ray is imported. Under `uv run` Ray would start every worker through uv again and copy the project for it;
# the workers of a local cluster share this environment, and a cluster's nodes have theirs.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
