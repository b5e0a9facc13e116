"""Threads do not disturb each other, and work done leaves nothing behind; `make load` is the long version."""

from tools.load import pictures, run


def test_threads_give_the_same_bytes_and_memory_does_not_grow():
    result = run(12, 4, pictures()[1:3])
    assert result["different from alone"] == 0
    assert result["resident bytes at the end"] < result["resident bytes at a fifth"] + 60 * 2**20
