"""Shards: plain tars of samples with an index. Written once, read by any tool that reads tars."""

from depthkit.data.shards.build import Reject, WriteReport, write_shards
from depthkit.data.shards.codec import decode_sample, encode_sample
from depthkit.data.shards.index import ShardIndex, ShardInfo, SplitInfo
from depthkit.data.shards.label import DepthFormat
from depthkit.data.shards.parts import Part, join_parts, write_part
from depthkit.data.shards.verification import Problem, VerifyReport, verify
from depthkit.data.shards.writer import ShardWriter

__all__ = [
    "DepthFormat",
    "Part",
    "Problem",
    "Reject",
    "ShardIndex",
    "ShardInfo",
    "ShardWriter",
    "SplitInfo",
    "VerifyReport",
    "WriteReport",
    "decode_sample",
    "encode_sample",
    "join_parts",
    "verify",
    "write_part",
    "write_shards",
]
