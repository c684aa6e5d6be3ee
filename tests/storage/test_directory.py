"""Whose data directory it is."""

from __future__ import annotations

import random
from typing import Any

import pytest

from seatrial.env import RealFiles
from seatrial.raft.ids import GroupId, NodeId
from seatrial.storage import DataDirectoryInUse, GroupBeingRemoved, WrongDataDirectory


def test_the_directory_of_another_node_is_refused_by_name(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        kit.storage(disk, node_id=NodeId(1), cluster_id="blue").close()
        with pytest.raises(WrongDataDirectory, match=r"node 1 of cluster 'blue'.*node 2 of cluster 'blue'"):
            kit.storage(disk, node_id=NodeId(2), cluster_id="blue")
        with pytest.raises(WrongDataDirectory, match=r"node 1 of cluster 'blue'.*node 1 of cluster 'red'"):
            kit.storage(disk, node_id=NodeId(1), cluster_id="red")
        kit.storage(disk, node_id=NodeId(1), cluster_id="blue").close()

    kit.run(scenario())


def test_two_storages_cannot_share_a_directory(kit: Any, tmp_path: Any) -> None:
    async def scenario() -> None:
        first = kit.storage(RealFiles(), str(tmp_path))
        with pytest.raises(DataDirectoryInUse, match=str(tmp_path)):
            kit.storage(RealFiles(), str(tmp_path))
        first.close()
        kit.storage(RealFiles(), str(tmp_path)).close()

    kit.run(scenario())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"node_id": 1}', b"\xff\xfe"])
def test_a_damaged_identity_is_refused(kit: Any, content: bytes) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        kit.storage(disk).close()
        disk.names["data/identity"].content[:] = content
        with pytest.raises(WrongDataDirectory, match="identity"):
            kit.storage(disk)
        assert "data/lock" not in disk.locked

    kit.run(scenario())


def test_another_format_is_refused(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        kit.storage(disk).close()
        identity = disk.names["data/identity"].content
        identity[:] = identity.replace(b'"format": 1', b'"format": 2')
        with pytest.raises(WrongDataDirectory, match="format 2"):
            kit.storage(disk)

    kit.run(scenario())


def test_groups_without_an_identity_are_refused(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        storage = kit.storage(disk)
        await kit.save(storage.open_group(GroupId(1)), kit.entries(1, 1), kit.state(1))
        storage.close()
        del disk.names["data/identity"]
        with pytest.raises(WrongDataDirectory, match="unknown"):
            kit.storage(disk)

    kit.run(scenario())


def test_a_removal_cut_short_is_finished_on_start(kit: Any) -> None:
    async def scenario() -> None:
        for cut_at in range(1, 11):
            disk = kit.disk()
            storage = kit.storage(disk, segment_bytes=1)
            for n in (1, 2):
                for index in (1, 2):
                    await kit.save(storage.open_group(GroupId(n)), kit.entries(index, index), kit.state(1))
            disk.fail_at = len(disk.calls) + cut_at
            storage.remove_group(GroupId(1))
            with pytest.raises(GroupBeingRemoved):
                storage.open_group(GroupId(1))
            storage.close()
            torn = [disk.after_power_cut(random.Random(seed)) for seed in range(8)]
            for survivor in (disk.after_kill(), disk.after_power_cut(), *torn):
                again = kit.storage(survivor)
                assert kit.log(again.open_group(GroupId(2))) == kit.entries(1, 2)
                again_one = again.open_group(GroupId(1))  # whole or gone, never damaged
                assert kit.log(again_one) in ([], kit.entries(1, 2))
                if kit.log(again_one) == []:
                    await kit.save(again_one, kit.entries(1, 1), kit.state(1))
                again.close()

    kit.run(scenario())


def test_a_damaged_group_can_be_removed_and_filled_again(kit: Any) -> None:
    from seatrial.storage import DamagedLog

    async def scenario() -> None:
        disk = kit.disk()
        storage = kit.storage(disk)
        await kit.save(storage.open_group(GroupId(1)), kit.entries(1, 2), kit.state(1))
        storage.close()
        path = next(p for p in disk.names if "segment" in p)
        disk.names[path].content[40] ^= 1
        storage = kit.storage(disk)
        with pytest.raises(DamagedLog, match="segment-00000001"):
            storage.open_group(GroupId(1))
        assert list(storage.groups()) == [1]
        storage.remove_group(GroupId(1))
        storage.close()
        storage = kit.storage(disk)
        fresh = storage.open_group(GroupId(1))
        await kit.save(fresh, snapshot=kit.snapshot(5), hard_state=kit.state(1))
        assert fresh.first_index == 6
        storage.close()

    kit.run(scenario())
