from pathlib import Path

import pytest

from novactl.enroll.access import Access, requested
from novactl.enroll.request import EnrollNode
from novactl.errors import UsageError


def test_where_a_request_goes(tmp_path: Path) -> None:
    """User, host, port and identity of an SSH target; nothing of it for this machine."""
    key = tmp_path / "key"
    key.touch()
    access, _ = requested(EnrollNode(target="admin@h1", port=2222, identity=key))
    assert (access.ssh, access.identity) == ("admin@h1:2222", str(key))
    assert requested(EnrollNode(local=True))[0] == Access() and Access().ssh == "local"
    assert requested(EnrollNode(target="a@::1"))[0].ssh == "a@[::1]:22"


@pytest.mark.parametrize("fingerprint", ["", "SHA256:short", "MD5:aa:bb", "sha256:" + "a" * 43, "SHA256:" + "a" * 43 + "; x"])
def test_fingerprints_that_are_none(fingerprint: str) -> None:
    """A mistyped --host-key is a usage error, not a changed host key; an empty one is none at all."""
    if not fingerprint:
        assert requested(EnrollNode(target="a@h", host_key=fingerprint))[1].fingerprint == ""
        return
    with pytest.raises(UsageError, match="ssh-keygen -lf"):
        requested(EnrollNode(target="a@h", host_key=fingerprint))


def test_an_identity_that_is_not_there(tmp_path: Path) -> None:
    """Refused before anything is connected."""
    with pytest.raises(UsageError, match="no private key"):
        requested(EnrollNode(target="a@h", identity=tmp_path / "none"))
