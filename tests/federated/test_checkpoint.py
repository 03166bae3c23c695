import errno
import os

import pytest
import torch

from hcqsfl.federated import checkpoint


def test_a_checkpoint_comes_back_as_it_went(tmp_path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5)}
    checkpoint.save(tmp_path / "c", tensors, {"round": 7, "score": None})
    back, facts = checkpoint.load(tmp_path / "c")
    assert facts == {"round": 7, "score": None}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(tmp_path, monkeypatch) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"a": torch.ones(2)}, {"round": 1})

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot be written .No space left on device.; the one before is intact"):
        checkpoint.save(path, {"a": torch.zeros(2)}, {"round": 2})
    assert checkpoint.load(path)[1] == {"round": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("length", [0, 7, 20, 100])
def test_a_damaged_checkpoint_is_refused(tmp_path, length: int) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"a": torch.ones(200)}, {"round": 1})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load(path)
