"""Shards: plain tars of samples with an index. Written once, read by any tool that reads tars."""

from depthkit.shards.build import Part, WriteReport, write_shards
from depthkit.shards.codec import decode_sample, encode_sample
from depthkit.shards.index import ShardIndex, ShardInfo, SplitInfo
from depthkit.shards.label import DepthFormat
from depthkit.shards.records import Reject
from depthkit.shards.verification import Problem, VerifyReport, verify
from depthkit.shards.writer import ShardWriter

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
    "verify",
    "write_shards",
]
