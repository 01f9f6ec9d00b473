import pytest

from recipes.datasets.images import Images, open_images


@pytest.fixture(scope="module")
def digits() -> tuple[Images, Images]:
    """The bundled ones: the train and the test part."""
    train_set, test_set = open_images()
    assert isinstance(train_set, Images)
    assert isinstance(test_set, Images)
    return train_set, test_set
