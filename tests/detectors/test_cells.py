import torch

from pipeline.detectors.cells import cell_grid


def test_cells_of_an_input_that_is_wider_than_high() -> None:
    grid = cell_grid(64, 96, 32)
    assert grid.tolist() == [[16, 16, 32], [48, 16, 32], [80, 16, 32], [16, 48, 32], [48, 48, 32], [80, 48, 32]]
    assert grid.dtype == torch.float32
