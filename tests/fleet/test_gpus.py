"""GPUs as Ray assigns them; runs on machines without one."""

from pathlib import Path

import pytest
import torch
from support.cluster import flags, start_cluster


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA can use the GPU here")
def test_a_gpu_that_cuda_cannot_use_is_an_error_and_not_replaced_by_the_cpu(photos: Path, tmp_path: Path) -> None:
    with start_cluster(tmp_path, gpus=1) as cluster:
        output = cluster.run("annotate", *flags(photos, tmp_path / "run"), code=1)
        assert "a worker could not start: CUDA" in output
        assert "cannot use the GPU that Ray assigned" in output
        assert "set --compute.device cpu" in output
        output = cluster.run("annotate", *flags(photos, tmp_path / "run2"), "--compute.device=cpu")
        assert "36 images" in output
