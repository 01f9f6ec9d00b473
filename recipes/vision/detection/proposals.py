"""Region proposals from outside the network: boxes around pixels that hang together by their colour."""

import torch
from torch import Tensor


def colour_regions(image: Tensor, steps: tuple[float, ...] = (0.1, 0.2, 0.3), least: int = 12) -> Tensor:
    """Boxes around the connected regions of a picture, the largest first.

    Two neighbouring pixels hang together if their colours differ by less than a step; what hangs together
    over any number of neighbours is a region. Several steps give regions of regions, as Selective Search
    gets by merging them (Uijlings et al., 2013).

    Args:
        image: (3, height, width) uint8.
        steps: Euclidean distances of colours in 0 to 1.
        least: regions of fewer pixels are left out.

    Returns:
        (N, 4) left, top, right, bottom, each once.
    """
    import numpy as np
    from scipy.ndimage import find_objects
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    colours = image.float().cpu().numpy() / 255
    height, width = colours.shape[1:]
    pixels = np.arange(height * width).reshape(height, width)
    first = np.concatenate([pixels[:, :-1].ravel(), pixels[:-1].ravel()])  # (pairs,) each pixel with the one
    second = np.concatenate([pixels[:, 1:].ravel(), pixels[1:].ravel()])  # to its right and the one below
    flat = colours.reshape(3, -1)
    distance = np.sqrt(((flat[:, first] - flat[:, second]) ** 2).sum(axis=0))
    found = set()
    for step in steps:
        near = distance < step
        links = coo_array((near[near], (first[near], second[near])), shape=(pixels.size, pixels.size))
        _, region = connected_components(links, directed=False)  # (height * width,)
        counts = np.bincount(region)
        for count, place in zip(counts, find_objects(region.reshape(height, width) + 1), strict=True):
            if count >= least:
                rows, columns = place
                found.add((columns.start, rows.start, columns.stop, rows.stop))
    by_size = sorted(found, key=lambda box: ((box[0] - box[2]) * (box[3] - box[1]), box))
    return torch.tensor(by_size, dtype=torch.float32).view(-1, 4)
