"""Every index that claims to be exact passes the contract."""

import pytest

from raeburnmemory.index import VectorIndex, open_index
from raeburnmemory.testing import INDEX_CHECKS


@pytest.fixture(params=["exact", "faiss", "qdrant"])
def backend(request):
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client", reason="the qdrant index needs qdrant-client")
    if request.param == "faiss":
        pytest.importorskip("faiss", reason="the faiss index needs faiss-cpu")
    return request.param


@pytest.mark.parametrize("check", INDEX_CHECKS, ids=lambda check: check.__name__.removeprefix("check_index_"))
def test_contract(backend, check):
    check(lambda dim: open_index(backend, dim))


def test_protocol(backend):
    index = open_index(backend, 3)
    assert isinstance(index, VectorIndex)
    assert (index.name, index.dim) == (backend, 3)


class Wrong:
    """An index with one fault, for each check to find."""

    def __init__(self, dim, fault):
        self._index, self._fault = open_index("exact", dim), fault
        self.name, self.dim = "wrong", dim

    def __getattr__(self, name):
        return getattr(self._index, name)

    def __len__(self):
        return len(self._index)

    def search(self, vector, k, allowed=None):
        if self._fault == "allowed after the top k":
            slots, scores = self._index.search(vector, k)
            keep = [allowed is None or slot in allowed for slot in slots]
            return slots[keep], scores[keep]
        slots, scores = self._index.search(vector, k, allowed)
        if self._fault == "ties to the larger slot":
            order = sorted(range(len(slots)), key=lambda at: (-scores[at], -slots[at]))
            return slots[order], scores[order]
        return (slots[1:], scores[1:]) if self._fault == "a hit is lost" and k > 100 else (slots, scores)

    def above(self, vectors, threshold, allowed=None):
        numbers, slots, scores = self._index.above(vectors, threshold, allowed)
        keep = (slots != 31) | (self._fault != "a pair is lost")
        return numbers[keep], slots[keep], scores[keep]

    def remove(self, slots):
        if self._fault != "nothing is removed":
            self._index.remove(slots)

    def load(self, path, stamp):
        return self._index.load(path, {} if self._fault == "any stamp will do" else stamp)


@pytest.mark.parametrize(
    ("fault", "finder"),
    [
        ("allowed after the top k", "check_index_allowed"),
        ("ties to the larger slot", "check_index_ties"),
        ("a hit is lost", "check_index_search"),
        ("a pair is lost", "check_index_above"),
        ("nothing is removed", "check_index_remove"),
        ("any stamp will do", "check_index_file"),
    ],
)
def test_the_checks_find_faults(fault, finder):
    check = next(check for check in INDEX_CHECKS if check.__name__ == finder)
    with pytest.raises(AssertionError):
        check(lambda dim: Wrong(dim, fault))
