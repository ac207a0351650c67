"""The kernel's classes: leaves never sum above their root, whatever is changed in one step."""

import pytest

from fedpace.core.errors import RunError
from fedpace.testbed.classes import Rate
from fedpace.testbed.network import shaped_network
from testbed.shaped import needs_kernel

pytestmark = needs_kernel


@pytest.fixture(scope="module")
def classes():
    """Made once here, and in no file that has another network: a process has one at a time."""
    with shaped_network(3) as made:
        yield made.classes


def test_leaves_that_sum_above_their_root_are_refused_and_nothing_is_changed(classes):
    before = [classes.leaf(n) for n in range(3)]
    with pytest.raises(RunError, match="would sum to 3000000 bit/s, above their root's 1000000"):
        classes.change(1e6, dict.fromkeys(range(3), Rate(1e6, 1e6)))
    assert [classes.leaf(n) for n in range(3)] == before


def test_shrinking_and_growing_at_once_never_sums_above_the_root(classes, monkeypatch):
    sums, root = [], []
    classes.change(3e6, {0: Rate(2e6, 2e6), 1: Rate(5e5, 5e5), 2: Rate(5e5, 5e5)})
    leaves = {n: classes.leaf(n).rate_bps for n in range(3)}
    root.append(3e6)
    tell = classes._tell

    def told(line):
        words = line.split()
        if words[:2] == ["class", "change"]:
            minor, rate = words[words.index("classid") + 1], words[words.index("rate") + 1]
            number, bps = int(minor[2:], 16), float(rate.removesuffix("bit"))
            if number == 1:
                root[0] = bps
            else:
                leaves[number - 0x10] = bps
            sums.append(sum(leaves.values()) <= root[0])
        tell(line)

    monkeypatch.setattr(classes, "_tell", told)
    classes.change(4e6, {0: Rate(1e5, 1e5), 1: Rate(3e6, 3e6), 2: Rate(9e5, 9e5)})
    classes.change(1e6, {0: Rate(8e5, 8e5), 1: Rate(1e5, 1e5), 2: Rate(1e5, 1e5)})
    assert len(sums) == 8
    assert all(sums)
