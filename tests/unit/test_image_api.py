from __future__ import annotations

from pathlib import Path

import pytest

from novactl.api import images
from novactl.api.images import CreateImage
from novactl.cluster import Cluster
from novactl.errors import NotFound, UsageError
from tests.images import corpus
from tests.images.conftest import cluster, empty_data_dir  # noqa: F401  (fixtures)


def test_the_life_of_an_image(cluster: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """Created, listed, shown by name and by the beginning of its id, deleted."""
    source = tmp_path / "d.qcow2"
    source.write_bytes(corpus.qcow2())
    image = images.create(cluster, CreateImage(name="debian", source=str(source), architecture="amd64"))
    assert image.architecture == "x86_64"
    assert images.list_images(cluster) == (image,)
    assert images.show(cluster, "debian") == images.show(cluster, image.id[:8]) == image
    assert images.delete(cluster, "debian", dry_run=True) == image
    assert images.delete(cluster, image.id) == image
    assert images.list_images(cluster) == ()
    with pytest.raises(NotFound):
        images.delete(cluster, "debian")


@pytest.mark.parametrize("changes", [
    {"name": "../../etc/passwd"}, {"name": "a/b"}, {"name": "x\0"}, {"name": ""}, {"architecture": "vax"},
    {"disk_format": "vmdk"}, {"checksum": "sha256:xyz"},
])
def test_cve_2011_4596_names_are_no_paths(cluster: Cluster, changes: dict[str, str]) -> None:  # noqa: F811
    """A name that could be a path, an unknown architecture, format or checksum is refused before a byte is read."""
    wanted = {"name": "debian", "source": "/no/such/file", **changes}
    with pytest.raises(UsageError) as refused:
        images.create(cluster, CreateImage(**wanted))
    assert "/no/such/file" not in refused.value.message
